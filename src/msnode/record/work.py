"""What the engine should have for a job, derived from the record alone.

Enqueueing is idempotent by workflow id, so whoever changed a job enqueues `of_job` in the same
transaction, and a reconciler that enqueues `expected` at start repairs whatever is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from msnode.record import deliveries, jobs, schema
from msnode.record.delivery import DeliveryState
from msnode.record.job import BEING_DELIVERED, JobState

if TYPE_CHECKING:
    from datetime import datetime

    from msnode.record.database import Transaction
    from msnode.record.delivery import Delivery
    from msnode.record.job import Job

JOB = "job"
"""Name of the workflow that reads, and of its queue."""
DELIVER = "deliver"
"""Name of the workflow that delivers to one destination; each destination has a queue of its own."""
VERIFY = "verify"
"""Name of the workflow that has one destination confirm what it got; on that destination's queue."""

REPORT = "report"
"""Name of the workflow that answers a peer's commitment request, and of its queue."""

_IN_PROGRESS = BEING_DELIVERED | {JobState.QUEUED, JobState.RUNNING}


def queue_of(destination: str) -> str:
    """Name of a destination's queue: what waits for one holds no other up."""
    return f"deliver-{destination}"


@dataclass(frozen=True)
class Work:
    """One workflow of this name on this queue; `arguments` are ids only."""

    workflow_id: str
    workflow: str
    queue: str
    arguments: tuple[int | str, ...]
    job_id: int
    priority: int
    not_before: datetime | None = None


def delay_s(not_before: datetime | None, now: datetime) -> float:
    """Seconds from `now` until that moment, 0 where it is past or there is none."""
    return max(0.0, (not_before - now).total_seconds()) if not_before else 0.0


def of_job(tx: Transaction, job: Job) -> tuple[Work, ...]:
    """What has to run for the job as it is now: its reading, or for each destination that has not
    everything yet one delivery, and for one that has, but must confirm it, one verification.

    Ids are `job:<id>:<revision>`, `deliver:<id>:<revision>:<destination>:<number>` and
    `verify:<id>:<revision>:<destination>:<number>`, each followed by `:<n>` once the job was queued
    again for the n-th time.
    """  # noqa: D205 - the three cases are the summary
    again = f":{job.requeues}" if job.requeues else ""
    if job.state in {JobState.QUEUED, JobState.RUNNING}:
        workflow_id = f"{JOB}:{job.id}:{job.revision}{again}"
        return (Work(workflow_id, JOB, JOB, (job.id,), job.id, job.priority, job.not_before),)
    if job.state not in BEING_DELIVERED:
        return ()
    groups: dict[str, list[Delivery]] = {}
    for delivery in deliveries.of_job(tx, job.id):
        groups.setdefault(delivery.destination, []).append(delivery)
    works = []
    for destination, group in groups.items():
        pending = [d for d in group if d.state == DeliveryState.PENDING]
        unconfirmed = [d for d in group if d.unconfirmed]
        if not (pending or unconfirmed):
            continue
        workflow = DELIVER if pending else VERIFY
        owed = pending or unconfirmed
        number = 1 + sum(d.attempts + d.verifications for d in group)  # grows with whatever is put off
        moments = [d.next_try_at for d in owed if d.next_try_at is not None]
        works.append(
            Work(
                f"{workflow}:{job.id}:{job.revision}:{destination}:{number}{again}",
                workflow,
                queue_of(destination),
                (job.id, destination),
                job.id,
                job.priority,
                max(moments, default=None),
            )
        )
    return tuple(works)


def expected(tx: Transaction) -> tuple[Work, ...]:
    """What has to run for every job in progress; to be enqueued at start, where a workflow is missing."""
    return tuple(work for job in jobs.in_states(tx, _IN_PROGRESS) for work in of_job(tx, job))


def destinations_owed(tx: Transaction) -> frozenset[str]:
    """Destinations of jobs that are still being delivered, configured or not."""
    d, j = schema.delivery, schema.job
    under_way = j.c.state.in_(BEING_DELIVERED)
    return frozenset(
        tx.execute(sa.select(d.c.destination).distinct().join_from(d, j).where(under_way)).scalars()
    )


def bury(tx: Transaction, workflow_id: str, *, at: datetime, why: str) -> None:
    """The engine gave this workflow up: its job fails, or its deliveries are dead.

    Nothing happens where the job no longer needs that workflow.
    """
    kind, _, rest = workflow_id.partition(":")
    job_id = rest.partition(":")[0]
    if kind not in {JOB, DELIVER, VERIFY} or not job_id.isdigit():
        return
    jobs.lock_job(tx, int(job_id))
    job = jobs.find(tx, int(job_id))
    work = next((w for w in of_job(tx, job) if w.workflow_id == workflow_id), None) if job else None
    if job is None or work is None:
        return
    if work.workflow == JOB:
        jobs.move(tx, job, JobState.FAILED, at=at, why=why)
        return
    destination = str(work.arguments[1])
    for delivery in deliveries.pending(tx, job.id, destination):
        deliveries.gave_up(tx, delivery, at=at, note=why)
    for delivery in deliveries.unconfirmed(tx, job.id, destination):
        deliveries.cannot_confirm(tx, delivery, at=at, note=why)
