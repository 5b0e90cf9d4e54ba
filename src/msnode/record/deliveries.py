"""Results, and one delivery for each object and destination that takes it.

    pending ─ delivered | refused (the destination will not have it) | dead (tried too often) | cancelled

A job is done when none of its deliveries is pending. A refused object leaves it completed, with the
refusal in its reason; a dead one makes it failed.
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
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from msnode.record.database import Transaction
    from msnode.record.jobs import Job


class DeliveryState(StrEnum):
    """Where one object stands with one destination."""

    PENDING = "pending"
    DELIVERED = "delivered"
    REFUSED = "refused"
    DEAD = "dead"
    CANCELLED = "cancelled"


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
        status: the last DIMSE or HTTP status, where there was an answer.
        note: what the destination or the network last said, for people.
        next_try_at: not before this moment, UTC.
    """

    id: int
    job_id: int
    destination: str
    state: DeliveryState
    attempts: int
    status: int | None
    note: str
    next_try_at: datetime | None
    updated_at: datetime
    result_set: str | None
    result: Result


_D = schema.delivery
_R = schema.result


def finish(
    tx: Transaction,
    job: Job,
    results: Sequence[Result],
    takes: Mapping[str, Iterable[str]],
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
    job = jobs.move(tx, job, JobState.DELIVERING, at=at, why=why, **facts)
    for result in results:
        result_id = _store(tx, job, result)
        there = set(tx.execute(sa.select(_D.c.destination).where(_D.c.result_id == result_id)).scalars())
        for destination, kinds in takes.items():
            if result.kind in set(kinds) and destination not in there:
                insert(
                    tx, _D,
                    job_id=job.id, result_id=result_id, destination=destination,
                    state=DeliveryState.PENDING, attempts=0, note="", updated_at=at,
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


def of_job(tx: Transaction, job_id: int) -> tuple[Delivery, ...]:
    """Every delivery of the job, by destination."""
    return _deliveries(tx, _D.c.job_id == job_id)


def pending(tx: Transaction, job_id: int, destination: str) -> tuple[Delivery, ...]:
    """What this destination has still to get of the job."""
    return _deliveries(
        tx,
        (_D.c.job_id == job_id) & (_D.c.destination == destination) & (_D.c.state == DeliveryState.PENDING),
    )


def results_of(tx: Transaction, job_id: int) -> tuple[Result, ...]:
    """The recorded objects of the job."""
    query = sa.select(*_result_columns()).where(_R.c.job_id == job_id).order_by(_R.c.id)
    return tuple(Result(**row._mapping) for row in tx.execute(query))  # noqa: SLF001 - SQLAlchemy's public name


def delivered(
    tx: Transaction, delivery: Delivery, *, at: datetime, status: int | None = None, note: str = ""
) -> None:
    """The destination has the object. That is a fact: it is recorded whatever was decided meanwhile."""
    values = {"state": DeliveryState.DELIVERED, "status": status, "note": note, "next_try_at": None}
    tx.execute(_D.update().where(_D.c.id == delivery.id).values(updated_at=at, **values))
    _settle_job(tx, delivery.job_id, at=at)


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
    """Not now: one attempt more on the count; nothing happens where it is no longer pending."""
    _change_pending(
        tx, delivery, attempts=_D.c.attempts + 1, note=note, status=status,
        next_try_at=next_try_at, updated_at=at,
    )  # fmt: skip


def settle(tx: Transaction, job: Job, *, at: datetime) -> Job:
    """Move a delivering job to its end where nothing is pending; returns the job as it is now."""
    open_or_not_delivered = [
        d for d in of_job(tx, job.id) if d.state not in {DeliveryState.DELIVERED, DeliveryState.CANCELLED}
    ]
    if job.state != JobState.DELIVERING or any(
        d.state == DeliveryState.PENDING for d in open_or_not_delivered
    ):
        return job
    problems = "; ".join(
        f"{d.destination} {'refused' if d.state == DeliveryState.REFUSED else 'did not get'} "
        f"{d.result.kind} {d.result.sop_instance_uid}: {d.note}"
        for d in open_or_not_delivered
    )
    if any(d.state == DeliveryState.DEAD for d in open_or_not_delivered):
        return jobs.move(tx, job, JobState.FAILED, at=at, why=problems)
    end, why = JobState.COMPLETED, "every destination has everything it takes"
    if job.rejection is not None:
        end, why = JobState.REJECTED, job.rejection
    return jobs.move(tx, job, end, at=at, why=f"{why}; but {problems}" if problems else why)


def _close(
    tx: Transaction, delivery: Delivery, state: DeliveryState, *, at: datetime, note: str, status: int | None
) -> None:
    _change_pending(tx, delivery, state=state, note=note, status=status, next_try_at=None, updated_at=at)
    _settle_job(tx, delivery.job_id, at=at)


def _change_pending(tx: Transaction, delivery: Delivery, **values: Any) -> None:
    still_pending = (_D.c.id == delivery.id) & (_D.c.state == DeliveryState.PENDING)
    tx.execute(_D.update().where(still_pending).values(**values))


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
        found.append(Delivery(result=result, **values))
    return tuple(found)
