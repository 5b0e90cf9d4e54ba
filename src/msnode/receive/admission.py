"""Who may call: the allow-list of AE titles and addresses."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger()


@dataclass(frozen=True)
class Peer:
    """A caller on the allow-list.

    Attributes:
        ae_title: the exact calling AE title.
        addresses: IP addresses, networks in CIDR notation, or host names (resolved for each association).
    """

    ae_title: str
    addresses: tuple[str, ...]


def admits(peers: Sequence[Peer], calling_ae: str, address: str) -> bool:
    """Whether a caller is on the allow-list. An empty list admits any AE title, from loopback only."""
    caller = _plain(address)
    if not peers:
        return caller.is_loopback
    return any(
        _inside(caller, place) for peer in peers if peer.ae_title == calling_ae for place in peer.addresses
    )


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without its zone; an IPv4-mapped IPv6 address as IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


def _inside(caller: ipaddress.IPv4Address | ipaddress.IPv6Address, place: str) -> bool:
    try:
        return caller in ipaddress.ip_network(place, strict=False)
    except ValueError:
        pass  # a host name
    try:
        found = socket.getaddrinfo(place, None, type=socket.SOCK_STREAM)
    except OSError:
        log.warning("peer_name_not_resolved", host=place)
        return False
    return any(caller == _plain(str(entry[4][0])) for entry in found)
