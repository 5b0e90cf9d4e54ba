"""What destinations are asked to keep, and what they report (storage commitment, PS3.4 Annex J).

prepared ─ requested ─ answered        one transaction: its items are stored before anything is sent
         │           └ overdue         no report came in time; one that comes later still counts
         └ refused                     the destination refused the request itself
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
from msnode.record.delivery import DeliveryState
from msnode.record.job import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from msnode.dicom.commitment import Report
    from msnode.record.database import Transaction
    from msnode.record.delivery import Delivery

    Delay = Callable[[int, str], float | None]
    """Seconds to wait after try number n of something failed; None where that was the last."""

_C = schema.commitment
_ITEM = schema.commitment_item
_ENDED = frozenset({JobState.COMPLETED, JobState.REJECTED, JobState.FAILED})


class State(StrEnum):
    """Where a transaction of ours stands."""

    PREPARED = "prepared"
    REQUESTED = "requested"
    ANSWERED = "answered"
    OVERDUE = "overdue"
    REFUSED = "refused"


_OUTSTANDING = (State.PREPARED, State.REQUESTED)


@dataclass(frozen=True)
class Outstanding:
    """A transaction of one job and destination whose report is still awaited, or that is still to be sent."""

    transaction_uid: str
    state: State
    deadline_at: datetime
    delivery_ids: frozenset[int]


def outstanding(tx: Transaction, job_id: int, destination: str) -> tuple[Outstanding, ...]:
    """What is prepared or requested, oldest first."""
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
    """Whether its report has come, whichever way."""
    query = sa.select(_C.c.answered_at).where(_C.c.transaction_uid == transaction_uid)
    return tx.execute(query).scalar() is not None


def overdue_count(tx: Transaction, job_id: int, destination: str) -> int:
    """How many requests the destination never answered in time."""
    query = sa.select(sa.func.count()).where(
        _C.c.job_id == job_id, _C.c.destination == destination, _C.c.state == State.OVERDUE
    )
    return int(tx.execute(query).scalar_one())


def prepare(
    tx: Transaction, request_uid: str, which: Sequence[Delivery], *, at: datetime, deadline_at: datetime
) -> None:
    """Store a transaction and its items, deliveries of one job to one destination; it is sent afterwards."""
    first = which[0]
    tx.execute(
        _C.insert().values(
            transaction_uid=request_uid, job_id=first.job_id, destination=first.destination,
            state=State.PREPARED, prepared_at=at, deadline_at=deadline_at,
        )
    )  # fmt: skip
    tx.execute(_ITEM.insert(), [{"transaction_uid": request_uid, "delivery_id": d.id} for d in which])


def requested(tx: Transaction, transaction_uid: str, *, at: datetime, deadline_at: datetime) -> bool:
    """The destination accepted the request; False where its report came before this could be noted."""
    prepared = (_C.c.transaction_uid == transaction_uid) & (_C.c.state == State.PREPARED)
    values = {"state": State.REQUESTED, "requested_at": at, "deadline_at": deadline_at}
    return tx.execute(_C.update().where(prepared).values(**values)).rowcount == 1


def close(tx: Transaction, transaction_uid: str, state: State) -> None:
    """Wait for it no longer (`OVERDUE`, `REFUSED`); nothing where it was answered meanwhile."""
    open_ = (_C.c.transaction_uid == transaction_uid) & _C.c.state.in_(_OUTSTANDING)
    tx.execute(_C.update().where(open_).values(state=state))


class Took(StrEnum):
    """What was made of a report."""

    APPLIED = "applied"
    REPEATED = "repeated"
    UNKNOWN = "unknown"
    WRONG_SENDER = "wrong_sender"


@dataclass(frozen=True)
class Noted:
    """What was made of a report, and of which job; None where no transaction of ours bears its UID."""

    took: Took
    job_id: int | None = None

    @property
    def status(self) -> int:
        """The answer to the N-EVENT-REPORT: whoever repeats itself, or is wrong about us, is told success."""
        return commitment.NOT_AUTHORISED if self.took == Took.WRONG_SENDER else commitment.SUCCESS


def note_report(
    tx: Transaction, report: Report, *, senders: Collection[str], at: datetime, delay: Delay
) -> Noted:
    """Apply a report to the deliveries that it speaks of; everything odd about it is audited.

    What is kept is committed. What failed is sent again. What the report leaves out is asked for again.
    A report that comes after its transaction was given up, or a newer one was opened, commits what it can
    and says nothing about what the newer one asks for.

    Args:
        tx: the caller's transaction, in which it also enqueues what the job needs next.
        report: as it came.
        senders: names of the destinations that the sender may speak for.
        at: UTC.
        delay: how long to wait before something is sent, or asked for, the next time.
    """
    query = sa.select(_C).where(_C.c.transaction_uid == report.transaction_uid)
    known = tx.execute(query).one_or_none()
    if known is None:
        return _audited(tx, report, Noted(Took.UNKNOWN), at=at)
    jobs.lock_job(tx, known.job_id)
    if known.destination not in senders:
        return _audited(tx, report, Noted(Took.WRONG_SENDER, known.job_id), at=at)
    open_ = (_C.c.transaction_uid == report.transaction_uid) & _C.c.answered_at.is_(None)
    change = _C.update().where(open_).values(state=State.ANSWERED, answered_at=at)
    if tx.execute(change).rowcount != 1:
        return _audited(tx, report, Noted(Took.REPEATED, known.job_id), at=at)
    ids = _items(tx, report.transaction_uid)
    items = {d.result.sop_instance_uid: d for d in deliveries.of_job(tx, known.job_id) if d.id in ids}
    _apply(tx, report, items, at=at, delay=delay)
    named = {reference.sop_instance_uid for reference in (*report.kept, *report.failed)}
    return _audited(
        tx, report, Noted(Took.APPLIED, known.job_id), at=at,
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
    if lost and job.state in _ENDED:  # it ended without the confirmation, and goes on
        why = f"{lost[0].destination} reports that it does not keep what it has"
        jobs.move(tx, job, JobState.DELIVERING, at=at, why=why)
    for delivery in lost:
        reason = reasons[delivery.result.sop_instance_uid]
        send_again(tx, delivery, at=at, delay=delay, note=f"not committed: {reason_text(reason)}")
    left_out = [d for uid, d in open_items.items() if uid not in reasons]
    ask_again(tx, left_out, at=at, delay=delay, note="the destination's report says nothing of it")


def send_again(tx: Transaction, delivery: Delivery, *, at: datetime, delay: Delay, note: str) -> None:
    """Send it once more after a while, or give it up where that was tried too often."""
    attempt = delivery.attempts + 1
    moment = _moment(at, delay(attempt, f"{delivery.job_id}/{delivery.destination}"))
    why = note if moment is not None else f"given up after {attempt} tries: {note}"
    deliveries.send_again(tx, delivery, at=at, note=why, next_try_at=moment)


def ask_again(
    tx: Transaction, which: Sequence[Delivery], *, at: datetime, delay: Delay, note: str, no: bool = False
) -> None:
    """Ask once more after a while, or give up asking; with `no` the destination itself said no."""
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
    """Deliveries of which an outstanding transaction will tell."""
    query = (
        sa.select(_ITEM.c.delivery_id)
        .join(_C, _C.c.transaction_uid == _ITEM.c.transaction_uid)
        .where(_C.c.state.in_(_OUTSTANDING), _ITEM.c.delivery_id.in_([d.id for d in which]))
    )
    return frozenset(tx.execute(query).scalars())


def _audited(tx: Transaction, report: Report, noted: Noted, *, at: datetime, **facts: str | int) -> Noted:
    audit.append(
        tx, f"commitment_report_{noted.took}", at=at,
        facts={
            "transaction_uid": report.transaction_uid, "job_id": noted.job_id,
            "kept": len(report.kept), "failed": len(report.failed), **facts,
        },
    )  # fmt: skip
    return noted
