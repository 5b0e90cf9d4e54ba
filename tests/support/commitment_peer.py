"""A PACS in this process that stores, finds and commits, as well or as badly as a test wants."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from msnode.deliver.dicom import CONTEXT_OF_KIND
from msnode.dicom import commitment
from msnode.dicom.commitment import Reference, Report, Request
from msnode.dicom.contexts import COMMITMENT, FIND, VERIFICATION, Context
from support.peers import answering_scp

_N_ACTION_RSP = "N_ACTION_RSP"


def kept(request: Request) -> Report:
    """The report of a PACS that keeps everything."""
    return Report(request.transaction_uid, request.instances)


@dataclass
class CommitmentPacs:
    """What a test sets, and what it sees.

    Attributes:
        port: where it listens.
        held: SOP Instance UID → (series UID, SOP Class UID) of what it holds.
        stored: SOP Instance UIDs of what it was sent, in that order.
        action_statuses: its answers to requests, 0 where they run out.
        on_association: what it reports over the association of a request, after the answer.
        requests: what it was asked to keep.
        answers: the statuses that it got for what it reported over the association of a request.
    """

    aet: str
    port: int = 0
    held: dict[str, tuple[str, str]] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    action_statuses: list[int] = field(default_factory=list)
    on_association: Callable[[Request], Sequence[Report]] = lambda _request: ()
    requests: list[Request] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def store(self, event: evt.Event) -> int:
        ds = event.dataset
        self.stored.append(str(ds.SOPInstanceUID))
        self.held[self.stored[-1]] = (str(ds.SeriesInstanceUID), str(ds.SOPClassUID))
        return 0x0000

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        for uid, (series, _) in self.held.items():
            if series == event.identifier.SeriesInstanceUID:
                match = Dataset()
                match.QueryRetrieveLevel, match.SOPInstanceUID = "IMAGE", uid
                match.SeriesInstanceUID = series
                yield 0xFF00, match

    def action(self, event: evt.Event) -> tuple[int, None]:
        request = commitment.read_request(event)
        assert isinstance(request, Request)
        self.requests.append(request)
        return (self.action_statuses.pop(0) if self.action_statuses else 0x0000), None

    def answered(self, event: evt.Event) -> None:
        """A response of ours is on its way: after that of a request comes what is reported here."""
        if type(event.message).__name__ != _N_ACTION_RSP:
            return
        reports = self.on_association(self.requests[-1])
        if reports:
            thread = threading.Thread(target=self._report_over, args=(event.assoc, reports))
            thread.start()
            self._threads.append(thread)

    def _report_over(self, association: Association, reports: Sequence[Report]) -> None:
        for report in reports:
            self.answers.append(send_report(association, report))

    def wait(self) -> None:
        """Until everything has been reported that is to be reported over the association of a request."""
        while self._threads:
            self._threads.pop().join(timeout=20)

    def verdict(self, request: Request) -> Report:
        """The honest report: what it holds is kept, the rest has failed."""
        there = [r for r in request.instances if r.sop_instance_uid in self.held]
        failed = {r: 0x0112 for r in request.instances if r not in there}
        return Report(request.transaction_uid, tuple(there), failed)

    def report(self, port: int, *reports: Report, calling: str | None = None) -> list[int | None]:
        """Report over one association of its own to the node; its answers, None where there was none."""
        with report_association(port, calling or self.aet) as association:
            return [send_report(association, report) for report in reports]


@contextmanager
def report_association(
    port: int, calling: str, *, contexts: Sequence[Context] = (COMMITMENT,), role: bool = True
) -> Iterator[Association]:
    """An association to the node in which this side is the SCP of storage commitment."""
    entity = AE(ae_title=calling)
    for context in contexts:
        entity.add_requested_context(context.sop_class_uid, context.transfer_syntax_uid)
    roles = [build_role(COMMITMENT.sop_class_uid, scp_role=True)] if role else []
    association = entity.associate("127.0.0.1", port, ae_title="MSNODE", ext_neg=roles)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send_report(association: Association, report: Report) -> int:
    status, _ = association.send_n_event_report(
        commitment.event_information(report),
        report.event_type,
        commitment.SOP_CLASS_UID,
        commitment.SOP_INSTANCE_UID,
    )
    found: int = status.get("Status", -1)
    return found


def send_request(association: Association, request: Request) -> int:
    status, _ = association.send_n_action(
        commitment.action_information(request),
        commitment.REQUEST_ACTION,
        commitment.SOP_CLASS_UID,
        commitment.SOP_INSTANCE_UID,
    )
    found: int = status.get("Status", -1)
    return found


@contextmanager
def commitment_pacs(
    aet: str = "PACS", *, commits: bool = True, finds: bool = True, **more: Any
) -> Iterator[CommitmentPacs]:
    """A PACS that listens; `more` are attributes of `CommitmentPacs`."""
    pacs = CommitmentPacs(aet, **more)
    contexts = [VERIFICATION, *CONTEXT_OF_KIND.values()]
    contexts += [COMMITMENT] * commits + [FIND] * finds
    with answering_scp(
        [(c.sop_class_uid, c.transfer_syntax_uid) for c in contexts],
        aet=aet,
        store=pacs.store,
        EVT_C_FIND=pacs.find,
        EVT_N_ACTION=pacs.action,
        EVT_DIMSE_SENT=pacs.answered,
    ) as pacs.port:
        try:
            yield pacs
        finally:
            pacs.wait()


def reference(uid: str) -> Reference:
    """A reference to an object of no particular class."""
    return Reference("1.2.840.10008.5.1.4.1.1.7", uid)
