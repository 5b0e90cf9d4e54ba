"""Jobs in the record: finding them, and changing their state.

Every change of state is recorded as a transition in the same transaction. A change names the snapshot that it
was decided on, and is refused where the row has changed since. A worker that lost its lock therefore cannot
overwrite a job, nor can one whose job was cancelled meanwhile.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.errors import InvalidTransition
from msnode.record import schema
from msnode.record.database import insert, lock
from msnode.record.job import BEING_DELIVERED, TRANSITIONS, Job, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from msnode.domain.provenance import PassedOver
    from msnode.record.database import Transaction
    from msnode.record.job import Priority

_COLUMNS = [schema.job.c[f.name] for f in fields(Job) if f.name != "study_instance_uid"]
_SELECT = sa.select(schema.study.c.study_instance_uid, *_COLUMNS).join_from(schema.job, schema.study)
_OWNED_BY_MOVE = frozenset({"id", "study_instance_uid", "revision", "state", "reason", "state_since"})


def create(tx: Transaction, study_key: int, revision: int, *, at: datetime, why: str) -> None:
    """Create a job of the study, in state `receiving`.

    Args:
        tx: the caller's transaction.
        study_key: key of the study's row.
        revision: 0 for the first job of the study.
        at: UTC.
        why: reason of its state.
    """
    job_id = insert(
        tx, schema.job, study_key=study_key, revision=revision, state=JobState.RECEIVING, reason=why,
        state_since=at, created_at=at, attempts=0, requeues=0, timings_s={},
    )  # fmt: skip
    _record_transition(tx, job_id, None, JobState.RECEIVING, at=at, why=why)


def lock_job(tx: Transaction, job_id: int) -> None:
    """Lock the job's deliveries and state until this transaction ends; see `database.lock`."""
    lock(tx, f"job {job_id}")


def find(tx: Transaction, job_id: int) -> Job | None:
    """The job, or None where there is no such job."""
    rows = _jobs(tx, _SELECT.where(schema.job.c.id == job_id))
    return rows[0] if rows else None


def recent(tx: Transaction, *, state: JobState | None = None, limit: int = 50) -> tuple[Job, ...]:
    """Jobs in one state, or in any; the newest first, at most `limit`."""
    query = _SELECT.order_by(schema.job.c.id.desc()).limit(limit)
    return _jobs(tx, query if state is None else query.where(schema.job.c.state == state))


def in_states(
    tx: Transaction,
    states: Iterable[JobState],
    *,
    created_before: datetime | None = None,
    limit: int | None = None,
) -> tuple[Job, ...]:
    """Jobs in one of `states`, oldest first; created before a time (UTC) and at most `limit`, where given."""
    query = _SELECT.where(schema.job.c.state.in_(list(states)))
    if created_before is not None:
        query = query.where(schema.job.c.created_at < created_before)
    return _jobs(tx, query.order_by(schema.job.c.id).limit(limit))


def former(tx: Transaction, job: Job) -> Job | None:
    """The latest earlier revision of the same study that has a result set; None where there is none."""
    query = (
        _SELECT.where(schema.study.c.study_instance_uid == job.study_instance_uid)
        .where(schema.job.c.revision < job.revision, schema.job.c.result_set.is_not(None))
        .order_by(schema.job.c.revision.desc())
        .limit(1)
    )
    rows = _jobs(tx, query)
    return rows[0] if rows else None


def replaced_by(tx: Transaction, job: Job) -> tuple[Job, ...]:
    """Earlier revisions of the same study that are still being delivered."""
    query = _SELECT.where(schema.study.c.study_instance_uid == job.study_instance_uid)
    under_way = schema.job.c.state.in_(BEING_DELIVERED)
    # Newest first: transactions that lock several jobs of a study must do so in one order.
    return _jobs(
        tx, query.where(schema.job.c.revision < job.revision, under_way).order_by(schema.job.c.id.desc())
    )


def awaits_former(tx: Transaction, job: Job) -> bool:
    """Whether an earlier revision of the same study is not read yet; revisions are read in order."""
    query = (
        sa.select(schema.job.c.id)
        .join_from(schema.job, schema.study)
        .where(schema.study.c.study_instance_uid == job.study_instance_uid)
        .where(schema.job.c.revision < job.revision)
        .where(schema.job.c.state.in_([JobState.QUEUED, JobState.RUNNING]))
    )
    return tx.execute(query.limit(1)).first() is not None


def move(tx: Transaction, job: Job, to: JobState, *, at: datetime, why: str, **facts: Any) -> Job:
    """Change the job's state and record the transition.

    Args:
        tx: the caller's transaction.
        job: the snapshot on which this was decided.
        to: the new state.
        at: UTC.
        why: reason of the new state, for people.
        facts: other columns of the job to set, by name.

    Returns:
        The job as it is now.

    Raises:
        InvalidTransition: `to` may not follow the state, or the row is no longer what `job` says.
    """
    if to not in TRANSITIONS[job.state]:
        raise InvalidTransition(f"job {job.id} is {job.state} and cannot become {to}")
    if not _OWNED_BY_MOVE.isdisjoint(facts):
        columns = ", ".join(sorted(_OWNED_BY_MOVE & facts.keys()))
        raise InvalidTransition(f"job {job.id}: a transition may not set {columns}")
    moved = job.evolve(state=to, reason=why, state_since=at, **facts)
    unchanged = (
        (schema.job.c.id == job.id)
        & (schema.job.c.state == job.state)
        & (schema.job.c.attempts == job.attempts)
        & (schema.job.c.requeues == job.requeues)
        & (schema.job.c.interruptions == job.interruptions)
    )
    change = schema.job.update().where(unchanged).values(state=to, reason=why, state_since=at, **facts)
    if tx.execute(change).rowcount != 1:
        raise InvalidTransition(
            f"job {job.id} is no longer {job.state} in attempt {job.attempts}: another process changed it"
        )
    _record_transition(tx, job.id, job.state, to, at=at, why=why)
    return moved


def explain(tx: Transaction, job: Job, why: str) -> None:
    """Record why a job stays in its state; does nothing where its state has changed since."""
    unchanged = (schema.job.c.id == job.id) & (schema.job.c.state == job.state)
    tx.execute(schema.job.update().where(unchanged).values(reason=why))


def start(tx: Transaction, job_id: int, *, at: datetime, **facts: Any) -> Job | None:
    """Start the job: it becomes `running`, and `started_at` is set where it is not set yet.

    A start from the queue counts as an attempt. A start after the process that ran it ended counts as an
    interruption.

    Args:
        tx: the caller's transaction.
        job_id: key of the job.
        at: UTC.
        facts: other columns of the job to set, by name.

    Returns:
        The job, or None where there is nothing to run: it was cancelled, or an earlier run of the same
        workflow finished it and its process died afterwards.
    """
    job = find(tx, job_id)
    if job is None or job.state not in {JobState.QUEUED, JobState.RUNNING}:
        return None
    again = job.state == JobState.RUNNING
    return move(
        tx, job, JobState.RUNNING, at=at,
        why="started again after its worker ended" if again else "started by a worker",
        attempts=job.attempts + (not again), interruptions=job.interruptions + again,
        started_at=job.started_at or at, not_before=None, **facts,
    )  # fmt: skip


def interrupt(tx: Transaction, job: Job, *, at: datetime, why: str) -> Job:
    """Record that something outside ended the reading; the caller then queues the job again or fails it.

    Raises:
        InvalidTransition: see `move`.
    """
    return move(tx, job, JobState.RUNNING, at=at, why=why, interruptions=job.interruptions + 1)


def requeue(
    tx: Transaction,
    job: Job,
    *,
    at: datetime,
    why: str,
    counted: bool = True,
    delay_s: float = 0,
    priority: Priority | None = None,
) -> Job:
    """Queue the job again, under a new workflow id.

    Args:
        tx: the caller's transaction.
        job: a running job that is to be retried, or a queued job that gets a delay or another priority.
        at: UTC.
        why: reason of the new state, for people.
        counted: False where the attempt that ends here failed for a reason outside the job.
        delay_s: seconds until a worker may start it.
        priority: its new priority; None keeps the present one.

    Raises:
        InvalidTransition: see `move`.
    """
    return move(
        tx, job, JobState.QUEUED, at=at, why=why, requeues=job.requeues + 1,
        attempts=job.attempts if counted else max(0, job.attempts - 1),
        not_before=at + timedelta(seconds=delay_s) if delay_s else None,
        priority=job.priority if priority is None else priority,
    )  # fmt: skip


def note_selection(
    tx: Transaction, job: Job, series_instance_uid: str | None, passed_over: Iterable[PassedOver]
) -> None:
    """Record the series that is read, and why each other series was passed over.

    Replaces what an earlier attempt recorded.
    """
    tx.execute(schema.selection_reason.delete().where(schema.selection_reason.c.job_id == job.id))
    for series in passed_over:
        tx.execute(
            schema.selection_reason.insert().values(
                job_id=job.id, series_instance_uid=series.series_instance_uid, reason=series.reason
            )
        )
    tx.execute(
        schema.job.update().where(schema.job.c.id == job.id).values(series_instance_uid=series_instance_uid)
    )


def _jobs(tx: Transaction, query: sa.Select[Any]) -> tuple[Job, ...]:
    found = []
    for row in tx.execute(query):
        values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
        values["state"] = JobState(row.state)
        values["destinations"] = None if row.destinations is None else tuple(row.destinations)
        found.append(Job(**values))
    return tuple(found)


def _record_transition(
    tx: Transaction, job_id: int, before: JobState | None, to: JobState, *, at: datetime, why: str
) -> None:
    insert(tx, schema.transition, job_id=job_id, state_before=before, state=to, at=at, reason=why)
