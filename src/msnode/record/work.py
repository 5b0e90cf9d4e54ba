"""The workflows that a job needs next, derived from the record alone.

Enqueueing is idempotent by workflow id. A transaction that changes a job therefore enqueues `of_job` of it,
and a process that starts enqueues `expected`, which restores whatever is missing.
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
"""Name of the workflow that reads a study, and of its queue."""
DELIVER = "deliver"
"""Name of the workflow that delivers to one destination; each destination has a queue of its own."""
VERIFY = "verify"
"""Name of the workflow that has one destination confirm what it received; on that destination's queue."""
REPORT = "report"
"""Name of the workflow that answers a peer's storage commitment request, and of its queue."""

_IN_PROGRESS = BEING_DELIVERED | {JobState.QUEUED, JobState.RUNNING}


def queue_of(destination: str) -> str:
    """Name of a destination's queue; with a queue each, no destination delays another."""
    return f"deliver-{destination}"


@dataclass(frozen=True)
class Work:
    """One workflow to enqueue; see `WorkflowClient.enqueue`.

    Attributes:
        workflow: name of the workflow.
        arguments: ids only.
        not_before: earliest time at which it may run, UTC; None for now.
    """

    workflow_id: str
    workflow: str
    queue: str
    arguments: tuple[int | str, ...]
    job_id: int
    priority: int
    not_before: datetime | None = None


def delay_s(not_before: datetime | None, now: datetime) -> float:
    """Seconds from `now` until that time; 0 where it has passed, or is None."""
    return max(0.0, (not_before - now).total_seconds()) if not_before else 0.0


def of_job(tx: Transaction, job: Job) -> tuple[Work, ...]:
    """The workflows that the job needs in its present state.

    A queued or running job needs its reading. A job that is being delivered needs one workflow for each
    destination: a delivery while objects are pending, then a verification while objects are unconfirmed.

    Ids are `job:<id>:<revision>`, `deliver:<id>:<revision>:<destination>:<number>` and
    `verify:<id>:<revision>:<destination>:<number>`, each followed by `:<n>` once the job was queued again for
    the n-th time.
    """
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
        number = 1 + sum(d.attempts + d.verifications for d in group)  # grows with every postponement
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
    """The workflows that all jobs in progress need."""
    return tuple(work for job in jobs.in_states(tx, _IN_PROGRESS) for work in of_job(tx, job))


def destinations_owed(tx: Transaction) -> frozenset[str]:
    """Destinations of jobs that are being delivered, configured or not."""
    d, j = schema.delivery, schema.job
    under_way = j.c.state.in_(BEING_DELIVERED)
    return frozenset(
        tx.execute(sa.select(d.c.destination).distinct().join_from(d, j).where(under_way)).scalars()
    )


def fail_dead_workflow(tx: Transaction, workflow_id: str, *, at: datetime, why: str) -> None:
    """Record that a workflow is dead: a job fails, a delivery is dead, or a verification is given up.

    Does nothing where the job does not need that workflow any more.

    Args:
        tx: the caller's transaction.
        workflow_id: see `of_job`; other ids are ignored.
        at: UTC.
        why: reason, for people.
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
