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
    """Wake up an association that waits for its request although the connection has gone.

    pynetdicom would hold the thread, and with it a connection's place, until the timeout.
    """
    if association.requestor.primitive is None:
        association.dul.to_user_queue.put(cast("A_ASSOCIATE", None))  # read as a timeout


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
