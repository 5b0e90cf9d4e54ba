from types import SimpleNamespace

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from msnode.receive.admission import Admission, Peer
from msnode.receive.counted import Counted
from msnode.receive.guard import GuardedServer, end_waiting
from msnode.receive.limits import Limits

PEERS = (Peer("A", ("10.0.0.1",)), Peer("B", ("10.0.0.2",)), Peer("C", ("10.0.0.0/24",)))


class Connection:
    """An association as the server sees it."""

    def __init__(self, address: str, *, requested: bool = True, opened_at: float = 0) -> None:
        self.requestor = SimpleNamespace(address=address, primitive=object() if requested else None)
        self.dul = SimpleNamespace(socket=self)
        self.opened_at = opened_at
        self.socket: object | None = object()

    def close(self) -> None:
        self.socket = None


@pytest.fixture
def server(monkeypatch) -> GuardedServer:
    monkeypatch.setattr(GuardedServer, "active_associations", [])
    found = GuardedServer.__new__(GuardedServer)
    found.limits = Limits(max_connections=4, max_connections_per_address=2)
    found.counted = Counted()
    found._admission = Admission(PEERS)
    return found


def takes(server: GuardedServer, address: str) -> bool:
    return server.verify_request(None, (address, 4711))


@pytest.mark.parametrize(
    ("held", "address", "taken"),
    [
        ([], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"] * 2, "10.0.0.1", False),  # its own limit
        (["10.0.0.2"] * 2, "10.0.0.1", True),
        (["10.0.0.3", "10.0.0.4", "10.0.0.5"], "10.0.0.6", False),  # one is kept for A or B
        (["10.0.0.3", "10.0.0.4", "10.0.0.5"], "10.0.0.1", True),
        (["10.0.0.1", "10.0.0.2", "10.0.0.3"], "10.0.0.4", True),  # each listed peer has one
        (["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "10.0.0.5", False),
        ([], "10.0.1.1", False),  # a stranger
        ([], "127.0.0.1", False),
    ],
)
def test_places_are_for_listed_addresses_and_each_peer_finds_one(server, held, address, taken):
    server.active_associations.extend(map(Connection, held))
    assert takes(server, address) is taken


def test_who_has_not_requested_an_association_gives_its_place_to_a_new_one(server):
    silent = [Connection(f"10.0.0.{n}", requested=False, opened_at=9 - n) for n in range(1, 5)]
    server.active_associations.extend(silent)
    assert takes(server, "10.0.0.1")
    assert [c.socket is None for c in silent] == [True, False, False, False], "its own address first"
    server.active_associations.append(Connection("10.0.0.1"))
    assert takes(server, "10.0.0.9")
    assert [c.socket is None for c in silent] == [True, False, False, True], "then the oldest"


def test_an_open_association_gives_its_place_to_nobody(server):
    server.active_associations.extend(Connection("10.0.0.1") for _ in range(2))
    assert not takes(server, "10.0.0.1")
    assert all(c.socket for c in server.active_associations)


def test_strangers_are_counted_and_logged_once_a_minute(server, capsys):
    for number in range(50):
        assert not takes(server, f"192.0.2.{number}")
    assert capsys.readouterr().out.count("unlisted_address") == 1
    assert server.counted._counts["unlisted_address",] == 49


def test_an_association_whose_connection_was_closed_waits_no_longer():
    association = Association(AE(), "acceptor")
    end_waiting(association)
    assert association.dul.to_user_queue.get_nowait() is None
