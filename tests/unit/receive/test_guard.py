from types import SimpleNamespace

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from msnode.receive.guard import GuardedServer, end_waiting
from msnode.receive.limits import Limits


@pytest.mark.parametrize(
    ("addresses", "admitted"),
    [
        ([], True),
        (["10.0.0.1"], True),
        (["10.0.0.1"] * 2, False),
        (["10.0.0.2"] * 2, True),
        (["10.0.0.2", "10.0.0.3", "10.0.0.4"], False),
    ],
)
def test_connections_are_limited_in_all_and_by_address(addresses, admitted, monkeypatch):
    alive = [SimpleNamespace(requestor=SimpleNamespace(address=a)) for a in addresses]
    monkeypatch.setattr(GuardedServer, "active_associations", alive)
    server = GuardedServer.__new__(GuardedServer)
    server.limits = Limits(max_connections=3, max_connections_per_address=2)
    assert server.verify_request(None, ("10.0.0.1", 4711)) is admitted


def test_an_association_whose_connection_was_closed_waits_no_longer():
    association = Association(AE(), "acceptor")
    end_waiting(association)
    assert association.dul.to_user_queue.get_nowait() is None
