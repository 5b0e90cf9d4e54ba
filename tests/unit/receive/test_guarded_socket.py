import socket
import struct
from collections.abc import Iterator

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation

from msnode.receive.guarded_socket import GuardedSocket
from msnode.receive.limits import Limits

LIMITS = Limits(max_pdu_bytes=1000, max_message_bytes=500, pdu_timeout_s=0.3)


@pytest.fixture
def ends() -> Iterator[tuple[GuardedSocket, socket.socket]]:
    association = Association(AE(), "acceptor")
    association.requestor.address_info = AddressInformation("127.0.0.1", 4711)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as theirs,
        server.accept()[0] as ours,
    ):
        yield GuardedSocket(association, ours, LIMITS), theirs


def pdu(body: bytes, pdu_type: int = 4) -> bytes:
    return struct.pack(">BBL", pdu_type, 0, len(body)) + body


def value(data: bytes, control: int) -> bytes:
    return struct.pack(">LBB", len(data) + 2, 1, control) + data


def test_the_body_of_a_data_pdu_is_read_at_once(ends) -> None:
    guarded, peer = ends
    peer.sendall(pdu(value(b"ab", 2)) + pdu(value(b"cd", 2)))
    assert [bytes(guarded.next_data())[6:] for _ in range(2)] == [b"ab", b"cd"]


def test_another_pdu_is_left_to_pynetdicom_with_its_header(ends) -> None:
    guarded, peer = ends
    peer.sendall(pdu(b"1234", 5))
    assert guarded.next_data() is None
    assert guarded.recv(6) == pdu(b"1234", 5)[:6]
    assert guarded.recv(4) == b"1234"


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (struct.pack(">BBL", 4, 0, 1001), "pdu_too_long"),
        (b"\4\0", "pdu_too_slow"),
        (pdu(value(b"x" * 300, 0)) * 2, "message_too_long"),
        (pdu(value(b"x" * 900, 1)) * 80, "command_too_long"),
    ],
)
def test_what_exceeds_a_limit_is_refused(ends, sent: bytes, says: str) -> None:
    guarded, peer = ends
    peer.sendall(sent)
    with pytest.raises(OSError, match=says):  # noqa: PT012 - the last of many reads it is
        while True:
            guarded.next_data()


def test_a_peer_that_hangs_up_in_the_middle(ends) -> None:
    guarded, peer = ends
    peer.sendall(pdu(value(b"abcd", 2))[:-1])
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match="connection closed"):
        guarded.next_data()


def test_there_is_something_to_read_or_not(ends) -> None:
    guarded, peer = ends
    assert not guarded.ready
    peer.sendall(b"x")
    assert not guarded.ready, "the event of the connection comes first"
    guarded.event_queue.get_nowait()
    assert guarded.ready
    guarded.recv(1)
