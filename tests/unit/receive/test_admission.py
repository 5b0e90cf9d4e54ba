import socket

import pytest

from msnode.receive.admission import Admission, Peer
from support.peers import wait_until

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
    assert Admission(peers).admits(calling, address) is admitted


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        ("10.1.2.3", {SCANNER}),
        ("10.2.0.7", {PACS}),
        ("10.2.0.8", set()),
        ("127.0.0.1", set()),
    ],
)
def test_an_address_is_listed_or_a_stranger(address: str, listed: set[Peer]) -> None:
    assert Admission((SCANNER,), reporters=(PACS,)).at(address) == listed


def test_a_reporter_may_do_nothing_else() -> None:
    admission = Admission((SCANNER,), reporters=(PACS,))
    assert admission.may_report("PACS", "10.2.0.7")
    assert not admission.admits("PACS", "10.2.0.7")
    assert not admission.may_report("SCANNER", "10.1.2.3")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the name server knows; it can be changed."""
    known = {"scanner.test": "10.9.9.9"}

    def lookup(host: str, *_: object, **__: object) -> list:
        if host not in known:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return known


def test_host_names_are_looked_up_again(names: dict[str, str]) -> None:
    admission = Admission((Peer("SCANNER", ("scanner.test",)), Peer("GONE", ("gone.test",))))
    assert admission.admits("SCANNER", "10.9.9.9")
    assert not admission.admits("SCANNER", "10.9.9.8")
    assert not admission.admits("GONE", "10.9.9.9")
    names["scanner.test"] = "10.9.9.8"
    admission.look_up()
    assert admission.admits("SCANNER", "10.9.9.8")
    assert not admission.admits("SCANNER", "10.9.9.9")


def test_a_name_server_that_is_away_refuses_nobody(names: dict[str, str]) -> None:
    admission = Admission((Peer("SCANNER", ("scanner.test",)),))
    names.clear()
    admission.look_up()
    assert admission.admits("SCANNER", "10.9.9.9")


def test_a_connection_starts_a_look_up_and_does_not_wait_for_it(
    names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = Admission((Peer("SCANNER", ("scanner.test",)),))
    names["scanner.test"] = "10.9.9.8"
    monkeypatch.setattr("msnode.receive.admission._NAMES_VALID_S", 0)
    admission.at("10.0.0.1")
    wait_until(lambda: admission.admits("SCANNER", "10.9.9.8"), what="the new address is known")
