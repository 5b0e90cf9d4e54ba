"""Results, and one delivery for each object and destination that takes it.

    pending ─ delivered ─ committed (the destination confirmed that it keeps the object)
            └ refused (the destination will not have it) | dead (tried too often) | cancelled

A job is done when none of its deliveries is pending and none waits to be confirmed. A refused object
leaves it completed, with the refusal in its reason; a dead one makes it failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.errors import InvalidTransition
from msnode.record import jobs, schema
from msnode.record.database import insert
from msnode.record.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from msnode.record.database import Transaction
    from msnode.record.jobs import Job


class DeliveryState(StrEnum):
    """Where one object stands with one destination."""

    PENDING = "pending"
    DELIVERED = "delivered"
    COMMITTED = "committed"
    REFUSED = "refused"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Verify(StrEnum):
    """How a destination confirms what it got."""

    COMMITMENT = "commitment"
    """Storage commitment (PS3.4 Annex J)."""
    FIND = "find"
    """It is asked whether it has the object: C-FIND, or QIDO-RS."""
    NONE = "none"
    """The site asks for nothing."""
    UNAVAILABLE = "unavailable"
    """It was asked and can confirm nothing."""


@dataclass(frozen=True)
class Takes:
    """What one destination is given: kinds of object, and how it confirms them."""

    kinds: frozenset[str]
    verify: Verify = Verify.NONE


@dataclass(frozen=True)
class Result:
    """One object of a committed result set; `path` is relative to the set's folder."""

    kind: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Delivery:
    """One object on its way to one destination.

    Attributes:
        result_set: key of the set that holds the object.
        attempts: times it was tried and put off.
        answers: times the destination itself answered with a failure, or with a no, since it became
            pending or delivered.
        verify: how it is confirmed.
        verifications: times the destination was asked to confirm it.
        status: the last DIMSE or HTTP status, where there was an answer.
        note: what the destination or the network last said, for people.
        next_try_at: not before this moment, UTC: the next try, or the next look whether it is confirmed.
    """

    id: int
    job_id: int
    destination: str
    state: DeliveryState
    attempts: int
    answers: int
    verify: Verify
    verifications: int
    status: int | None
    note: str
    next_try_at: datetime | None
    updated_at: datetime
    result_set: str | None
    result: Result

    @property
    def unconfirmed(self) -> bool:
        """The destination has it and has still to confirm that it keeps it."""
        return self.state == DeliveryState.DELIVERED and self.verify in {Verify.COMMITMENT, Verify.FIND}


_D = schema.delivery
_R = schema.result
_PENDING = _D.c.state == DeliveryState.PENDING
_DELIVERED = _D.c.state == DeliveryState.DELIVERED


def finish(
    tx: Transaction,
    job: Job,
    results: Sequence[Result],
    takes: Mapping[str, Takes],
    *,
    at: datetime,
    why: str,
    **facts: Any,
) -> Job:
    """Record a committed result set and what has to go where; the job moves to `delivering`, or to its end.

    Args:
        tx: the caller's transaction.
        job: as `jobs.start` returned it.
        results: the set's objects. Those already recorded for this job are kept.
        takes: destination → kinds of object that it takes.
        at: UTC.
        why: reason of the new state; for a reading that was rejected pass `rejection` too.
        facts: further columns of the job (`result_set`, `rejection`, `model_name`, `timings_s`, …).

    Raises:
        InvalidTransition: see `jobs.move`; or an object is already recorded with other bytes or for
            another job.
    """
    jobs.hold(tx, job.id)
    job = jobs.move(tx, job, JobState.DELIVERING, at=at, why=why, **facts)
    for result in results:
        result_id = _store(tx, job, result)
        there = set(tx.execute(sa.select(_D.c.destination).where(_D.c.result_id == result_id)).scalars())
        for destination, wants in takes.items():
            if result.kind in wants.kinds and destination not in there:
                insert(
                    tx, _D, job_id=job.id, result_id=result_id, destination=destination,
                    state=DeliveryState.PENDING, attempts=0, answers=0, verify=wants.verify,
                    verifications=0, note="", updated_at=at,
                )  # fmt: skip
    return settle(tx, job, at=at)


def _store(tx: Transaction, job: Job, result: Result) -> int:
    query = sa.select(_R).where(_R.c.sop_instance_uid == result.sop_instance_uid)
    present = tx.execute(query).one_or_none()
    if present is None:
        return insert(
            tx, _R, job_id=job.id, kind=result.kind, sop_instance_uid=result.sop_instance_uid,
            sop_class_uid=result.sop_class_uid, series_instance_uid=result.series_instance_uid,
            path=result.path, sha256=result.sha256,
        )  # fmt: skip
    if (present.job_id, present.sha256) != (job.id, result.sha256):
        raise InvalidTransition(
            f"job {job.id}: {result.sop_instance_uid} is already recorded, with other bytes or for "
            f"job {present.job_id}"
        )
    return int(present.id)


def withdraw_former(tx: Transaction, job: Job, *, at: datetime) -> None:
    """Cancel what earlier revisions of the study have still to send: `job` replaces them.

    Nothing is said where all of a revision arrived before.
    """
    for former in jobs.replaced_by(tx, job):
        jobs.hold(tx, former.id)
        note = f"replaced by revision {job.revision}"
        change = _D.update().where(_D.c.job_id == former.id, _PENDING)
        tx.execute(change.values(state=DeliveryState.CANCELLED, note=note, next_try_at=None, updated_at=at))
        current = jobs.find(tx, former.id)
        if current is None or current.state not in jobs.BEING_DELIVERED:
            continue
        if all(d.state == DeliveryState.CANCELLED for d in of_job(tx, former.id)):
            jobs.move(tx, current, JobState.CANCELLED, at=at, why=f"{note} before anything was sent")
        else:
            settle(tx, current, at=at)


def of_job(tx: Transaction, job_id: int) -> tuple[Delivery, ...]:
    """Every delivery of the job, by destination."""
    return _deliveries(tx, _D.c.job_id == job_id)


def pending(tx: Transaction, job_id: int, destination: str) -> tuple[Delivery, ...]:
    """What this destination has still to get of the job."""
    return _deliveries(tx, (_D.c.job_id == job_id) & (_D.c.destination == destination) & _PENDING)


def unconfirmed(tx: Transaction, job_id: int, destination: str) -> tuple[Delivery, ...]:
    """What this destination has of the job and has still to confirm."""
    return tuple(d for d in of_job(tx, job_id) if d.destination == destination and d.unconfirmed)


def results_of(tx: Transaction, job_id: int) -> tuple[Result, ...]:
    """The recorded objects of the job."""
    query = sa.select(*_result_columns()).where(_R.c.job_id == job_id).order_by(_R.c.id)
    return tuple(Result(**row._mapping) for row in tx.execute(query))  # noqa: SLF001 - SQLAlchemy's public name


def delivered(
    tx: Transaction, *which: Delivery, at: datetime, status: int | None = None, note: str = ""
) -> None:
    """The destination has these objects: a fact, recorded whatever was decided meanwhile."""
    _change(
        tx, which, _D.c.state != DeliveryState.COMMITTED, at=at, state=DeliveryState.DELIVERED,
        status=status, note=note, answers=0, next_try_at=None,
    )  # fmt: skip


def committed(tx: Transaction, *which: Delivery, at: datetime, note: str) -> None:
    """The destination confirmed that it keeps these objects: a fact, whatever was decided meanwhile."""
    _change(tx, which, sa.true(), at=at, state=DeliveryState.COMMITTED, note=note, next_try_at=None)


def send_again(
    tx: Transaction, *which: Delivery, at: datetime, note: str, next_try_at: datetime | None
) -> None:
    """The destination does not have, or will not keep, what it was given: pending once more.

    Without a moment of the next try they were sent too often, and are dead.
    """
    state = DeliveryState.DEAD if next_try_at is None else DeliveryState.PENDING
    _change(
        tx, which, _DELIVERED, at=at, state=state, note=note,
        attempts=_D.c.attempts + 1, answers=0, next_try_at=next_try_at,
    )  # fmt: skip


def ask_later(
    tx: Transaction, *which: Delivery, at: datetime, note: str, next_try_at: datetime | None, no: bool = False
) -> None:
    """It was asked to confirm the objects, with `no` said no, and is asked again at that moment.

    Without a moment it was asked too often: it can confirm nothing.
    """
    if next_try_at is None:
        cannot_confirm(tx, *which, at=at, note=note)
        return
    _change_unconfirmed(
        tx, which, at=at, note=note, next_try_at=next_try_at,
        verifications=_D.c.verifications + 1, answers=_D.c.answers + int(no),
    )  # fmt: skip


def ask_by_find(tx: Transaction, *which: Delivery, at: datetime, note: str) -> None:
    """From now on the destination is asked whether it has the objects: it takes no commitment request."""
    _change_unconfirmed(tx, which, at=at, note=note, verify=Verify.FIND, answers=0)


def cannot_confirm(tx: Transaction, *which: Delivery, at: datetime, note: str) -> None:
    """The destination has the objects and no way to confirm that: the job ends without it."""
    _change_unconfirmed(tx, which, at=at, note=note, verify=Verify.UNAVAILABLE, next_try_at=None)


def refused(
    tx: Transaction, delivery: Delivery, *, at: datetime, note: str, status: int | None = None
) -> None:
    """The destination will not take this object; nothing happens where it is no longer pending."""
    _close(tx, delivery, DeliveryState.REFUSED, at=at, note=note, status=status)


def gave_up(
    tx: Transaction, delivery: Delivery, *, at: datetime, note: str, status: int | None = None
) -> None:
    """Tried too often; nothing happens where it is no longer pending."""
    _close(tx, delivery, DeliveryState.DEAD, at=at, note=note, status=status)


def postpone(
    tx: Transaction,
    delivery: Delivery,
    *,
    at: datetime,
    note: str,
    next_try_at: datetime,
    status: int | None = None,
) -> None:
    """Not now: one attempt more on the count; nothing happens where it is no longer pending.

    With a `status` the destination itself answered, which is counted apart from a peer that was not there.
    """
    change = _D.update().where(_D.c.id == delivery.id, _PENDING)
    tx.execute(
        change.values(
            attempts=_D.c.attempts + 1, answers=_D.c.answers + int(status is not None),
            note=note, status=status, next_try_at=next_try_at, updated_at=at,
        )
    )  # fmt: skip


def settle(tx: Transaction, job: Job, *, at: datetime) -> Job:
    """Move a job that delivers to where its deliveries stand; returns the job as it is now.

    Nothing is decided while something is pending; `delivered` waits for confirmations; else it ends.
    """
    if job.state not in jobs.BEING_DELIVERED:
        return job
    all_of_it = of_job(tx, job.id)
    if any(d.state == DeliveryState.PENDING for d in all_of_it):
        if job.state == JobState.DELIVERED:
            return jobs.move(tx, job, JobState.DELIVERING, at=at, why="a destination is sent objects again")
        return job
    waiting = sorted({d.destination for d in all_of_it if d.unconfirmed})
    if waiting:
        if job.state == JobState.DELIVERED:
            return job
        why = f"waiting for {', '.join(waiting)} to confirm safekeeping"
        return jobs.move(tx, job, JobState.DELIVERED, at=at, why=why)
    return _end(tx, job, all_of_it, at=at)


def _end(tx: Transaction, job: Job, all_of_it: Sequence[Delivery], *, at: datetime) -> Job:
    lacking = [d for d in all_of_it if d.state in {DeliveryState.REFUSED, DeliveryState.DEAD}]
    problems = [
        f"{d.destination} {'refused' if d.state == DeliveryState.REFUSED else 'did not get'} "
        f"{d.result.kind} {d.result.sop_instance_uid}: {d.note}"
        for d in lacking
    ]
    doubtful = {d.destination: d.note for d in all_of_it if d.verify == Verify.UNAVAILABLE}
    problems += [f"{name} cannot confirm what it has: {note}" for name, note in sorted(doubtful.items())]
    text = "; ".join(problems)
    if any(d.state == DeliveryState.DEAD for d in lacking):
        return jobs.move(tx, job, JobState.FAILED, at=at, why=text)
    end, why = JobState.COMPLETED, "every destination has everything it takes"
    if job.rejection is not None:
        end, why = JobState.REJECTED, job.rejection
    return jobs.move(tx, job, end, at=at, why=f"{why}; but {text}" if text else why)


def _close(
    tx: Transaction, delivery: Delivery, state: DeliveryState, *, at: datetime, note: str, status: int | None
) -> None:
    _change(tx, (delivery,), _PENDING, at=at, state=state, note=note, status=status, next_try_at=None)


def _change_unconfirmed(tx: Transaction, which: Sequence[Delivery], *, at: datetime, **values: Any) -> None:
    """Nothing happens to one that was confirmed meanwhile, or is otherwise no longer what it was."""
    still = _DELIVERED & _D.c.verify.in_([Verify.COMMITMENT, Verify.FIND])
    _change(tx, which, still, at=at, **values)


def _change(
    tx: Transaction, which: Sequence[Delivery], still: sa.ColumnElement[bool], *, at: datetime, **values: Any
) -> None:
    """Change those, all of one job, of which `still` holds."""
    if which:
        # Two senders that end two deliveries of a job at once must each see what the other did.
        jobs.hold(tx, which[0].job_id)
        these = _D.c.id.in_([d.id for d in which])
        tx.execute(_D.update().where(these, still).values(updated_at=at, **values))
        _settle_job(tx, which[0].job_id, at=at)


def _settle_job(tx: Transaction, job_id: int, *, at: datetime) -> None:
    job = jobs.find(tx, job_id)
    if job is not None:
        settle(tx, job, at=at)


def _result_columns() -> list[sa.Column[Any]]:
    return [_R.c[name] for name in Result.__dataclass_fields__]


def _deliveries(tx: Transaction, which: sa.ColumnElement[bool]) -> tuple[Delivery, ...]:
    own = [_D.c[n] for n in Delivery.__dataclass_fields__ if n not in {"result", "result_set"}]
    query = (
        sa.select(*own, schema.job.c.result_set, *_result_columns())
        .join_from(_D, _R)
        .join(schema.job, schema.job.c.id == _D.c.job_id)
        .where(which)
        .order_by(_D.c.destination, _D.c.id)
    )
    found = []
    for row in tx.execute(query):
        values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
        result = Result(**{name: values.pop(name) for name in Result.__dataclass_fields__})
        values["state"] = DeliveryState(values["state"])
        values["verify"] = Verify(values["verify"])
        found.append(Delivery(result=result, **values))
    return tuple(found)
