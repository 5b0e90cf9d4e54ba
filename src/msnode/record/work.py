"""What the engine should have for a job, derived from the record alone.

Enqueueing is idempotent by workflow id, so whoever changed a job enqueues `of_job` in the same
transaction, and a reconciler that enqueues `expected` at start repairs whatever is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msnode.record import deliveries, jobs
from msnode.record.deliveries import DeliveryState
from msnode.record.jobs import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from msnode.record.database import Transaction
    from msnode.record.jobs import Job

JOB = "job"
"""Name of the workflow that reads, and of its queue."""
DELIVER = "deliver"
"""Name of the workflow that delivers to one destination, and of its queue."""

_IN_PROGRESS = (JobState.QUEUED, JobState.RUNNING, JobState.DELIVERING)


@dataclass(frozen=True)
class Work:
    """One workflow: `workflow` names it and its queue; `arguments` are ids only."""

    workflow_id: str
    workflow: str
    arguments: tuple[int | str, ...]
    job_id: int
    not_before: datetime | None = None

    def delay_s(self, now: datetime) -> float:
        """Seconds from `now` until it may run, 0 where it may at once."""
        return max(0.0, (self.not_before - now).total_seconds()) if self.not_before else 0.0


def of_job(tx: Transaction, job: Job) -> tuple[Work, ...]:
    """What has to run for the job as it is now: its reading, or one delivery for each destination that waits.

    Ids are `job:<id>:<revision>` and `deliver:<id>:<revision>:<destination>:<attempt>`, each followed
    by `:<n>` once the job was queued again for the n-th time.
    """
    again = f":{job.requeues}" if job.requeues else ""
    if job.state in {JobState.QUEUED, JobState.RUNNING}:
        return (Work(f"job:{job.id}:{job.revision}{again}", JOB, (job.id,), job.id),)
    if job.state != JobState.DELIVERING:
        return ()
    waiting: dict[str, list[deliveries.Delivery]] = {}
    for delivery in deliveries.of_job(tx, job.id):
        if delivery.state == DeliveryState.PENDING:
            waiting.setdefault(delivery.destination, []).append(delivery)
    works = []
    for destination, group in waiting.items():
        attempt = max(d.attempts for d in group) + 1
        moments = [d.next_try_at for d in group if d.next_try_at is not None]
        works.append(
            Work(
                f"deliver:{job.id}:{job.revision}:{destination}:{attempt}{again}",
                DELIVER,
                (job.id, destination),
                job.id,
                max(moments, default=None),
            )
        )
    return tuple(works)


def expected(tx: Transaction) -> tuple[Work, ...]:
    """What has to run for every job in progress; to be enqueued at start, where a workflow is missing."""
    return tuple(work for job in jobs.in_states(tx, _IN_PROGRESS) for work in of_job(tx, job))


def bury(tx: Transaction, work: Work, *, at: datetime, why: str) -> None:
    """The engine gave this workflow up: its job fails, or its deliveries are dead.

    Nothing happens where the job has moved on since `work` was derived.
    """
    job = jobs.find(tx, work.job_id)
    if job is None or work.workflow_id not in {w.workflow_id for w in of_job(tx, job)}:
        return
    if work.workflow == JOB:
        jobs.move(tx, job, JobState.FAILED, at=at, why=why)
        return
    for delivery in deliveries.pending(tx, job.id, str(work.arguments[1])):
        deliveries.gave_up(tx, delivery, at=at, note=why)
