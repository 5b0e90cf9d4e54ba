"""A DICOM peer: C-STORE (PS3.4 Annex B), and verification by commitment or C-FIND (Annexes J and C)."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from msnode import crash_points
from msnode.deliver.destination import Outcome, SendResult
from msnode.dicom.association import EchoResult, echo, open_association
from msnode.dicom.contexts import COMMITMENT, FIND, Context
from msnode.dicom.uids import LABEL_MAP_STORAGE
from msnode.errors import PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from msnode.deliver.destination import ResultObject
    from msnode.dicom.association import Found, OpenAssociation, Response
    from msnode.dicom.commitment import Report, Request, TakeReport
    from msnode.dicom.connection import DicomAddress

log = structlog.get_logger()

CONTEXT_OF_KIND: Mapping[str, Context] = {
    "seg": Context(SegmentationStorage, ExplicitVRLittleEndian),
    "sr": Context(Comprehensive3DSRStorage, ExplicitVRLittleEndian),
    "overlay": Context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian),
    "ko": Context(KeyObjectSelectionDocumentStorage, ExplicitVRLittleEndian),
    "summary": Context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian),
    "pdf": Context(EncapsulatedPDFStorage, ExplicitVRLittleEndian),
    "probability": Context(SegmentationStorage, ExplicitVRLittleEndian),
    "sr-comprehensive": Context(ComprehensiveSRStorage, ExplicitVRLittleEndian),
    "sr-enhanced": Context(EnhancedSRStorage, ExplicitVRLittleEndian),
}
"""The presentation context of each kind of result. `DicomDestination.echo` proposes them to a peer."""

LABEL_MAP = Context(LABEL_MAP_STORAGE, RLELossless)
"""The context of "seg" if the site wants a label map (supplement 243)."""

_STATUSES: tuple[tuple[int, int, Outcome, str], ...] = (
    (0x0000, 0x0000, Outcome.STORED, "stored"),
    (0x0107, 0x0107, Outcome.STORED_WITH_WARNING, "stored, attribute list error"),
    (0x0110, 0x0110, Outcome.TRY_LATER, "processing failure"),
    (0x0111, 0x0111, Outcome.ALREADY_THERE, "already there"),
    (0x0116, 0x0116, Outcome.STORED_WITH_WARNING, "stored, attribute value out of range"),
    (0x0117, 0x0117, Outcome.REFUSED, "invalid SOP instance"),
    (0x0122, 0x0122, Outcome.REFUSED, "SOP class not supported"),
    (0x0124, 0x0124, Outcome.REFUSED, "not authorised"),
    (0x0213, 0x0213, Outcome.TRY_LATER, "resource limitation"),
    (0xA700, 0xA7FF, Outcome.TRY_LATER, "out of resources"),
    (0xA900, 0xA9FF, Outcome.REFUSED, "data set does not match SOP class"),
    (0xB000, 0xB000, Outcome.STORED_WITH_WARNING, "stored, data elements coerced"),
    (0xB006, 0xB006, Outcome.STORED_WITH_WARNING, "stored, data elements discarded"),
    (0xB007, 0xB007, Outcome.STORED_WITH_WARNING, "stored, data set does not match SOP class"),
    (0xB000, 0xBFFF, Outcome.STORED_WITH_WARNING, "stored with a warning"),
)
"""First and last status, outcome for the object, description (PS3.4 Table B.2-1, PS3.7 Annex C)."""

_CONFIRMS_NOTHING = (
    'it offers neither storage commitment nor C-FIND: enable one of them there, or set verify = "none"'
)
_CANNOT_UNDERSTAND = range(0xC000, 0xD000)
_LINGER_S = 3.0
_POLL_S = 0.2


def outcome_of(status: int) -> tuple[Outcome, str]:
    """Outcome for the object, and description, of a C-STORE status or a Failure Reason of STOW-RS.

    Many archives answer 0xCxxx, "cannot understand", while their database is busy. An unknown status may mean
    the same.
    """
    for first, last, outcome, text in _STATUSES:
        if first <= status <= last:
            return outcome, text
    return Outcome.UNCLEAR, "cannot understand" if status in _CANNOT_UNDERSTAND else "unknown failure"


@dataclass(frozen=True)
class DestinationEcho(EchoResult):
    """What a destination answered to a verification.

    Attributes:
        confirms_by: how it will be asked to confirm objects: "commitment", "find", or "none" if the site
            does not want that; None if it offers neither.
        advice: how to change the configuration, if `confirms_by` is not what it says; else empty.
    """

    confirms_by: str | None = "none"
    advice: str = ""


@dataclass(frozen=True)
class DicomDestination:
    """A storage SCP of the site.

    Attributes:
        name: its name in the configuration.
        objects: the kinds that it takes.
        address: where it listens.
        calling_ae: the node's AE title.
        verify: how it is asked to confirm objects.
        commitment_deadline_s: how long it may take to report on a commitment request, seconds.
        label_map: whether "seg" is a label map.
    """

    name: str
    objects: frozenset[str]
    address: DicomAddress
    calling_ae: str
    verify: Literal["commitment", "find", "none"] = "commitment"
    commitment_deadline_s: float = 86400
    label_map: bool = False

    def takes(self, kind: str) -> bool:
        """Whether `kind` is among `objects`."""
        return kind in self.objects

    def send(self, objects: Sequence[ResultObject]) -> tuple[SendResult, ...]:
        """Store all objects over one association; see `Destination.send`.

        If the peer does not accept an object's presentation context, that object alone is refused.

        Raises:
            PeerUnreachable: no association could be opened.
            AssociationRejected: the peer refused it.
        """
        contexts = list(dict.fromkeys(o.context for o in objects))
        with open_association(self.address, self.calling_ae, contexts) as association:
            results = tuple(self._send_all(association, objects))
        for result in results:
            log.info(
                "object_sent",
                destination=self.name,
                sop_instance_uid=result.sop_instance_uid,
                outcome=result.outcome.value,
                status=result.status,
            )
        return results

    def _send_all(self, association: OpenAssociation, objects: Sequence[ResultObject]) -> list[SendResult]:
        refusals = association.refusals()
        results = []
        lost: PeerUnreachable | None = None
        for each in objects:
            if each.context in refusals or not association.accepts(each.context):
                text = f"{each.context} not accepted: {refusals.get(each.context, 'no answer')}"
                results.append(SendResult(each.sop_instance_uid, Outcome.REFUSED, None, text))
                continue
            if lost is None:
                try:
                    results.append(_result(each, association.store(each.path)))
                    crash_points.reach("object-sent", each.sop_instance_uid)
                    continue
                except PeerUnreachable as error:
                    lost = error
            results.append(SendResult(each.sop_instance_uid, Outcome.TRY_LATER, None, str(lost)))
        return results

    @contextmanager
    def open_session(self, take_report: TakeReport) -> Iterator[DicomVerificationSession]:
        """An association for verification; see `VerifiableDestination.open_session`.

        Raises:
            PeerUnreachable: no association could be opened.
            AssociationRejected: the peer refused it.
        """
        reported = threading.Event()

        def take(report: Report) -> int:
            status = take_report(report)
            reported.set()
            return status

        with open_association(
            self.address, self.calling_ae, [COMMITMENT, FIND], take_report=take
        ) as association:
            yield DicomVerificationSession(association, self.commitment_deadline_s, reported)

    def echo(self) -> DestinationEcho:
        """Verify the peer (C-ECHO), and find out which kinds it would take and how it would confirm them.

        Raises:
            PeerUnreachable: no association could be opened.
            AssociationRejected: the peer refused it.
        """
        written_as = {**CONTEXT_OF_KIND, **({"seg": LABEL_MAP} if self.label_map else {})}
        contexts = list(dict.fromkeys(c for kind, c in written_as.items() if self.takes(kind)))
        answer = echo(self.address, self.calling_ae, [*contexts, COMMITMENT, FIND])
        refusals = {c: reason for c, reason in answer.refusals.items() if c in contexts}
        confirms_by, advice = self._confirmation(
            commits=COMMITMENT not in answer.refusals, finds=FIND not in answer.refusals
        )
        return DestinationEcho(answer.address, answer.status, refusals, answer.elapsed_s, confirms_by, advice)

    def _confirmation(self, *, commits: bool, finds: bool) -> tuple[str | None, str]:
        if self.verify == "none" or (self.verify == "commitment" and commits):
            return self.verify, ""
        if finds and self.verify == "find":
            return "find", ""
        if finds:
            lacking = "it offers no storage commitment and is asked by C-FIND instead"
            return "find", f'{lacking}: enable commitment there, or set verify = "find"'
        if commits:
            return None, 'it offers no C-FIND: set verify = "commitment"'
        return None, _CONFIRMS_NOTHING


@dataclass(frozen=True)
class DicomVerificationSession:
    """An association for storage commitment and C-FIND; see `VerificationSession`."""

    association: OpenAssociation
    deadline_s: float
    reported: threading.Event
    asks_by: str = "C-FIND"

    @property
    def commits(self) -> bool:
        """Whether the peer accepts storage commitment."""
        return self.association.accepts(COMMITMENT)

    @property
    def finds(self) -> bool:
        """Whether the peer accepts C-FIND at the study root."""
        return self.association.accepts(FIND)

    def request(self, request: Request) -> Response:
        """N-ACTION; see `VerificationSession.request`."""
        return self.association.request_commitment(request)

    def linger(self, answered: Callable[[], bool]) -> None:
        """Keep the association open a moment: many archives report over it at once."""
        end = time.monotonic() + _LINGER_S
        while not self.reported.wait(_POLL_S) and not answered() and time.monotonic() < end:
            pass

    def find(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uids: Collection[str]
    ) -> Found:
        """C-FIND of all instances of the series; see `VerificationSession.find`."""
        del sop_instance_uids
        return self.association.find(study_instance_uid, series_instance_uid)


def _result(sent: ResultObject, answer: Response) -> SendResult:
    outcome, text = outcome_of(answer.status)
    return SendResult(sent.sop_instance_uid, outcome, answer.status, text, answer.comment)
