"""Who may connect and call: the allow-list of AE titles and addresses."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

log = structlog.get_logger()

_NAMES_VALID_S = 60


@dataclass(frozen=True)
class Peer:
    """A caller on the allow-list.

    Attributes:
        ae_title: the exact calling AE title; None is any.
        addresses: IP addresses, networks in CIDR notation, or host names.
    """

    ae_title: str | None
    addresses: tuple[str, ...]


_THIS_MACHINE = Peer(None, ("127.0.0.0/8", "::1"))


class Admission:
    """The allow-list. An address is judged when it connects, its AE title when it requests an association.

    Nobody waits for a name server while connections are accepted: host names are looked up when the list is
    made, and then in a thread of their own once their addresses are a minute old.

    Args:
        peers: who may call; if empty, any AE title from loopback.
        reporters: destinations that may report on storage commitment, and do nothing else.
    """

    def __init__(self, peers: Sequence[Peer], reporters: Sequence[Peer] = ()) -> None:
        self._peers = tuple(peers) or (_THIS_MACHINE,)
        self._reporters = tuple(reporters)
        self.listed = self._peers + self._reporters
        places = {place for peer in self.listed for place in peer.addresses}
        self._networks = {place: net for place in places if (net := _network(place)) is not None}
        self._addresses: dict[str, frozenset[Address]] = {
            place: frozenset() for place in places - self._networks.keys()
        }
        self._looking_up = threading.Lock()
        self.look_up()

    def admits(self, calling_ae: str, address: str) -> bool:
        """Whether a caller may open an association."""
        return self._holds(self._peers, calling_ae, address)

    def may_report(self, calling_ae: str, address: str) -> bool:
        """Whether a caller may open an association that brings no instance."""
        return self._holds(self._reporters, calling_ae, address)

    def at(self, address: str) -> frozenset[Peer]:
        """The entries of the list that name this address; none for a stranger."""
        if self._addresses and time.monotonic() - self._looked_up_at > _NAMES_VALID_S:
            threading.Thread(target=self.look_up, name="peer-names", daemon=True).start()
        caller = _plain(address)
        return frozenset(
            peer for peer in self.listed if any(self._inside(caller, place) for place in peer.addresses)
        )

    def look_up(self) -> None:
        """Look up the host names; one that has no address now keeps those that it had.

        Returns at once while another thread does so.
        """
        if not self._looking_up.acquire(blocking=False):
            return
        try:
            self._looked_up_at = time.monotonic()
            for name in self._addresses:
                try:
                    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
                except OSError:
                    log.warning("peer_name_not_resolved", host=name)
                    continue
                self._addresses[name] = frozenset(_plain(str(entry[4][0])) for entry in found)
        finally:
            self._looking_up.release()

    def _holds(self, peers: Sequence[Peer], calling_ae: str, address: str) -> bool:
        there = self.at(address)
        return any(peer in there and peer.ae_title in {None, calling_ae} for peer in peers)

    def _inside(self, caller: Address, place: str) -> bool:
        network = self._networks.get(place)
        return caller in (self._addresses[place] if network is None else network)


def _plain(address: str) -> Address:
    """The address without its zone; an IPv4-mapped IPv6 address as IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


def _network(place: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An address or network in CIDR notation; None for a host name."""
    try:
        return ipaddress.ip_network(place, strict=False)
    except ValueError:
        return None
