"""The server that accepts connections within the limits, and builds each association on a guarded socket."""

from __future__ import annotations

import sys
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, cast

import structlog
from pynetdicom.transport import AssociationServer

from msnode.dicom import pynetdicom_seams as seams
from msnode.receive.counted import Counted
from msnode.receive.guarded_socket import GuardedSocket
from msnode.receive.held import Memory
from msnode.receive.intake import Intake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pynetdicom import AE
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import A_ASSOCIATE

    from msnode.receive.admission import Admission, Peer
    from msnode.receive.held import Disk
    from msnode.receive.limits import Limits
    from msnode.receive.request import Answer, StoreRequest

log = structlog.get_logger()


def end_waiting(association: Association) -> None:
    """End an association that still waits for its request after the connection was closed.

    pynetdicom would keep its thread, which counts as a connection, until the timeout.
    """
    if _is_waiting(association):
        association.dul.to_user_queue.put(cast("A_ASSOCIATE", None))  # pynetdicom reads None as a timeout


class GuardedHandler(seams.PreparingRequestHandler):
    """Builds associations on a guarded socket."""

    server: GuardedServer

    def prepare(self, association: Association) -> None:
        """Replace the socket and the DIMSE provider of a new association."""
        # The plain socket has queued the event of the connection. The guarded one queues it again.
        association.dul.event_queue.get_nowait()
        association.dul.socket = GuardedSocket(association, self.request, self.server.limits)
        intake = association.dimse = Intake(
            association, self.server.memory, self.server.store, self.server.disk
        )
        run, kill, run_upper_layer = association.run, association.kill, association.dul.run

        def run_and_report() -> None:
            # pynetdicom has no event for some ways to end. The end of the thread covers all of them.
            try:
                run()
            except Exception as error:  # noqa: BLE001 - the outermost of this thread: it ends the association
                self._fail(association, error)
            finally:
                intake.release_memory()
                self.server.ended(association)

        def run_upper_layer_to_its_end() -> None:
            try:
                run_upper_layer()
            except Exception as error:  # noqa: BLE001 - the outermost of this thread: it ends the association
                self._fail(association, error)
                end_waiting(association)

        def kill_at_once() -> None:
            seams.mark_killed(association)
            intake.wake()
            kill()

        association.run = run_and_report  # type: ignore[method-assign]  # one instance, on purpose
        association.kill = kill_at_once  # type: ignore[method-assign]
        association.dul.run = run_upper_layer_to_its_end  # type: ignore[method-assign]

    def _fail(self, association: Association, error: Exception) -> None:
        """Answer what pynetdicom cannot handle, such as a malformed association request, and hang up."""
        address = str(association.requestor.address)
        if count := self.server.counted.count("association_failed", address):
            log.warning("association_failed", address=address, count=count, error=error)
        connection = cast("GuardedSocket", association.dul.socket)
        connection.abort()
        connection.close()
        association.dul.kill_dul()


class GuardedServer(AssociationServer):
    """Accepts connections from listed addresses up to the limits, and closes others without sending a byte.

    Args:
        ae: our application entity, with the presentation contexts that it supports.
        address: IP address and port to listen on.
        handlers: pynetdicom events and what handles them.
        limits: what a peer may send, hold and open.
        store: answers a C-STORE request, in the thread that read it.
        ended: called in the association's own thread when the association has ended, for whatever reason.
        admission: from which addresses connections are accepted.
        disk: where large data sets go while they come in.
    """

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        *,
        handlers: list[tuple[Any, Callable[..., Any]]],
        limits: Limits,
        store: Callable[[Association, StoreRequest], Answer],
        ended: Callable[[Association], None],
        admission: Admission,
        disk: Disk,
    ) -> None:
        self.disk = disk
        self.limits = limits
        self.counted = Counted()
        self._admission = admission
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
        """Whether a connection comes from a listed address and finds a place.

        One that has not requested an association yet gives its place to a new one.
        """
        address = str(client_address[0])
        if not self._admission.at(address):
            if count := self.counted.count("unlisted_address"):
                log.info("unlisted_address", address=address, count=count)
            return False
        if self._has_place(address) or (self._end_oldest_waiting(address) and self._has_place(address)):
            return True
        if count := self.counted.count("too_many_connections", address):
            log.warning("too_many_connections", address=address, count=count)
        return False

    def _has_place(self, address: str) -> bool:
        """Whether there is a place for a connection from a listed address.

        Each entry of the allow-list that has no connection keeps one for itself, of half of all places.
        """
        held = [str(a.requestor.address) for a in self._connected()]
        if held.count(address) >= self.limits.max_connections_per_address:
            return False
        served = self._peers_at(held)
        unserved = len(frozenset(self._admission.listed) - served)
        reserved = min(unserved, self.limits.max_connections // 2)
        if self._admission.at(address) - served:
            reserved = 0  # one of these places is its own
        return len(held) + reserved < self.limits.max_connections

    def _peers_at(self, addresses: Iterable[str]) -> frozenset[Peer]:
        return frozenset().union(*(self._admission.at(address) for address in set(addresses)))

    def _connected(self) -> list[Association]:
        """Associations that hold a place: those that have not ended, without the closed that never began."""
        return [a for a in self.active_associations if not _is_waiting(a) or _is_open(a)]

    def _end_oldest_waiting(self, address: str) -> bool:
        """Hang up on whoever has waited longest with its request, at this address before others."""
        waiting = [a for a in self._connected() if _is_waiting(a)]
        if not waiting:
            return False
        oldest = min(
            waiting,
            key=lambda a: (
                str(a.requestor.address) != address,
                cast("GuardedSocket", a.dul.socket).opened_at,
            ),
        )
        cast("GuardedSocket", oldest.dul.socket).close()
        return True

    def service_actions(self) -> None:
        """Do nothing. The base class collects garbage every few seconds, which stops every association."""

    def stop_listening(self) -> None:
        """End `serve_forever` and close the listening socket. Open associations stay open."""
        TCPServer.shutdown(self)  # AssociationServer's shutdown expects that the AE started the server
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        """Log the error, which the base class would print with a traceback."""
        address, error = str(client_address[0]), sys.exception()
        if count := self.counted.count("connection_failed", address):
            log.warning("connection_failed", address=address, count=count, error=error)


def _is_waiting(association: Association) -> bool:
    """Whether it has not requested an association yet."""
    return association.requestor.primitive is None


def _is_open(association: Association) -> bool:
    connection = association.dul.socket
    return connection is not None and connection.socket is not None
