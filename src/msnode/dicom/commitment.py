"""Storage commitment, Push Model (PS3.4 Annex J): requests and reports as values, and as data sets.

The node takes both roles. It asks its destinations to keep results (`services.confirm_storage`):

    node (sender)             record               destination              node (receiver)
      |-- request, PREPARED --->|                       |                          |
      |------- N-ACTION: Transaction UID, objects ----->|                          |
      |<------ N-ACTION response: 0x0000 ---------------|                          |
      |-- REQUESTED, deadline ->|                       |                          |
      |<- N-EVENT-REPORT on the same association ... ---|                          |
      |                         |                       |-- ... or on one that the |
      |                         |                       |   destination opens ---->|
      |-- kept: committed ----->|<----------- kept: committed ---------------------|
      |   failed: send again    |             failed: send again                   |
      |
      |  deadline passed without a report, or N-ACTION refused: C-FIND instead

It answers peers that ask for safekeeping of images (`services.answer_commitments`):

    peer                      node (receiver)             record             node (sender)
      |-- N-ACTION ---------------->|                        |                     |
      |                             |-- request, enqueued -->|                     |
      |<-- N-ACTION response -------|                        |                     |
      |                             |                        |<-- promise: which --|
      |                             |                        |    bytes are there  |
      |<------ N-EVENT-REPORT on an association that the node opens ---------------|
      |------- N-EVENT-REPORT response: 0x0000 ----------------------------------->|
      |                             |                        |<-- reported, or ----|
      |                             |                        |    tried again later|

In both cases the request is in the record before anything leaves the node, so that a process may end at any
step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom import Dataset

from msnode.dicom.header import integer, is_valid_uid, items, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    TakeReport = Callable[["Report"], int]
    """Takes a report and returns the status that answers it."""

SOP_CLASS_UID = "1.2.840.10008.1.20.1"
SOP_INSTANCE_UID = "1.2.840.10008.1.20.1.1"
"""The one well-known instance of the class (PS3.4 J.3.5)."""
REQUEST_ACTION = 1
ALL_KEPT, SOME_FAILED = 1, 2
"""Event types (PS3.4 Table J.3-2)."""

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT = 0x0113
INVALID_ARGUMENT = 0x0115
NO_SUCH_CLASS = 0x0118
CLASS_INSTANCE_CONFLICT = 0x0119
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124

_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object",
    0x0119: "class and instance do not match",
    0x0122: "SOP class not supported",
    0x0131: "duplicate Transaction UID",
    0x0213: "resource limitation",
}


def reason_text(reason: int) -> str:
    """A Failure Reason (PS3.3 C.14.1.1) in words, with its number."""
    return f"{_REASONS.get(reason, 'unknown reason')} (0x{reason:04X})"


@dataclass(frozen=True, order=True)
class Reference:
    """One object, as a request or a report names it (PS3.3 10.8, SOP Instance Reference)."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Request:
    """A request for safekeeping of objects."""

    transaction_uid: str
    instances: tuple[Reference, ...]


@dataclass(frozen=True)
class Report:
    """The answer to a request. A requested object may be in neither list.

    Attributes:
        kept: objects whose safekeeping was accepted.
        failed: object → Failure Reason.
    """

    transaction_uid: str
    kept: tuple[Reference, ...]
    failed: Mapping[Reference, int] = field(default_factory=dict)

    @property
    def event_type(self) -> int:
        """The event type ID of its N-EVENT-REPORT (PS3.4 Table J.3-2)."""
        return SOME_FAILED if self.failed else ALL_KEPT


def action_information(request: Request) -> Dataset:
    """The data set of an N-ACTION (PS3.4 Table J.3-1)."""
    ds = Dataset()
    ds.TransactionUID = request.transaction_uid
    ds.ReferencedSOPSequence = [_item(each) for each in request.instances]
    return ds


def event_information(report: Report) -> Dataset:
    """The data set of an N-EVENT-REPORT (PS3.4 Table J.3-2)."""
    ds = Dataset()
    ds.TransactionUID = report.transaction_uid
    if report.kept:
        ds.ReferencedSOPSequence = [_item(each) for each in report.kept]
    if report.failed:
        ds.FailedSOPSequence = [_item(each, FailureReason=reason) for each, reason in report.failed.items()]
    return ds


def read_request(event: Any) -> Request | int:
    """The request in a pynetdicom N-ACTION event, or the status that refuses it (PS3.7 10.1.4.1.10)."""
    asked = event.request
    if asked.RequestedSOPClassUID != SOP_CLASS_UID:
        return NO_SUCH_CLASS
    if asked.RequestedSOPInstanceUID != SOP_INSTANCE_UID:
        return NO_SUCH_INSTANCE
    if event.action_type != REQUEST_ACTION:
        return NO_SUCH_ACTION
    ds = event.action_information
    transaction, instances = _uid(ds, "TransactionUID"), tuple(_references(ds, "ReferencedSOPSequence"))
    if not transaction or not instances:
        return INVALID_ARGUMENT
    return Request(transaction, tuple(dict.fromkeys(reference for reference, _ in instances)))


def read_report(event: Any) -> Report | int:
    """The report in a pynetdicom N-EVENT-REPORT event, or the status that refuses it (PS3.7 10.1.1.1.8).

    An object in both lists counts as failed.
    """
    told = event.request
    if told.AffectedSOPClassUID != SOP_CLASS_UID:
        return NO_SUCH_CLASS
    if told.AffectedSOPInstanceUID != SOP_INSTANCE_UID:
        return NO_SUCH_INSTANCE
    if event.event_type not in {ALL_KEPT, SOME_FAILED}:
        return NO_SUCH_EVENT
    ds = event.event_information
    transaction = _uid(ds, "TransactionUID")
    if not transaction:
        return INVALID_ARGUMENT
    failed = dict(_references(ds, "FailedSOPSequence"))
    kept = dict.fromkeys(reference for reference, _ in _references(ds, "ReferencedSOPSequence"))
    return Report(transaction, tuple(each for each in kept if each not in failed), failed)


def _item(reference: Reference, **more: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


def _references(ds: Dataset, keyword: str) -> Iterable[tuple[Reference, int]]:
    """The well-formed items of a sequence, each with its Failure Reason (processing failure if absent)."""
    for item in items(ds, keyword):
        sop_class, instance = _uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID")
        if sop_class and instance:
            reason = integer(item, "FailureReason")
            yield Reference(sop_class, instance), PROCESSING_FAILURE if reason is None else reason


def _uid(ds: Dataset | None, keyword: str) -> str:
    """A UID of the data set; empty if it is absent or not well-formed (PS3.5 9.1)."""
    found = text(ds, keyword)
    return found if is_valid_uid(found) else ""
