"""Storage commitment requests to destinations, as SCU (PS3.4 Annex J), and their reports.

    prepared ─ requested ─ answered        the items are recorded before the request is sent
             │           └ overdue         no report came in time; a later one still counts
             └ refused                     the destination refused the request itself

A transaction here is one of storage commitment, with a Transaction UID (0008,1195), unless it is called `tx`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from msnode.dicom import commitment
from msnode.dicom.commitment import reason_text
from msnode.record import audit, deliveries, jobs, schema
from msnode.record.delivery import DeliveryState, Verify
from msnode.record.job import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from msnode.dicom.commitment import Report
    from msnode.record.database import Transaction
    from msnode.record.delivery import Delivery

    Delay = Callable[[int, str], float | None]
    """Attempt number n and a key → seconds to wait before the next attempt; None after the last."""

_C = schema.commitment
_ITEM = schema.commitment_item
_ENDED = frozenset({JobState.COMPLETED, JobState.REJECTED, JobState.FAILED})


class State(StrEnum):
    """State of a transaction of this node."""

    PREPARED = "prepared"
    REQUESTED = "requested"
    ANSWERED = "answered"
    OVERDUE = "overdue"
    REFUSED = "refused"


_OUTSTANDING = (State.PREPARED, State.REQUESTED)


@dataclass(frozen=True)
class Outstanding:
    """A transaction of one job and destination that has still to be sent, or whose report has still to come.

    Attributes:
        deadline_at: when the report is overdue, UTC.
        delivery_ids: the deliveries of its items.
    """

    transaction_uid: str
    state: State
    deadline_at: datetime
    delivery_ids: frozenset[int]


def outstanding(tx: Transaction, job_id: int, destination: str) -> tuple[Outstanding, ...]:
    """Prepared and requested transactions; oldest first."""
    query = (
        sa.select(_C)
        .where(_C.c.job_id == job_id, _C.c.destination == destination, _C.c.state.in_(_OUTSTANDING))
        .order_by(_C.c.prepared_at, _C.c.transaction_uid)
    )
    return tuple(
        Outstanding(row.transaction_uid, State(row.state), row.deadline_at, _items(tx, row.transaction_uid))
        for row in tx.execute(query).all()
    )


def is_answered(tx: Transaction, transaction_uid: str) -> bool:
    """Whether the report of a transaction has come."""
    query = sa.select(_C.c.answered_at).where(_C.c.transaction_uid == transaction_uid)
    return tx.execute(query).scalar() is not None


def overdue_count(tx: Transaction, job_id: int, destination: str) -> int:
    """Number of requests to the destination whose report is overdue."""
    query = sa.select(sa.func.count()).where(
        _C.c.job_id == job_id, _C.c.destination == destination, _C.c.state == State.OVERDUE
    )
    return int(tx.execute(query).scalar_one())


def prepare(
    tx: Transaction, request_uid: str, which: Sequence[Delivery], *, at: datetime, deadline_at: datetime
) -> None:
    """Record a transaction and its items before the request is sent.

    Args:
        tx: the caller's database transaction.
        request_uid: Transaction UID.
        which: the items: deliveries of one job to one destination.
        at: UTC.
        deadline_at: when its report is overdue, UTC.
    """
    first = which[0]
    tx.execute(
        _C.insert().values(
            transaction_uid=request_uid, job_id=first.job_id, destination=first.destination,
            state=State.PREPARED, prepared_at=at, deadline_at=deadline_at,
        )
    )  # fmt: skip
    tx.execute(_ITEM.insert(), [{"transaction_uid": request_uid, "delivery_id": d.id} for d in which])


def requested(tx: Transaction, transaction_uid: str, *, at: datetime, deadline_at: datetime) -> bool:
    """Record that the destination accepted the request; False where its report has come already."""
    prepared = (_C.c.transaction_uid == transaction_uid) & (_C.c.state == State.PREPARED)
    values = {"state": State.REQUESTED, "requested_at": at, "deadline_at": deadline_at}
    return tx.execute(_C.update().where(prepared).values(**values)).rowcount == 1


def close(tx: Transaction, transaction_uid: str, state: State) -> None:
    """End a transaction as `OVERDUE` or `REFUSED`; does nothing where it was answered meanwhile."""
    open_ = (_C.c.transaction_uid == transaction_uid) & _C.c.state.in_(_OUTSTANDING)
    tx.execute(_C.update().where(open_).values(state=state))


class ReportOutcome(StrEnum):
    """How a report was handled."""

    APPLIED = "applied"
    REPEATED = "repeated"
    UNKNOWN = "unknown"
    WRONG_SENDER = "wrong_sender"


@dataclass(frozen=True)
class NotedReport:
    """How a report was handled.

    Attributes:
        job_id: its job; None where this node has no transaction of its UID.
    """

    outcome: ReportOutcome
    job_id: int | None = None

    @property
    def status(self) -> int:
        """Status of the N-EVENT-REPORT response (PS3.7 10.1.1); success for a repeated or unknown report."""
        return commitment.NOT_AUTHORISED if self.outcome == ReportOutcome.WRONG_SENDER else commitment.SUCCESS


def note_report(
    tx: Transaction, report: Report, *, senders: Collection[str], at: datetime, delay: Delay
) -> NotedReport:
    """Apply a report to its deliveries; every report is audited.

    An object that is kept becomes committed. One that failed is sent again. Where a second report denies an
    object that the destination answered to have (0x0112), the destination is asked for it by query instead:
    an archive that holds it twice reports so for ever. One that the report leaves out is requested again. A
    report may come after its transaction was given up, or after a newer transaction was opened: it then
    commits what it can, and leaves failures to the newer transaction.

    Args:
        tx: the caller's database transaction, in which it also enqueues what the job needs next.
        report: as received.
        senders: names of the destinations that the sender may report for.
        at: UTC.
        delay: how long to wait before an object is sent, or requested, again.
    """
    query = sa.select(_C).where(_C.c.transaction_uid == report.transaction_uid)
    known = tx.execute(query).one_or_none()
    if known is None:
        return _audited(tx, report, NotedReport(ReportOutcome.UNKNOWN), at=at)
    jobs.lock_job(tx, known.job_id)
    if known.destination not in senders:
        return _audited(tx, report, NotedReport(ReportOutcome.WRONG_SENDER, known.job_id), at=at)
    open_ = (_C.c.transaction_uid == report.transaction_uid) & _C.c.answered_at.is_(None)
    change = _C.update().where(open_).values(state=State.ANSWERED, answered_at=at)
    if tx.execute(change).rowcount != 1:
        return _audited(tx, report, NotedReport(ReportOutcome.REPEATED, known.job_id), at=at)
    ids = _items(tx, report.transaction_uid)
    items = {d.result.sop_instance_uid: d for d in deliveries.of_job(tx, known.job_id) if d.id in ids}
    _apply(tx, report, items, at=at, delay=delay)
    named = {reference.sop_instance_uid for reference in (*report.kept, *report.failed)}
    return _audited(
        tx, report, NotedReport(ReportOutcome.APPLIED, known.job_id), at=at,
        destination=known.destination, late=known.state not in _OUTSTANDING,
        left_out=len(items.keys() - named), foreign=len(named - items.keys()),
    )  # fmt: skip


def _apply(
    tx: Transaction, report: Report, items: dict[str, Delivery], *, at: datetime, delay: Delay
) -> None:
    kept = {each.sop_instance_uid for each in report.kept}
    reasons = {each.sop_instance_uid: reason for each, reason in report.failed.items()}
    deliveries.committed(
        tx, *(d for uid, d in items.items() if uid in kept), at=at, note="committed by the destination"
    )
    job = jobs.find(tx, next(iter(items.values())).job_id)
    if job is None or job.state == JobState.CANCELLED:
        return
    newer = _in_newer_transactions(tx, items.values())
    open_items = {uid: d for uid, d in items.items() if uid not in kept and d.id not in newer}
    lost = [d for uid, d in open_items.items() if uid in reasons and d.state == DeliveryState.DELIVERED]
    if lost and job.state in _ENDED:  # the job ended without this confirmation
        why = f"{lost[0].destination} reports that it does not keep an object"
        jobs.move(tx, job, JobState.DELIVERING, at=at, why=why)
    for delivery in lost:
        reason = reasons[delivery.result.sop_instance_uid]
        note = f"not committed: {reason_text(reason)}"
        denied = reason == commitment.NO_SUCH_INSTANCE
        if denied and delivery.denials and delivery.verify == Verify.COMMITMENT:
            deliveries.doubt_reports(tx, delivery, at=at, note=f"{note}, {delivery.denials + 1} times")
        else:
            send_again(tx, delivery, at=at, delay=delay, note=note, denied=denied)
    left_out = [d for uid, d in open_items.items() if uid not in reasons]
    ask_again(tx, left_out, at=at, delay=delay, note="the destination's report does not name it")


def send_again(
    tx: Transaction, delivery: Delivery, *, at: datetime, delay: Delay, note: str, denied: bool = False
) -> None:
    """Send an object again after a while, or give it up after too many attempts.

    Args:
        tx: the caller's database transaction.
        delivery: of the object.
        at: UTC.
        delay: how long to wait, see `Delay`.
        note: why, for people.
        denied: see `deliveries.send_again`.
    """
    attempt = delivery.attempts + 1
    moment = _moment(at, delay(attempt, f"{delivery.job_id}/{delivery.destination}"))
    why = note if moment is not None else f"given up after {attempt} tries: {note}"
    deliveries.send_again(tx, delivery, at=at, note=why, next_try_at=moment, denied=denied)


def ask_again(
    tx: Transaction, which: Sequence[Delivery], *, at: datetime, delay: Delay, note: str, no: bool = False
) -> None:
    """Ask again after a while whether objects are kept, or give up after too many attempts.

    Args:
        tx: the caller's database transaction.
        which: deliveries of one job to one destination.
        at: UTC.
        delay: how long to wait, see `Delay`.
        note: the answer, for people.
        no: the destination answered that it does not have them; such answers are counted apart.
    """
    if not which:
        return
    tries = 1 + max(d.answers if no else d.verifications for d in which)
    moment = _moment(at, delay(tries, f"{which[0].job_id}/{which[0].destination}"))
    why = note if moment is not None else f"asked {tries} times: {note}"
    deliveries.ask_later(tx, *which, at=at, note=why, next_try_at=moment, no=no)


def _moment(at: datetime, delay_s: float | None) -> datetime | None:
    return None if delay_s is None else at + timedelta(seconds=delay_s)


def _items(tx: Transaction, transaction_uid: str) -> frozenset[int]:
    query = sa.select(_ITEM.c.delivery_id).where(_ITEM.c.transaction_uid == transaction_uid)
    return frozenset(tx.execute(query).scalars())


def _in_newer_transactions(tx: Transaction, which: Collection[Delivery]) -> frozenset[int]:
    """Ids of the deliveries that are items of an outstanding transaction."""
    query = (
        sa.select(_ITEM.c.delivery_id)
        .join(_C, _C.c.transaction_uid == _ITEM.c.transaction_uid)
        .where(_C.c.state.in_(_OUTSTANDING), _ITEM.c.delivery_id.in_([d.id for d in which]))
    )
    return frozenset(tx.execute(query).scalars())


def _audited(
    tx: Transaction, report: Report, noted: NotedReport, *, at: datetime, **facts: str | int
) -> NotedReport:
    audit.append(
        tx, f"commitment_report_{noted.outcome}", at=at,
        facts={
            "transaction_uid": report.transaction_uid, "job_id": noted.job_id,
            "kept": len(report.kept), "failed": len(report.failed), **facts,
        },
    )  # fmt: skip
    return noted
