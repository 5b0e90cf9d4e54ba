"""The state of the node in a few numbers and sentences, for people and monitoring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from msnode.record import jobs, schema
from msnode.record.delivery import DeliveryState
from msnode.record.job import BEING_DELIVERED, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from msnode.record.database import Transaction
    from msnode.record.job import Job

_WAITING = (JobState.QUEUED, JobState.RUNNING)
_SHOWN = 100


@dataclass(frozen=True)
class Overview:
    """Counts and alarms.

    Attributes:
        jobs: state → number of jobs; states without a job are missing.
        oldest_waiting_s: age of the oldest queued or running job in seconds; None where there is none.
        alarms: one sentence for each problem that needs a person; at most 100 of each kind.
    """

    jobs: Mapping[str, int]
    oldest_waiting_s: float | None
    alarms: tuple[str, ...]


def overview(
    tx: Transaction, *, now: datetime, alarm_after_s: float, set_aside: Sequence[str] = ()
) -> Overview:
    """The state of the node.

    Args:
        tx: the caller's transaction.
        now: UTC.
        alarm_after_s: seconds after which a waiting job, or a pending delivery, is an alarm.
        set_aside: digests of the stored bytes that were set aside.
    """
    j = schema.job
    counts = tx.execute(sa.select(j.c.state, sa.func.count()).group_by(j.c.state).order_by(j.c.state))
    oldest = tx.execute(sa.select(sa.func.min(j.c.created_at)).where(j.c.state.in_(_WAITING))).scalar()
    return Overview(
        jobs={str(state): int(count) for state, count in counts},
        oldest_waiting_s=None if oldest is None else (now - oldest).total_seconds(),
        alarms=(
            *_waiting_alarms(tx, now, alarm_after_s),
            *_undelivered_alarms(tx, now, alarm_after_s),
            *_failed_alarms(tx),
            *_dead_alarms(tx),
            *(f"stored bytes were set aside: store/quarantine/{each}.dcm" for each in set_aside[:_SHOWN]),
        ),
    )


def overdue(tx: Transaction, *, now: datetime, alarm_after_s: float) -> tuple[Job, ...]:
    """Jobs that have waited to be read for longer than so many seconds; oldest first, at most 100."""
    waiting = jobs.in_states(
        tx, _WAITING, created_before=now - timedelta(seconds=alarm_after_s), limit=_SHOWN
    )
    return tuple(waiting)


def _waiting_alarms(tx: Transaction, now: datetime, alarm_after_s: float) -> list[str]:
    late = overdue(tx, now=now, alarm_after_s=alarm_after_s)
    minutes = [(now - job.created_at).total_seconds() / 60 for job in late]
    return [
        f"job {job.id} has waited {waited:.0f} min to be read: {job.reason}"
        for job, waited in zip(late, minutes, strict=True)
    ]


def _undelivered_alarms(tx: Transaction, now: datetime, alarm_after_s: float) -> list[str]:
    """Destinations with objects that have been pending for too long."""
    d, j = schema.delivery, schema.job
    query = (
        sa.select(d.c.destination, sa.func.count(j.c.id.distinct()), sa.func.min(j.c.state_since))
        .join_from(d, j)
        .where(d.c.state == DeliveryState.PENDING, j.c.state == JobState.DELIVERING)
        .where(j.c.state_since < now - timedelta(seconds=alarm_after_s))
        .group_by(d.c.destination)
        .order_by(d.c.destination)
    )
    found = [(name, count, (now - since).total_seconds() / 60) for name, count, since in tx.execute(query)]
    return [
        f"jobs waiting to be delivered to {name}: {count}, the oldest for {minutes:.0f} min"
        for name, count, minutes in found
    ]


def _failed_alarms(tx: Transaction) -> list[str]:
    failed = jobs.recent(tx, state=JobState.FAILED, limit=_SHOWN)
    return [f"job {job.id} failed: {job.reason}" for job in failed]


def _dead_alarms(tx: Transaction) -> list[str]:
    """Dead deliveries of jobs that are still being delivered to another destination."""
    d, j = schema.delivery, schema.job
    query = (
        sa.select(d.c.job_id, d.c.destination, sa.func.count())
        .join_from(d, j)
        .where(d.c.state == DeliveryState.DEAD, j.c.state.in_(BEING_DELIVERED))
        .group_by(d.c.job_id, d.c.destination)
        .order_by(d.c.job_id)
        .limit(_SHOWN)
    )
    return [f"job {job}: {name} did not get {count} objects" for job, name, count in tx.execute(query)]
