"""What senders may do to one listener: many at once, all at once, halfway, without waiting, and too much."""

import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom.acse import ACSE

from msnode.receive import held
from msnode.receive.admission import Peer
from msnode.receive.guarded_socket import GuardedSocket
from msnode.receive.intake import Intake
from msnode.receive.ledger import MemoryLedger
from msnode.receive.limits import Limits
from msnode.receive.scp import Receiver
from msnode.receive.spool import Spool
from msnode.store import Store
from support.dicom_files import encoded, flair_series
from support.peers import in_time, wait_until
from support.raw_sender import RawSender, echo_pdus, store_pdus

MIB = 2**20


class Listener:
    """A receiver without durability, and what it was told."""

    def __init__(self, root: Path, limits: Limits | None = None, peers: tuple[Peer, ...] = ()) -> None:
        self.ledger = MemoryLedger()
        self.store = Store(root / "store", durable=False)
        self.spool = Spool(self.store, self.ledger, same_image=lambda *_: True, min_free_bytes=0)
        self.receiver = Receiver("MSNODE", "127.0.0.1", 0, peers, self.spool, limits=limits)
        self.receiver.start()

    def sender(self) -> RawSender:
        return RawSender(self.receiver.port)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Callable[..., Listener]]:
    with ExitStack() as stack:

        def start(*, peers: tuple[Peer, ...] = (), **limits: object) -> Listener:
            found = Listener(tmp_path / "node", Limits(**limits), peers)
            stack.callback(found.receiver.stop)
            return found

        yield start


@pytest.fixture
def instances(tmp_path: Path) -> list[tuple[str, bytes]]:
    """SOP Instance UID and data set of each, 2 MiB."""
    files = flair_series(tmp_path / "in", slices=4, rows=1024, columns=1024)
    return [(str(ds.SOPInstanceUID), encoded(ds)) for ds in map(dcmread, files)]


def halfway(sender: RawSender, uid: str, data: bytes, share: float) -> list[bytes]:
    """Send that share of an instance's PDUs; returns the others."""
    pdus = list(store_pdus(uid, data))
    cut = int(share * len(pdus))
    sender.socket.sendall(b"".join(pdus[:cut]))
    return pdus[cut:]


def held_bytes(listener: Listener) -> int:
    server = listener.receiver._server
    return server.limits.max_held_bytes - server.memory._free


def test_beyond_the_memory_of_all_an_instance_is_refused_and_the_association_stays(
    listener, instances
) -> None:
    one = listener(max_held_bytes=3 * MIB)
    with closing(one.sender()) as slow, closing(one.sender()) as other:
        rest = halfway(slow, *instances[0], share=0.7)
        wait_until(lambda: held_bytes(one) > MIB, what="the first is held")
        assert other.store(*instances[1]) == 0xA700
        assert other.echo() == 0
        assert one.ledger.arrivals == []
        slow.socket.sendall(b"".join(rest))
        assert slow.status() == 0
        assert other.store(*instances[1]) == 0
        assert len(one.ledger.arrivals) == 2
        assert held_bytes(one) == 0


def test_memory_of_a_sender_that_hangs_up_halfway_is_free_again(listener, instances) -> None:
    one = listener(max_held_bytes=3 * MIB)
    for uid, data in instances:
        sender = one.sender()
        halfway(sender, uid, data, share=0.9)
        wait_until(lambda: held_bytes(one) > MIB, what="the data is held")
        sender.close()
        wait_until(lambda: held_bytes(one) == 0, what="the data is let go")
    with closing(one.sender()) as sender:
        assert sender.store(*instances[0]) == 0


def test_one_sender_at_a_time_is_served_whatever_was_refused_before(listener, instances) -> None:
    one = listener(max_held_bytes=MIB)
    with closing(one.sender()) as sender:
        assert [sender.store(*each) for each in instances] == [0xA700] * 4
        sender.release()
    wait_until(lambda: list(one.ledger.closed.values()) == [True], what="released")


def test_requests_sent_without_waiting_are_answered_in_order_one_held_at_a_time(listener, instances) -> None:
    one = listener(max_held_bytes=3 * MIB)
    with closing(one.sender()) as sender:
        pdus = [pdu for each in instances for pdu in store_pdus(*each)]
        threading.Thread(target=sender.socket.sendall, args=(b"".join(pdus),)).start()
        assert [sender.status() for _ in instances] == [0] * 4
    assert [a.sop_instance_uid for a in one.ledger.arrivals] == [uid for uid, _ in instances]


def test_echoes_sent_without_waiting_do_not_pile_up(listener) -> None:
    one = listener()
    with closing(one.sender()) as sender:
        threading.Thread(target=sender.socket.sendall, args=(b"".join(echo_pdus()) * 200,)).start()
        assert [sender.status() for _ in range(200)] == [0] * 200
        sender.release()


def test_an_instance_in_tiny_fragments_is_stored_and_costs_what_it_carries(listener, tmp_path: Path) -> None:
    one = listener(max_held_bytes=64 * 1024)
    ds = dcmread(flair_series(tmp_path / "in", slices=1, rows=64, columns=64)[0])
    uid, data = str(ds.SOPInstanceUID), encoded(ds)
    with closing(one.sender()) as sender:
        command, *fragments = store_pdus(uid, data, max_pdu_bytes=14)
        threading.Thread(target=sender.socket.sendall, args=(b"".join([command, *fragments]),)).start()
        assert sender.status() == 0
    (arrival,) = one.ledger.arrivals
    assert one.store.blob_path(arrival.digest).read_bytes().endswith(data)


def test_a_large_instance_is_on_disk_while_it_comes_and_stored_byte_for_byte(
    listener, instances, monkeypatch
) -> None:
    monkeypatch.setattr(held, "_SPOOL_BYTES", 256 * 1024)
    one = listener(max_held_bytes=MIB)
    uid, data = instances[0]
    with closing(one.sender()) as sender:
        rest = halfway(sender, uid, data, share=0.9)
        assert held_bytes(one) <= MIB
        sender.socket.sendall(b"".join(rest))
        assert sender.status() == 0
        assert sender.store(uid, data) == 0, "the same again"
    digest = one.ledger.arrivals[0].digest
    stored = one.store.blob_path(digest).read_bytes()
    assert stored.endswith(data)
    assert hashlib.sha256(stored).hexdigest() == digest
    assert held_bytes(one) == 0
    assert list(one.store.temporary.iterdir()) == []


def test_command_in_the_middle_of_a_data_set_ends_the_association(listener, instances) -> None:
    one = listener()
    with closing(one.sender()) as sender:
        halfway(sender, *instances[0], share=0.5)
        with suppress(ConnectionError):  # the receiver may have ended it before all was sent
            sender.socket.sendall(b"".join(store_pdus(*instances[1])))
        with suppress(ConnectionError):
            assert sender.receive()[0] in {0x07, 0}
    assert one.ledger.arrivals == []


def test_node_that_is_stopped_does_not_wait_for_the_end_of_an_instance(listener, instances) -> None:
    one = listener()

    def send_without_end(sender: RawSender) -> None:
        command, data, *_ = store_pdus(*instances[0])
        with suppress(OSError):
            sender.socket.sendall(command)
            while True:
                sender.socket.sendall(data)

    with closing(one.sender()) as sender:
        thread = threading.Thread(target=send_without_end, args=(sender,))
        thread.start()
        wait_until(lambda: held_bytes(one) > 2 * MIB, what="it is coming in")
        in_time(one.receiver.stop)
        thread.join()
    assert list(one.ledger.closed.values()) == [False]


def test_command_without_end_closes_the_connection(listener) -> None:
    one = listener()
    with closing(one.sender()) as sender:
        (command, *_) = store_pdus("1.2.3", b"data")
        endless = bytearray(command)
        endless[11] = 1  # a command fragment, and not the last one
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 - the last of many sends it is
            while True:
                sender.socket.sendall(endless)
    wait_until(lambda: list(one.ledger.closed.values()) == [False], what="closed")


@pytest.mark.parametrize(
    "pdu",
    [
        b"\4\0\0\0\0\6" + b"\0\0\0\1\1\2",  # too short to be a value
        b"\4\0\0\0\0\x0a" + b"\0\0\1\0\1\0abcd",  # longer than its PDU
        b"\4\0\0\0\0\x0a" + b"\0\0\0\6\1\2abcd",  # data that no command announced
        b"\4\0\0\0\0\x0a" + b"\0\0\0\6\1\3abcd",  # a command that is none
    ],
)
def test_what_is_no_message_ends_the_association_alone(listener, instances, pdu: bytes) -> None:
    one = listener()
    with closing(one.sender()) as broken, closing(one.sender()) as other:
        broken.socket.sendall(pdu)
        assert broken.receive()[0] in {0x07, 0}
        assert other.store(*instances[0]) == 0


def test_data_on_a_context_that_was_not_accepted_ends_the_association(listener, instances) -> None:
    one = listener()
    with closing(one.sender()) as sender:
        for pdu in store_pdus(*instances[0]):
            changed = bytearray(pdu)
            changed[10] = 9
            sender.socket.sendall(changed)
        assert sender.receive()[0] in {0x07, 0}
    assert one.ledger.arrivals == []


def test_mistake_of_ours_is_answered_with_a_failure(listener, instances, monkeypatch) -> None:
    one = listener()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with closing(one.sender()) as sender, closing(one.sender()) as other:
        with monkeypatch.context() as patch:
            patch.setattr(one.spool, "_keep", broken)
            assert sender.store(*instances[0]) == 0x0110
        assert other.store(*instances[0]) == 0


def test_associations_that_are_open_and_idle_cost_next_to_nothing(listener, monkeypatch) -> None:
    looks = 0

    def counted(look: Callable[..., object]) -> Callable[..., object]:
        def count(*arguments: object, **options: object) -> object:
            nonlocal looks
            looks += 1
            return look(*arguments, **options)

        return count

    monkeypatch.setattr(Intake, "get_msg", counted(Intake.get_msg))
    monkeypatch.setattr(GuardedSocket, "ready", property(counted(GuardedSocket.ready.fget)))
    one = listener()
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(closing(one.sender()))
        wait_until(lambda: len(one.ledger.opened) == 20, what="all are open")
        before = looks
        threading.Event().wait(1)
        assert looks - before < 20 * 200  # about 20 each; pynetdicom alone looks 2,000 times
        in_time(one.receiver.stop)
    assert list(one.ledger.closed.values()) == [False] * 20


def test_twenty_senders_at_once(listener, tmp_path: Path) -> None:
    one = listener()
    shares = [flair_series(tmp_path / f"{n}", slices=10, study=str(n)) for n in range(20)]
    answers: list[int] = []

    def send(share: list[Path]) -> None:
        with closing(one.sender()) as sender:
            answers.extend(sender.store(str(ds.SOPInstanceUID), encoded(ds)) for ds in map(dcmread, share))
            sender.release()

    threads = [threading.Thread(target=send, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 200
    assert len({a.sop_instance_uid for a in one.ledger.arrivals}) == 200
    assert len(list(one.store.blobs())) == 200
    wait_until(lambda: len(one.ledger.closed) == 20, what="all are closed")
    assert all(one.ledger.closed.values())


def request(*items: bytes, version: int = 1, called: bytes = b"MSNODE") -> bytes:
    """An A-ASSOCIATE-RQ PDU (PS3.8 9.3.2) of these items."""
    body = struct.pack(">HH16s16s32x", version, 0, called.ljust(16), b"SENDER".ljust(16)) + b"".join(items)
    return struct.pack(">BBL", 1, 0, len(body)) + body


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def context(number: int, *syntaxes: bytes) -> bytes:
    return item(0x20, bytes([number, 0, 0, 0]) + b"".join(syntaxes))


APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
ECHO, IMPLICIT = item(0x30, b"1.2.840.10008.1.1"), item(0x40, b"1.2.840.10008.1.2")
USER = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
ABORT, REJECT = 0x07, 0x03


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (struct.pack(">BBL", 1, 0, 0), ABORT),
        (request(APPLICATION, context(1, ECHO, IMPLICIT), USER, version=0), REJECT),
        (request(APPLICATION, context(1, ECHO, IMPLICIT), USER, called=b"OTHER"), REJECT),
        (request(context(1, ECHO, IMPLICIT), USER), REJECT),
        (request(item(0x10, b"1.2.3"), context(1, ECHO, IMPLICIT), USER), REJECT),
        (request(APPLICATION, USER), REJECT),
        (request(APPLICATION, context(1, ECHO, IMPLICIT)), REJECT),
        (request(APPLICATION, context(1, ECHO, IMPLICIT), context(1, ECHO, IMPLICIT), USER), REJECT),
        (request(APPLICATION, context(2, ECHO, IMPLICIT), USER), ABORT),
        (request(APPLICATION, context(1, IMPLICIT), USER), ABORT),
        (request(APPLICATION, context(1, ECHO), USER), ABORT),
        (request(APPLICATION, context(1, ECHO, IMPLICIT)[:-3], USER), ABORT),
        (request(APPLICATION, bytes(1000), USER), ABORT),
        (struct.pack(">BBL", 1, 0, 2**20), ABORT),
        (struct.pack(">BBL", 9, 0, 4) + b"abcd", ABORT),
        (struct.pack(">BBLL", 5, 0, 4, 0), ABORT),
        (b"GET / HTTP/1.1\r\n\r\n", ABORT),
    ],
)
def test_what_is_no_association_request_is_answered_and_ended(listener, sent: bytes, answer: int) -> None:
    one = listener(association_timeout_s=3600)
    with closing(socket.create_connection(("127.0.0.1", one.receiver.port), timeout=60)) as client:
        client.sendall(sent)
        assert client.recv(10)[0] == answer
        with suppress(ConnectionResetError):
            assert client.recv(1) == b"", "the connection is closed"
        wait_until(lambda: not one.receiver._server.active_associations, what="its place is free")


def test_an_error_in_negotiation_is_answered_and_ended(listener, monkeypatch) -> None:
    one = listener(association_timeout_s=3600)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ACSE, "negotiate_association", broken)
    with closing(socket.create_connection(("127.0.0.1", one.receiver.port), timeout=60)) as client:
        client.sendall(request(APPLICATION, context(1, ECHO, IMPLICIT), USER))
        assert client.recv(10)[0] == ABORT
        wait_until(lambda: not one.receiver._server.active_associations, what="its place is free")


@pytest.mark.parametrize("sent", [b"", b"\1\0", request(APPLICATION)[:40]])
def test_a_place_is_free_when_the_peer_hangs_up(listener, sent: bytes) -> None:
    one = listener(association_timeout_s=3600, pdu_timeout_s=3600)
    with closing(socket.create_connection(("127.0.0.1", one.receiver.port))) as client:
        client.sendall(sent)
        wait_until(lambda: one.receiver._server.active_associations, what="it has a place")
    wait_until(lambda: not one.receiver._server.active_associations, what="its place is free")


@pytest.mark.parametrize("sent", [b"", b"\1\0", request(APPLICATION)[:40]])
def test_without_an_association_request_a_connection_is_closed_soon(listener, sent: bytes) -> None:
    one = listener(association_timeout_s=0.5, pdu_timeout_s=3600, idle_timeout_s=3600)
    with closing(socket.create_connection(("127.0.0.1", one.receiver.port), timeout=60)) as client:
        client.sendall(sent)
        with suppress(ConnectionResetError):
            while client.recv(10):
                pass


def test_silent_connections_take_no_place_from_a_sender(listener, instances) -> None:
    one = listener(max_connections=4, max_connections_per_address=4, association_timeout_s=3600)
    with ExitStack() as stack:
        for count in range(1, 9):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", one.receiver.port))))
            wait_until(
                lambda c=count: len(one.receiver._server._connected()) == min(c, 4), what="they are accepted"
            )
        sender = stack.enter_context(closing(one.sender()))
        assert sender.store(*instances[0]) == 0


def test_forty_strangers_take_no_place(listener, instances) -> None:
    one = listener(peers=(Peer("SENDER", ("127.0.0.1",)),))
    with ExitStack() as stack:
        for number in range(40):
            client = socket.create_connection(
                ("127.0.0.1", one.receiver.port), timeout=60, source_address=(f"127.0.1.{number + 1}", 0)
            )
            stack.enter_context(closing(client))
            with suppress(ConnectionResetError):
                assert client.recv(10) == b"", "closed without a byte"
        assert one.receiver._server.active_associations == []
        assert stack.enter_context(closing(one.sender())).store(*instances[0]) == 0
