"""What an administrator may see of a job and do to it, from any process, while the node runs."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.domain.provenance import PassedOver
from msnode.errors import InvalidTransition
from msnode.record import deliveries, jobs, schema, work
from msnode.record.delivery import Delivery, DeliveryState, Result
from msnode.record.job import BEING_DELIVERED, TRANSITIONS, JobState, Priority
from msnode.record.results import results_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from msnode.record.database import Transaction
    from msnode.record.job import Job


@dataclass(frozen=True)
class Transition:
    """One change of state, at a time in UTC; `before` is None where the job was created."""

    before: JobState | None
    state: JobState
    at: datetime
    reason: str


@dataclass(frozen=True)
class ReceivedSeries:
    """One series of the job's study.

    Attributes:
        instance_count: number of SOP instances that no node made.
        last_at: when the last instance arrived, UTC.
    """

    series_instance_uid: str
    modality: str
    instance_count: int
    last_at: datetime


@dataclass(frozen=True)
class JobDetails:
    """Everything the record holds about one job."""

    job: Job
    series: tuple[ReceivedSeries, ...]
    passed_over: tuple[PassedOver, ...]
    transitions: tuple[Transition, ...]
    results: tuple[Result, ...]
    deliveries: tuple[Delivery, ...]


def show(tx: Transaction, job_id: int) -> JobDetails | None:
    """The job with everything that belongs to it; None where there is no such job."""
    job = jobs.find(tx, job_id)
    if job is None:
        return None
    reasons = schema.selection_reason
    steps = schema.transition
    return JobDetails(
        job=job,
        series=_series(tx, job.study_instance_uid),
        passed_over=tuple(
            PassedOver(row.series_instance_uid, row.reason)
            for row in tx.execute(
                sa.select(reasons).where(reasons.c.job_id == job_id).order_by(reasons.c.series_instance_uid)
            )
        ),
        transitions=tuple(
            Transition(
                JobState(row.state_before) if row.state_before else None,
                JobState(row.state),
                row.at,
                row.reason,
            )
            for row in tx.execute(sa.select(steps).where(steps.c.job_id == job_id).order_by(steps.c.id))
        ),
        results=results_of(tx, job_id),
        deliveries=deliveries.of_job(tx, job_id),
    )


def _series(tx: Transaction, study_instance_uid: str) -> tuple[ReceivedSeries, ...]:
    s, i = schema.series, schema.instance
    query = (
        sa.select(s.c.series_instance_uid, s.c.modality, sa.func.count(i.c.id).label("n"), s.c.last_at)
        .join_from(s, schema.study)
        .join(i, i.c.series_key == s.c.id)
        .where(schema.study.c.study_instance_uid == study_instance_uid)
        .where(i.c.superseded.is_(False), i.c.own.is_(False))
        .group_by(s.c.id, s.c.series_instance_uid, s.c.modality, s.c.last_at)
        .order_by(s.c.id)
    )
    return tuple(
        ReceivedSeries(r.series_instance_uid, r.modality, int(r.n), r.last_at) for r in tx.execute(query)
    )


def retry(
    tx: Transaction, job_id: int, *, at: datetime, routed: Mapping[str, Any] = MappingProxyType({})
) -> Job:
    """Retry the job; the caller enqueues `work.of_job` of it in the same transaction.

    A study that an interrupted association left incomplete is read as it is, also where its routing rule
    would not read it. A job that failed, was cancelled or passed over is read again, unless it has results.
    Results are never made again: deliveries that were refused, dead or cancelled are sent again, also of a
    completed job.

    Args:
        tx: the caller's transaction.
        job_id: key of the job.
        at: UTC.
        routed: what routing decided for a study that is still being received: columns of the job.

    Returns:
        The job as it is now.

    Raises:
        InvalidTransition: there is no such job, it is in progress, or there is nothing to retry.
    """
    job = _existing(tx, job_id)
    why = "by administrator"
    if job.state == JobState.RECEIVING:
        return jobs.move(tx, job, JobState.QUEUED, at=at, why=why, **routed)
    if job.state in BEING_DELIVERED | {JobState.QUEUED, JobState.RUNNING}:
        raise InvalidTransition(f"job {job.id} is {job.state}: wait until it ends, or cancel it first")
    again = {"attempts": 0, "interruptions": 0, "not_before": None, "requeues": job.requeues + 1}
    if results_of(tx, job.id):
        if not _reopen(tx, job.id, at=at) and job.state not in {JobState.FAILED, JobState.CANCELLED}:
            raise InvalidTransition(
                f"job {job.id} is {job.state} and every destination has its objects: nothing to retry"
            )
        job = jobs.move(tx, job, JobState.DELIVERING, at=at, why=why, **again)
        return deliveries.settle(tx, job, at=at)
    if JobState.QUEUED not in TRANSITIONS[job.state]:
        raise InvalidTransition(f"job {job.id} is {job.state}, which is final")
    return jobs.move(tx, job, JobState.QUEUED, at=at, why=why, **again)


def hurry(tx: Transaction, job_id: int, *, at: datetime) -> tuple[Job, tuple[work.Work, ...]]:
    """Give the job the highest priority; the caller enqueues `work.of_job` of it in the same transaction.

    Returns:
        The job, and its workflows of the former priority, which the caller cancels.

    Raises:
        InvalidTransition: there is no such job, or it does not wait any more.
    """
    job = _existing(tx, job_id)
    if job.state == JobState.RECEIVING:
        change = schema.job.update().where(schema.job.c.id == job_id)
        tx.execute(change.values(priority=Priority.STAT))
        return job.evolve(priority=Priority.STAT), ()
    if job.state != JobState.QUEUED:
        raise InvalidTransition(f"job {job.id} is {job.state}: only a waiting job can be hurried")
    works = work.of_job(tx, job)
    why = "priority raised by administrator"
    return jobs.requeue(tx, job, at=at, why=why, priority=Priority.STAT), works


def cancel(tx: Transaction, job_id: int, *, at: datetime) -> tuple[work.Work, ...]:
    """End the job and its pending deliveries; what was delivered stays delivered.

    Returns:
        Its workflows, which the caller cancels after the commit. A reading that is running goes on to its
        end, and its result is then refused.

    Raises:
        InvalidTransition: there is no such job, or it has ended.
    """
    job = _existing(tx, job_id)
    works = work.of_job(tx, job)
    jobs.move(tx, job, JobState.CANCELLED, at=at, why="by administrator")
    still_pending = (schema.delivery.c.job_id == job_id) & (schema.delivery.c.state == DeliveryState.PENDING)
    tx.execute(
        schema.delivery.update()
        .where(still_pending)
        .values(state=DeliveryState.CANCELLED, next_try_at=None, updated_at=at)
    )
    return works


def _existing(tx: Transaction, job_id: int) -> Job:
    job = jobs.find(tx, job_id)
    if job is None:
        raise InvalidTransition(f"there is no job {job_id}")
    return job


def _reopen(tx: Transaction, job_id: int, *, at: datetime) -> int:
    """Make every delivery that did not arrive pending again; returns their number."""
    not_arrived = (schema.delivery.c.job_id == job_id) & schema.delivery.c.state.in_(
        [DeliveryState.REFUSED, DeliveryState.DEAD, DeliveryState.CANCELLED]
    )
    change = schema.delivery.update().where(not_arrived)
    return tx.execute(
        change.values(state=DeliveryState.PENDING, attempts=0, answers=0, next_try_at=None, updated_at=at)
    ).rowcount
