"""Associations that the node opens to a peer (PS3.8 7.1), with pynetdicom's outcomes as msnode errors.

Callers see nothing of pynetdicom. Each proposed presentation context names one SOP class and one transfer
syntax, so that a peer answers for every pair. Whatever secures a connection concerns `connection` alone:
callers pass neither certificates nor sockets.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pynetdicom import build_context, build_role, evt

from msnode.dicom import commitment
from msnode.dicom.connection import ANSWER_S, Connector
from msnode.dicom.contexts import FIND, VERIFICATION, Context
from msnode.dicom.report_server import ReportServer
from msnode.errors import PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pynetdicom.association import Association

    from msnode.dicom.commitment import TakeReport
    from msnode.dicom.connection import DicomAddress

_PENDING = frozenset({0xFF00, 0xFF01})
"""More matches follow (PS3.4 Table C.4-1)."""


@dataclass(frozen=True)
class Response:
    """The response to one request (PS3.7 9.1).

    Attributes:
        status: Status (0000,0900).
        comment: Error Comment (0000,0902) in the peer's own words. It may hold anything, names too: it
            belongs in the record and on an administrator's screen, never in a log.
    """

    status: int
    comment: str = ""


@dataclass(frozen=True)
class Found:
    """The answer to a query for instances.

    Attributes:
        sop_instance_uids: the instances that the peer has.
        failure: why the answer is incomplete; empty if it is complete.
    """

    sop_instance_uids: frozenset[str] = frozenset()
    failure: str = ""


@dataclass(frozen=True)
class EchoResult:
    """The result of verifying a peer.

    Attributes:
        status: the C-ECHO status, 0 for success; None if the peer does not offer verification.
        refusals: contexts that were not accepted, each with the peer's reason.
        elapsed_s: time from the call to the answer, seconds.
    """

    address: DicomAddress
    status: int | None
    refusals: Mapping[Context, str]
    elapsed_s: float


class OpenAssociation:
    """An association that the peer accepted; made by `open_association`."""

    def __init__(
        self, address: DicomAddress, association: Association, reports: ReportServer | None = None
    ) -> None:
        self.address = address
        self._association = association
        self._reports = reports
        self._accepted = frozenset(
            Context(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts
        )
        self._message_id = 0

    def accepts(self, context: Context) -> bool:
        """Whether the peer accepted this SOP class in this transfer syntax."""
        return context in self._accepted

    def refusals(self) -> dict[Context, str]:
        """The proposed contexts that were not accepted, with the peer's reason (PS3.8 Table 9-18)."""
        reasons = {c.context_id: str(c.status).lower() for c in self._association.rejected_contexts}
        return {
            Context(str(c.abstract_syntax), str(c.transfer_syntax[0])): reasons[c.context_id]
            for c in self._association.requestor.requested_contexts
            if c.context_id in reasons
        }

    def echo(self) -> Response:
        """C-ECHO (PS3.7 9.1.5).

        Raises:
            PeerUnreachable: the association was lost or the peer did not answer in time.
        """
        return self._send(lambda number: self._association.send_c_echo(msg_id=number))

    def store(self, path: Path) -> Response:
        """C-STORE (PS3.7 9.1.1) of a DICOM file, byte for byte. Its context must have been accepted.

        Raises:
            PeerUnreachable: the association was lost or the peer did not answer in time.
        """
        return self._send(lambda number: self._association.send_c_store(path, msg_id=number))

    def request_commitment(self, request: commitment.Request) -> Response:
        """N-ACTION of storage commitment (PS3.4 J.3.2). Its context must have been accepted.

        Raises:
            PeerUnreachable: the association was lost or the peer did not answer in time.
        """
        return self._send(
            lambda number: self._association.send_n_action(
                commitment.action_information(request), commitment.REQUEST_ACTION,
                commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID, msg_id=number,
            )[0]
        )  # fmt: skip

    def report_commitment(self, report: commitment.Report) -> Response:
        """N-EVENT-REPORT of storage commitment (PS3.4 J.3.3). Its context must have been accepted.

        Raises:
            PeerUnreachable: the association was lost or the peer did not answer in time.
        """
        return self._send(
            lambda number: self._association.send_n_event_report(
                commitment.event_information(report), report.event_type,
                commitment.SOP_CLASS_UID, commitment.SOP_INSTANCE_UID, msg_id=number,
            )[0]
        )  # fmt: skip

    def find(self, study_instance_uid: str, series_instance_uid: str) -> Found:
        """C-FIND (PS3.4 C.4.1) of the instances of one series. Its context must have been accepted.

        Raises:
            PeerUnreachable: the association was lost or the peer did not answer in time.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = series_instance_uid
        query.SOPInstanceUID = ""
        found: set[str] = set()

        def ask(number: int) -> Dataset:
            status = Dataset()
            for status, match in self._association.send_c_find(query, FIND.sop_class_uid, msg_id=number):
                if match is not None and status.get("Status") in _PENDING:
                    found.add(str(match.get("SOPInstanceUID", "")))
            return status

        status = self._send(ask).status
        return Found(frozenset(found), f"C-FIND answered with status 0x{status:04X}" if status else "")

    def _send(self, send: Callable[[int], Dataset]) -> Response:
        self._message_id = self._message_id % 65535 + 1
        if self._reports is not None:
            self._reports.pause()
        try:
            response = send(self._message_id)
        except RuntimeError:  # pynetdicom raises this if the association is no longer established
            response = Dataset()
        if "Status" not in response:
            # pynetdicom may still take it for established, and a second request would wait in vain
            self._association.abort()
            raise PeerUnreachable(f"{self.address}: association lost, or no answer within {ANSWER_S:.0f} s")
        return Response(int(response.Status), str(response.get("ErrorComment", "")))


@contextmanager
def open_association(
    address: DicomAddress,
    calling_ae: str,
    contexts: Sequence[Context],
    *,
    reporting: bool = False,
    take_report: TakeReport | None = None,
) -> Iterator[OpenAssociation]:
    """Open an association. It is released at the end of the block, or closed after an error in the block.

    If the peer accepts none of the contexts, the association accepts nothing.

    Args:
        address: the peer.
        calling_ae: our AE title.
        contexts: what to propose, at most 128 (PS3.8 9.3.2.2: ids are the odd numbers from 1 to 255).
        reporting: whether to be the SCP of storage commitment, in order to report to the peer (role
            selection, PS3.7 D.3.3.4).
        take_report: takes each report that the peer sends over this association; called in another thread.

    Raises:
        PeerUnreachable: no connection, or the peer closed it or did not answer during negotiation.
        AssociationRejected: the peer refused the association; the message gives its reason.
    """
    connector = Connector(calling_ae)
    reports = None if take_report is None else ReportServer(take_report)
    handlers: list[tuple[Any, Any]] = []
    if reports is not None:
        handlers.append((evt.EVT_CONN_OPEN, lambda event: reports.attach(event.assoc)))
        handlers.append((evt.EVT_N_EVENT_REPORT, reports.answer))
    try:
        association = connector.request(
            address,
            [build_context(c.sop_class_uid, c.transfer_syntax_uid) for c in contexts],
            roles=[build_role(commitment.SOP_CLASS_UID, scp_role=True)] if reporting else [],
            handlers=handlers,
        )
        yield OpenAssociation(address, association, reports)
        if reports is not None:
            reports.close()
        if association.is_established:
            association.release()
    finally:
        connector.close()


def echo(address: DicomAddress, calling_ae: str, contexts: Sequence[Context] = ()) -> EchoResult:
    """Verify that a peer answers (C-ECHO), and find out which of `contexts` it accepts.

    Raises:
        PeerUnreachable: as `open_association`.
        AssociationRejected: as `open_association`.
    """
    begin = time.monotonic()
    proposed = [VERIFICATION, *(c for c in contexts if c != VERIFICATION)]
    with open_association(address, calling_ae, proposed) as association:
        status = association.echo().status if association.accepts(VERIFICATION) else None
        refusals = {c: reason for c, reason in association.refusals().items() if c != VERIFICATION}
        return EchoResult(address, status, refusals, time.monotonic() - begin)
