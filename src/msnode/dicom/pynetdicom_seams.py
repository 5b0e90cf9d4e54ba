"""Every private member of pynetdicom that msnode uses, each with its reason.

pynetdicom may move a private member in any release. No other module touches one, and
`tests/unit/dicom/test_pynetdicom_seams.py` names the member that a new version has moved.
"""

# ruff: noqa: SLF001 - the purpose of this module

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pynetdicom import AE
from pynetdicom.transport import RequestHandler

from msnode.dicom import library_settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.dul import DULServiceProvider
    from pynetdicom.presentation import PresentationContext
    from pynetdicom.transport import AssociationSocket

    ServeRequest = Callable[[Any, int], None]
    """Serves a DIMSE request (primitive, presentation context ID) of the peer."""

library_settings.configure_pynetdicom()


class SocketKeepingEntity(AE):
    """An application entity that keeps a reference to the socket of its last association request.

    pynetdicom forgets the socket when negotiation fails, and then the connection cannot be closed.

    Attributes:
        connection: the socket; None before the first request.
    """

    connection: socket.socket | None = None

    def _create_socket(self, *args: Any) -> AssociationSocket:
        transport = super()._create_socket(*args)
        self.connection = transport.socket
        return transport


class PreparingRequestHandler(RequestHandler):
    """A request handler that can change an association before its thread starts.

    pynetdicom creates and starts an accepted association in one method, without an event in between.
    """

    def prepare(self, association: Association) -> None:
        """Change a new association, which does not run yet. Subclasses override this."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        self.prepare(association)
        return association


def is_killed(association: Association) -> bool:
    """Whether this side has ended the association. No public attribute tells."""
    return bool(association._kill)


def mark_killed(association: Association) -> None:
    """Tell the association's thread to end as soon as it wakes up.

    The public `kill` sets the same flag, but only after it has waited for that thread.
    """
    association._kill = True


def accepted_context(association: Association, context_id: int) -> PresentationContext | None:
    """The accepted presentation context of that ID. The public list must be searched for every message."""
    return association._accepted_cx.get(context_id)


def replace_request_service(association: Association, serve: ServeRequest) -> ServeRequest:
    """Have `serve` called with each DIMSE request of the peer; returns what was called until now.

    pynetdicom has handlers for the content of a request, and none for how its thread serves it.
    """
    former: ServeRequest = association._serve_request
    association._serve_request = serve  # type: ignore[assignment,method-assign]
    return former


def awaits_response(association: Association) -> bool:
    """Whether a request of ours waits for its response, which is why the association's thread is to pause."""
    return not association._reactor_checkpoint.is_set()


def replace_reader(dul: DULServiceProvider, read: Callable[[], None]) -> Callable[[], None]:
    """Have `read` called whenever a PDU can be read; returns what was called until now.

    pynetdicom's own reader copies every byte several times.
    """
    former: Callable[[], None] = dul._read_pdu_data
    dul._read_pdu_data = read  # type: ignore[method-assign]
    return former


def poll_without_pause(dul: DULServiceProvider) -> None:
    """Have the association's thread ask its socket again at once: a socket that waits paces the loop.

    pynetdicom otherwise sleeps 1 ms between two looks at the socket.
    """
    dul._run_loop_delay = 0


def restart_idle_timer(dul: DULServiceProvider) -> None:
    """Restart the network timeout, as pynetdicom does after each PDU that it reads itself."""
    dul._idle_timer.restart()


def is_connected(transport: AssociationSocket) -> bool:
    """Whether the connection is open. No public attribute tells."""
    return bool(transport._is_connected)
