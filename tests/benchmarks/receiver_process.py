"""The receiver in a process of its own, as `msnode serve --role receiver` has it, or without durability.

    python receiver_process.py PORT FOLDER durable|quick

`durable` is the node as it is: bytes and record on disk before the answer. `quick` neither syncs the
bytes nor keeps a record, to see what durability costs.
"""

import signal
import sys
from pathlib import Path
from threading import Event

from msnode.receive.ledger import MemoryLedger
from msnode.receive.scp import Receiver
from msnode.receive.spool import Spool
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.series.comparison import same_image
from msnode.store import Store


def main() -> None:
    port, folder, mode = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    durable = mode == "durable"
    if durable:
        url = f"sqlite:///{folder / 'record.db'}"
        upgrade(url)
        ledger = Arrivals(Database(url))
    else:
        ledger = MemoryLedger()
    store = Store(folder / "store", durable=durable)
    spool = Spool(store, ledger, same_image=same_image, min_free_bytes=0)
    receiver = Receiver("MSNODE", "127.0.0.1", port, (), spool)
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    receiver.start()
    stop.wait()
    receiver.stop()


if __name__ == "__main__":
    main()
