"""The server that accepts connections within the limits, and builds each association on a guarded socket."""

from __future__ import annotations

import sys
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, cast

import structlog
from pynetdicom.transport import AssociationServer

from msnode.dicom import pynetdicom_seams as seams
from msnode.receive.guarded_socket import GuardedSocket
from msnode.receive.intake import Intake, Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom import AE
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import A_ASSOCIATE

    from msnode.receive.limits import Limits
    from msnode.receive.request import Answer, StoreRequest

log = structlog.get_logger()


def end_waiting(association: Association) -> None:
    """End an association that still waits for its request after the connection was closed.

    pynetdicom would keep its thread, which counts as a connection, until the timeout.
    """
    if association.requestor.primitive is None:
        association.dul.to_user_queue.put(cast("A_ASSOCIATE", None))  # pynetdicom reads None as a timeout


class GuardedHandler(seams.PreparingRequestHandler):
    """Builds associations on a guarded socket."""

    server: GuardedServer

    def prepare(self, association: Association) -> None:
        """Replace the socket and the DIMSE provider of a new association."""
        # The plain socket has queued the event of the connection. The guarded one queues it again.
        association.dul.event_queue.get_nowait()
        association.dul.socket = GuardedSocket(association, self.request, self.server.limits)
        intake = association.dimse = Intake(association, self.server.memory, self.server.store)
        run, kill = association.run, association.kill

        def run_and_report() -> None:
            # pynetdicom has no event for some ways to end. The end of the thread covers all of them.
            try:
                run()
            finally:
                intake.release_memory()
                self.server.ended(association)

        def kill_at_once() -> None:
            seams.mark_killed(association)
            intake.wake()
            kill()

        association.run = run_and_report  # type: ignore[method-assign]  # one instance, on purpose
        association.kill = kill_at_once  # type: ignore[method-assign]


class GuardedServer(AssociationServer):
    """Accepts connections up to the limits, and closes others without sending a byte.

    Args:
        ae: our application entity, with the presentation contexts that it supports.
        address: IP address and port to listen on.
        handlers: pynetdicom events and what handles them.
        limits: what a peer may send, hold and open.
        store: answers a C-STORE request, in the thread that read it.
        ended: called in the association's own thread when the association has ended, for whatever reason.
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
        """Whether the connection stays within the limits. Each association that has not ended counts."""
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
        """Do nothing. The base class collects garbage every few seconds, which stops every association."""

    def stop_listening(self) -> None:
        """End `serve_forever` and close the listening socket. Open associations stay open."""
        TCPServer.shutdown(self)  # AssociationServer's shutdown expects that the AE started the server
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        """Log the error, which the base class would print with a traceback."""
        error = sys.exception()
        log.warning("connection_failed", address=str(client_address[0]), error=error)
