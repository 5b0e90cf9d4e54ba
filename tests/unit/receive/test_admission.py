import socket

import pytest

from msnode.receive.admission import Peer, admits

SCANNER = Peer("SCANNER", ("10.1.0.0/16", "2001:db8::/32"))
PACS = Peer("PACS", ("10.2.0.7",))


@pytest.mark.parametrize(
    ("peers", "calling", "address", "admitted"),
    [
        ((), "ANY", "127.0.0.1", True),
        ((), "ANY", "127.8.9.10", True),
        ((), "ANY", "::1", True),
        ((), "ANY", "::ffff:127.0.0.1", True),
        ((), "ANY", "10.1.2.3", False),
        ((), "ANY", "::ffff:10.1.2.3", False),
        ((), "ANY", "fe80::1%eth0", False),
        ((SCANNER,), "SCANNER", "10.1.2.3", True),
        ((SCANNER,), "SCANNER", "::ffff:10.1.2.3", True),
        ((SCANNER,), "SCANNER", "2001:db8::5", True),
        ((SCANNER,), "SCANNER", "10.2.2.3", False),
        ((SCANNER,), "SCANNER", "127.0.0.1", False),
        ((SCANNER,), "scanner", "10.1.2.3", False),
        ((SCANNER,), "OTHER", "10.1.2.3", False),
        ((SCANNER, PACS), "PACS", "10.2.0.7", True),
        ((SCANNER, PACS), "PACS", "10.1.2.3", False),
        ((Peer("A", ()),), "A", "127.0.0.1", False),
    ],
)
def test_admits(*, peers: tuple[Peer, ...], calling: str, address: str, admitted: bool) -> None:
    assert admits(peers, calling, address) is admitted


def test_host_names_are_resolved_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"scanner.test": "10.9.9.9"}

    def lookup(host: str, *_: object, **__: object) -> list:
        if host not in known:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    peers = (Peer("SCANNER", ("scanner.test",)), Peer("GONE", ("gone.test",)))
    assert admits(peers, "SCANNER", "10.9.9.9")
    assert not admits(peers, "SCANNER", "10.9.9.8")
    assert not admits(peers, "GONE", "10.9.9.9")
    known["scanner.test"] = "10.9.9.8"
    assert admits(peers, "SCANNER", "10.9.9.8")
