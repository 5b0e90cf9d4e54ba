"""Many senders that begin at the same moment, each on an association of its own.

    python senders_process.py PORT SENDERS FOLDER COUNT

Sends the first COUNT instances of FOLDER, shared out; prints [begin, end] in s of every request as JSON.
What is sent is put together before the first byte goes out, so that the senders take little of the machine.
"""

import json
import struct
import sys
import threading
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydicom import dcmread

from support.raw_sender import RawSender, store_pdus

_GROUP_LENGTH_AT = 140  # value of (0002,0000), after preamble, prefix, tag, VR and length


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    files = sorted(Path(sys.argv[3]).iterdir())[: int(sys.argv[4])]
    senders = [RawSender(port) for _ in range(count)]
    shares = [[_request(sender, path) for path in files[i::count]] for i, sender in enumerate(senders)]
    start = threading.Barrier(count)
    times: list[tuple[float, float]] = []

    def send(sender: RawSender, share: list[bytes]) -> None:
        start.wait()
        for request in share:
            begin = perf_counter()
            sender.socket.sendall(request)
            assert sender.status() == 0
            times.append((begin, perf_counter()))

    threads = [threading.Thread(target=send, args=each) for each in zip(senders, shares, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sender in senders:
        sender.release()
    print(json.dumps(times))  # noqa: T201 - the output


def _request(sender: RawSender, path: Path) -> bytes:
    file = path.read_bytes()
    (group_length,) = struct.unpack_from("<L", file, _GROUP_LENGTH_AT)
    uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    data_set = file[_GROUP_LENGTH_AT + 4 + group_length :]
    return b"".join(store_pdus(uid, data_set, max_pdu_bytes=sender.max_pdu_bytes))


if __name__ == "__main__":
    main()
