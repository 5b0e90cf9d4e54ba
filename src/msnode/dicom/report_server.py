"""Answers reports of storage commitment over an association that this side opened (PS3.4 J.3.3)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.service_class_n import StorageCommitmentServiceClass

from msnode.dicom import pynetdicom_seams as seams
from msnode.dicom.commitment import read_report

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from msnode.dicom.commitment import TakeReport


class ReportServer:
    """Answers the N-EVENT-REPORT requests of one association.

    By itself, pynetdicom serves each report in a thread of its own and changes the state by which the
    association knows whether it may be used. The next request, or the release, may then wait forever, and a
    response after the release breaks the connection. This class leaves that state alone. `close` waits for
    the report that is being answered.

    Args:
        take_report: takes a report and returns the status that answers it.
    """

    def __init__(self, take_report: TakeReport) -> None:
        self._take_report = take_report
        self._serving = threading.Lock()
        self._sending = threading.Lock()
        self._closed = False

    def attach(self, association: Association) -> None:
        """Serve reports on this association. Call it before anything is sent over the association."""
        send = association.dimse.send_msg

        def serve(message: Any, context_id: int) -> None:
            if not isinstance(message, N_EVENT_REPORT):
                serve_others(message, context_id)
                return
            with self._serving:
                context = seams.accepted_context(association, context_id)
                if context is not None and not self._closed:
                    StorageCommitmentServiceClass(association).SCP(message, context)

        def send_whole(primitive: Any, context_id: int) -> None:
            with self._sending:  # the fragments of two messages must not mix (PS3.8 E.2)
                send(primitive, context_id)

        serve_others = seams.replace_request_service(association, serve)
        association.dimse.send_msg = send_whole  # type: ignore[method-assign]

    def answer(self, event: Event) -> tuple[int, None]:
        """Handle an N-EVENT-REPORT. If this raises on unreadable bytes, pynetdicom answers 0x0110."""
        report = read_report(event)
        return (report if isinstance(report, int) else self._take_report(report)), None

    def pause(self) -> None:
        """Wait until no report is being answered: few peers take a request while they wait for a response."""
        with self._serving:
            pass

    def close(self) -> None:
        """Wait until no report is being answered, and answer no more."""
        with self._serving:
            self._closed = True
