"""C-STORE to a DICOM peer (PS3.4 Annex B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from msnode.association import Context, echo, open_association
from msnode.deliver.destination import Outcome, SendResult
from msnode.errors import PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msnode.association import Answer, DicomAddress, EchoResult, OpenAssociation
    from msnode.deliver.destination import ResultObject

log = structlog.get_logger()

CONTEXT_OF_KIND: Mapping[str, Context] = {
    "seg": Context(SegmentationStorage, ExplicitVRLittleEndian),
    "sr": Context(Comprehensive3DSRStorage, ExplicitVRLittleEndian),
    "overlay": Context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian),
}
"""What each kind of result is written as; `DicomDestination.echo` asks a peer about these."""

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
"""First and last status, what it means for the object, and in words (PS3.4 Table B.2-1, PS3.7 Annex C)."""

_TRIES_FOR_OTHER_FAILURES = 3
"""0xCxxx means "cannot understand", but many archives answer it while their database is busy; a status
that no table knows may mean the same."""


def outcome_of(status: int, attempt: int) -> tuple[Outcome, str]:
    """What a C-STORE status means for the object, and in words.

    Args:
        status: (0000,0900).
        attempt: how many times the object has been sent, this time included.
    """
    for first, last, outcome, text in _STATUSES:
        if first <= status <= last:
            return outcome, text
    text = "cannot understand" if 0xC000 <= status <= 0xCFFF else "unknown failure"  # noqa: PLR2004 - PS3.4 Table B.2-1
    if attempt < _TRIES_FOR_OTHER_FAILURES:
        return Outcome.TRY_LATER, text
    return Outcome.REFUSED, f"{text}, {attempt} times"


@dataclass(frozen=True)
class DicomDestination:
    """A storage SCP.

    Attributes:
        name: its name in the configuration.
        objects: the kinds it takes.
        address: where it listens.
        calling_ae: the AE title that the node calls itself.
    """

    name: str
    objects: frozenset[str]
    address: DicomAddress
    calling_ae: str

    def takes(self, kind: str) -> bool:
        """Whether `kind` is among `objects`."""
        return kind in self.objects

    def send(self, objects: Sequence[ResultObject], *, attempt: int) -> tuple[SendResult, ...]:
        """Store all objects over one association; see `Destination.send`.

        An object whose presentation context the peer does not accept is refused by itself; the
        others are stored.

        Raises:
            PeerUnreachable: no association could be opened.
            AssociationRejected: the peer refused it.
        """
        contexts = list(dict.fromkeys(o.context for o in objects))
        with open_association(self.address, self.calling_ae, contexts) as association:
            results = tuple(self._send_all(association, objects, attempt))
        for result in results:
            log.info(
                "object sent",
                destination=self.name,
                sop_instance_uid=result.sop_instance_uid,
                outcome=result.outcome.value,
                status=result.status,
                attempt=attempt,
            )
        return results

    def _send_all(
        self, association: OpenAssociation, objects: Sequence[ResultObject], attempt: int
    ) -> list[SendResult]:
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
                    results.append(_result(each, association.store(each.path), attempt))
                    continue
                except PeerUnreachable as error:
                    lost = error
            results.append(SendResult(each.sop_instance_uid, Outcome.TRY_LATER, None, str(lost)))
        return results

    def echo(self) -> EchoResult:
        """Verify the peer, and ask it which of the kinds in `objects` it would take.

        Raises:
            PeerUnreachable: no association could be opened.
            AssociationRejected: the peer refused it.
        """
        contexts = [context for kind, context in CONTEXT_OF_KIND.items() if self.takes(kind)]
        return echo(self.address, self.calling_ae, contexts)


def _result(sent: ResultObject, answer: Answer, attempt: int) -> SendResult:
    outcome, text = outcome_of(answer.status, attempt)
    return SendResult(sent.sop_instance_uid, outcome, answer.status, text, answer.comment)
