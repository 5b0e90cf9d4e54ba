"""Bounds on what a peer may send before and after it is trusted.

pynetdicom reads whatever length a PDU declares, before any association is accepted, and waits without end
for the rest of a header once the first byte came. The socket here refuses the first and times the second;
the server caps connections, in all and per address; `admits` is the allow-list.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, cast

import structlog
from pynetdicom.transport import AssociationServer, AssociationSocket

from msnode.dicom import pynetdicom_seams as seams
from msnode.receive.intake import Intake, Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetdicom import AE
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import A_ASSOCIATE

    from msnode.receive.intake import StoreRequest
    from msnode.receive.spool import Answer

log = structlog.get_logger()

_HEADER_BYTES = 6
_P_DATA = 0x04
_KNOWN_PDUS = range(0x01, 0x08)
_POLL_S = 0.25
_READ_SIZE = 256 * 1024
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.064
_COMMAND_BYTES = 64 * 1024  # no command set comes near
_AWAITING_CLOSE = "Sta13"  # PS3.8 Table 9-4


@dataclass(frozen=True)
class Limits:
    """What the listener allows.

    Attributes:
        max_pdu_bytes: longest PDU a peer may declare (the length announced in negotiation is shorter).
        announced_pdu_bytes: Maximum Length offered to peers for P-DATA (PS3.8 D.1).
        pdu_timeout_s: time for one PDU to arrive once its first byte is there.
        max_message_bytes: largest data set of one message.
        max_held_bytes: data sets that all associations hold in memory together (twice as much for a
            moment, when one is complete); one that goes beyond is not kept.
        max_connections: open connections in all.
        max_connections_per_address: open connections from one address.
        association_timeout_s: time for an association request after connecting.
        idle_timeout_s: silence after which an association is ended.
    """

    max_pdu_bytes: int = 1024 * 1024
    announced_pdu_bytes: int = 256 * 1024
    pdu_timeout_s: float = 30
    max_message_bytes: int = 1024**3
    max_held_bytes: int = 2 * 1024**3
    max_connections: int = 64
    max_connections_per_address: int = 32
    association_timeout_s: float = 30
    idle_timeout_s: float = 60


@dataclass(frozen=True)
class Peer:
    """Who may call: an AE title, and where from.

    Attributes:
        ae_title: calling AE title, exactly.
        addresses: IP addresses, networks in CIDR notation, or host names (resolved at each call).
    """

    ae_title: str
    addresses: tuple[str, ...]


def admits(peers: Sequence[Peer], calling_ae: str, address: str) -> bool:
    """Whether a caller is on the allow-list; an empty list admits any AE title from loopback only."""
    caller = _plain(address)
    if not peers:
        return caller.is_loopback
    return any(
        _inside(caller, place) for peer in peers if peer.ae_title == calling_ae for place in peer.addresses
    )


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without zone, IPv4 where it is IPv4 mapped into IPv6."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


def _inside(caller: ipaddress.IPv4Address | ipaddress.IPv6Address, place: str) -> bool:
    try:
        return caller in ipaddress.ip_network(place, strict=False)
    except ValueError:
        pass  # no address: a host name
    try:
        found = socket.getaddrinfo(place, None, type=socket.SOCK_STREAM)
    except OSError:
        log.warning("peer_name_not_resolved", host=place)
        return False
    return any(caller == _plain(str(entry[4][0])) for entry in found)


def end_waiting(association: Association) -> None:
    """Wake up an association that waits for its request although the connection has gone.

    pynetdicom would hold the thread, and with it a connection's place, until the timeout.
    """
    if association.requestor.primitive is None:
        association.dul.to_user_queue.put(cast("A_ASSOCIATE", None))  # read as a timeout


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))


class GuardedSocket(AssociationSocket):
    """Reads a PDU only within the limits; an OSError makes pynetdicom close the connection."""

    def __init__(self, assoc: Association, client_socket: socket.socket, limits: Limits) -> None:
        super().__init__(assoc, client_socket=client_socket)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._limits = limits
        # The kernel waits for all that is asked for, and no longer than this.
        client_socket.setblocking(True)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_POLL_S))
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(limits.idle_timeout_s))
        self._header: memoryview | None = None  # read, and not asked for yet
        self._unread = memoryview(b"")  # came with what was read before
        self._pdu_type = 0  # of the PDU whose body is read next; 0: a header is read next
        self._deadline = 0.0
        self._message_bytes = self._command_bytes = 0
        self._pause_s = _SHORTEST_PAUSE_S

    @property
    def ready(self) -> bool:
        """Whether there is something to read, after waiting for it.

        What another thread has to send goes out when this returns: so the wait is short where something
        was just read, since an answer may follow, and grows where nothing is.
        """
        if self._unread:
            return True
        client: socket.socket | None = self.socket
        if client is None or not seams.is_connected(self):
            time.sleep(_SHORTEST_PAUSE_S)
            return False
        pause_s = 0.0 if self.assoc.dul.state_machine.current_state == _AWAITING_CLOSE else self._pause_s
        poll = select.poll()
        try:
            poll.register(client, select.POLLIN)
            is_ready = bool(poll.poll(1000 * pause_s))
        except (OSError, ValueError):  # closed by another thread
            self.event_queue.put("Evt17")
            return False
        self._pause_s = _SHORTEST_PAUSE_S if is_ready else min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return is_ready

    def next_data(self) -> memoryview | None:
        """Body of the next PDU; None where that is no P-DATA-TF PDU, and `recv` gives it from its header on.

        Raises:
            OSError: too long, too slow, or not all of it came.
        """
        self._header = self._read_header(_HEADER_BYTES)
        if self._pdu_type != _P_DATA:
            return None
        (length,) = struct.unpack_from(">L", self._header, 2)
        self._header = None
        body = self._read_body(length)
        if len(body) < length:
            raise OSError("connection closed")
        return body

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or what came before the peer closed.

        pynetdicom asks for the 6 bytes of a PDU header and then for the rest of that PDU.

        Raises:
            OSError: too long, or too slow.
        """
        if self._header is not None:
            header, self._header = self._header, None
            return bytearray(header)
        return bytearray(self._read_header(nr_bytes) if self._pdu_type == 0 else self._read_body(nr_bytes))

    def _read_body(self, nr_bytes: int) -> memoryview:
        if nr_bytes > self._limits.max_pdu_bytes:
            raise self._refusal(
                "pdu_too_long", declared_bytes=nr_bytes, allowed_bytes=self._limits.max_pdu_bytes
            )
        body = self._read(nr_bytes)
        if self._pdu_type == _P_DATA:
            self._count_message(body)
        self._pdu_type = 0
        return body

    def _read_header(self, nr_bytes: int) -> memoryview:
        self._deadline = time.monotonic() + self._limits.pdu_timeout_s
        header = self._read(nr_bytes)
        if len(header) == _HEADER_BYTES:
            self._check_header(header)
        return header

    def _check_header(self, header: memoryview) -> None:
        pdu_type, _, length = struct.unpack(">BBL", header)
        if pdu_type not in _KNOWN_PDUS:
            return  # pynetdicom aborts without reading a body
        if length > self._limits.max_pdu_bytes:
            raise self._refusal(
                "pdu_too_long", declared_bytes=length, allowed_bytes=self._limits.max_pdu_bytes
            )
        self._pdu_type = pdu_type

    def _read(self, wanted: int) -> memoryview:
        """Read until `wanted` bytes, the peer's end, or the deadline; wakes up when the association dies.

        What has come beyond them is taken along, since each call into the kernel lets another thread have
        the interpreter.
        """
        client: socket.socket | None = self.socket
        if client is None:
            raise OSError("connection closed")
        done = len(self._unread)
        if done >= wanted:
            found, self._unread = self._unread[:wanted], self._unread[wanted:]
            return found
        view = memoryview(bytearray(max(wanted, _READ_SIZE)))
        view[:done], self._unread = self._unread, self._unread[:0]
        while done < wanted:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._refusal("pdu_too_slow", received_bytes=done, wanted_bytes=wanted)
            try:
                count = client.recv_into(view[done:])
            except BlockingIOError:
                if seams.is_killed(self.assoc):
                    raise
                continue
            if count == 0:
                return view[:done]
            done += count
        self._unread = view[wanted:done]
        return view[:wanted]

    def _count_message(self, body: memoryview) -> None:
        """Sum the fragments of one message (PS3.8 9.3.5.1, E.2)."""
        offset = 0
        while offset + 6 <= len(body):
            length, _, control = struct.unpack_from(">LBB", body, offset)
            is_last = control & 2
            if control & 1:  # command, not data set
                self._command_bytes += length
                if self._command_bytes > _COMMAND_BYTES:
                    raise self._refusal("command_too_long", allowed_bytes=_COMMAND_BYTES)
                self._command_bytes = 0 if is_last else self._command_bytes
            else:
                self._message_bytes += length
                if self._message_bytes > self._limits.max_message_bytes:
                    raise self._refusal("message_too_long", allowed_bytes=self._limits.max_message_bytes)
                self._message_bytes = 0 if is_last else self._message_bytes
            offset += 4 + length

    def _refusal(self, event: str, **facts: int) -> OSError:
        log.warning(event, address=str(self.assoc.requestor.address), **facts)
        return OSError(f"refused: {event}")


class GuardedHandler(seams.PreparingRequestHandler):
    """Builds associations on a guarded socket."""

    server: GuardedServer

    def prepare(self, association: Association) -> None:
        """Replace what pynetdicom reads and serves by; see `PreparingRequestHandler`."""
        # the plain socket has announced the connection to the state machine; the guarded one does so again
        association.dul.event_queue.get_nowait()
        association.dul.socket = GuardedSocket(association, self.request, self.server.limits)
        intake = association.dimse = Intake(association, self.server.memory, self.server.store)
        run, kill = association.run, association.kill

        def run_and_report() -> None:
            # pynetdicom's events miss some ways to end; the end of its thread misses none
            try:
                run()
            finally:
                intake.let_go()
                self.server.ended(association)

        def kill_at_once() -> None:
            seams.mark_killed(association)
            intake.wake()
            kill()

        association.run = run_and_report  # type: ignore[method-assign]  # one instance, on purpose
        association.kill = kill_at_once  # type: ignore[method-assign]


class GuardedServer(AssociationServer):
    """Accepts connections up to the limits; one over them is closed without a byte.

    `store` answers every C-STORE request, in the thread that read it; `ended` is called in an association's
    own thread when that comes to its end.
    """

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        *,
        handlers: list[tuple[Any, Callable[..., Any]]],
        limits: Limits,
        store: Callable[[StoreRequest], Answer],
        ended: Callable[[Association], None],
    ) -> None:
        self.limits = limits
        self.store = store
        self.memory = Memory(limits.max_held_bytes)
        self.ended = ended
        super().__init__(
            ae,
            address,
            ae.ae_title,
            ae.supported_contexts,
            evt_handlers=list(handlers),
            request_handler=GuardedHandler,
        )

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the base's signature
        """Count the associations alive (each is a thread that was started before this one was accepted)."""
        alive = [str(association.requestor.address) for association in self.active_associations]
        address = str(client_address[0])
        if len(alive) >= self.limits.max_connections:
            log.warning("too_many_connections", address=address, count=len(alive))
            return False
        if alive.count(address) >= self.limits.max_connections_per_address:
            log.warning("too_many_connections_from_address", address=address, count=alive.count(address))
            return False
        return True

    def service_actions(self) -> None:
        """Not the base class': collecting garbage every few seconds stops every association meanwhile."""

    def stop_listening(self) -> None:
        """End `serve_forever` and close the listening socket; open associations stay."""
        TCPServer.shutdown(self)  # the base class' own shutdown expects that the AE started the server
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        """Log what the base class would print with a traceback."""
        error = sys.exception()
        log.warning("connection_failed", address=str(client_address[0]), error=error)
