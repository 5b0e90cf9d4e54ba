"""Connects to a peer: addresses, timeouts, and a socket that can be closed at any time."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom import evt

from msnode.dicom import pynetdicom_seams as seams
from msnode.errors import AssociationRejected, PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

_CONNECT_S = 5.0
_NEGOTIATE_S = 15.0
ANSWER_S = 120.0
"""A busy archive may take this long to answer one C-STORE."""
_STALL_S = 60.0
"""How long one write may wait for a peer that has stopped reading."""
_REJECTED_TRANSIENT = 2
"""PS3.8 Table 9-21, result."""


@dataclass(frozen=True)
class DicomAddress:
    """Where a peer listens, and the AE title to call it by (PS3.8 9.3.2, called AE title)."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


class Connector:
    """Requests one association, and can close its connection whatever the peer does.

    Args:
        calling_ae: our AE title.
    """

    def __init__(self, calling_ae: str) -> None:
        self._entity = seams.SocketKeepingEntity(ae_title=calling_ae)
        self._entity.connection_timeout = _CONNECT_S
        self._entity.acse_timeout = _NEGOTIATE_S
        self._entity.dimse_timeout = ANSWER_S
        self._entity.network_timeout = ANSWER_S
        self._connected = False

    def request(
        self,
        address: DicomAddress,
        contexts: Sequence[PresentationContext],
        *,
        roles: Sequence[Any] = (),
        handlers: Sequence[tuple[Any, Any]] = (),
    ) -> Association:
        """An association that the peer accepted, or of which it accepted no presentation context.

        Args:
            address: the peer. A host name may have an address on which nobody listens, so all are tried.
            contexts: what is proposed.
            roles: role selection items (PS3.7 D.3.3.4).
            handlers: pynetdicom events and what handles them.

        Raises:
            PeerUnreachable: no connection, or the peer closed it or did not answer during negotiation.
            AssociationRejected: the peer refused the association; the message gives its reason.
        """
        bound: list[Any] = [
            (evt.EVT_CONN_OPEN, self._tune),
            (evt.EVT_CONN_OPEN, _return_responses),
            (evt.EVT_DATA_SENT, _acknowledge_at_once),
        ]
        for host in _resolve(address):
            self.close()
            association = self._entity.associate(
                host,
                address.port,
                contexts=list(contexts),
                ae_title=address.ae_title,
                ext_neg=list(roles),
                evt_handlers=[*bound, *handlers],
            )
            if association.is_established or association.rejected_contexts:
                return association
            answer = association.acceptor.primitive
            if association.is_rejected and answer is not None:
                kind = "for now" if answer.result == _REJECTED_TRANSIENT else "permanently"
                raise AssociationRejected(
                    f"{address} refused the association {kind}: {answer.reason_str.lower()}"
                )
            if self._connected:
                raise PeerUnreachable(f"{address}: connected, but no association was accepted or refused")
        raise PeerUnreachable(f"{address}: no connection")

    def close(self) -> None:
        """Close the connection. pynetdicom's thread would wait for a misbehaving peer to close it."""
        connection = self._entity.connection
        if connection is None:
            return
        with suppress(OSError):  # the peer has closed it already
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _tune(self, event: evt.Event) -> None:
        """Send small PDUs at once, and limit how long a write waits for a peer that has stopped reading."""
        self._connected = True
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.socket.settimeout(_STALL_S)


def _return_responses(event: evt.Event) -> None:
    """Leave a response to the thread that waits for it.

    pynetdicom pauses the association's own thread while a request waits for its response. On a busy machine
    that thread may take one more message before it pauses; it would drop the response, and the request would
    wait until the timeout.
    """
    association = event.assoc

    def serve(message: Any, context_id: int) -> None:
        if seams.awaits_response(association) and not message.is_valid_request:
            association.dimse.msg_queue.put((context_id, message))
        else:
            serve_request(message, context_id)

    serve_request = seams.replace_request_service(association, serve)


def _acknowledge_at_once(event: evt.Event) -> None:
    """Acknowledge the answer to what was just sent without delay.

    A peer that gathers small writes (Nagle's algorithm, Orthanc's default) sends the second half of its
    answer after our acknowledgement, which the kernel delays by 40 ms. The kernel resets the option with
    the next write.
    """
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        with suppress(OSError):  # closed in the meantime: the next read reports it
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _resolve(address: DicomAddress) -> list[str]:
    """Numeric addresses of the host. pynetdicom takes a name without a dot for an IPv6 address.

    Raises:
        PeerUnreachable: the name is not known.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PeerUnreachable(f"{address}: host name not resolved ({error.strerror})") from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
