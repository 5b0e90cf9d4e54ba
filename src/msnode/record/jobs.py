"""One job is one reading of a study: its states, and every change of state in one transaction.

    receiving ─ queued ─ running ─ delivering ─ delivered ─ completed | rejected
                                 └ passed_over | unchanged
    failed and cancelled are reached from any state that is not an end, and left by an administrator.

`Job` is a snapshot. A change names the snapshot it was decided on and is refused where the row has
moved on since, so a worker that lost its lock, or a job cancelled meanwhile, cannot be overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.errors import InvalidTransition
from msnode.record import schema
from msnode.record.database import insert, lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from msnode.domain.imaging import PassedOver
    from msnode.record.database import Transaction


class Priority(IntEnum):
    """What is read and delivered first: the lower number."""

    STAT = 1
    ROUTINE = 5


class JobState(StrEnum):
    """Where a job stands."""

    RECEIVING = "receiving"
    """Instances are coming in; held here too where an association was cut off."""
    QUEUED = "queued"
    """Complete; waits for a worker."""
    RUNNING = "running"
    DELIVERING = "delivering"
    """The result set is written and waits to reach every destination."""
    DELIVERED = "delivered"
    """Every destination has it; one that confirms safekeeping has not yet done so."""
    COMPLETED = "completed"
    REJECTED = "rejected"
    """Could not be read; a report that says why was delivered."""
    PASSED_OVER = "passed_over"
    """The study held nothing to read; recorded, not reported."""
    UNCHANGED = "unchanged"
    """A revision that selects the very instances that the reading before it used."""
    FAILED = "failed"
    """Needs a person."""
    CANCELLED = "cancelled"


_S = JobState
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    _S.RECEIVING: frozenset({_S.QUEUED, _S.PASSED_OVER, _S.FAILED, _S.CANCELLED}),
    # queued → queued: under another priority
    _S.QUEUED: frozenset({_S.QUEUED, _S.RUNNING, _S.FAILED, _S.CANCELLED}),
    # running → running: taken up again after its worker died; running → queued: tried again later
    # delivered → delivering: a destination lost what it had, and is sent it again
    _S.RUNNING: frozenset({
        _S.RUNNING, _S.QUEUED, _S.DELIVERING, _S.PASSED_OVER, _S.UNCHANGED, _S.FAILED, _S.CANCELLED,
    }),
    _S.DELIVERING: frozenset({_S.DELIVERED, _S.COMPLETED, _S.REJECTED, _S.FAILED, _S.CANCELLED}),
    _S.DELIVERED: frozenset({_S.DELIVERING, _S.COMPLETED, _S.REJECTED, _S.FAILED, _S.CANCELLED}),
    # back to delivering: an administrator has what was refused sent again
    _S.COMPLETED: frozenset({_S.DELIVERING}),
    _S.REJECTED: frozenset({_S.DELIVERING}),
    _S.PASSED_OVER: frozenset({_S.QUEUED}),
    _S.UNCHANGED: frozenset(),
    _S.FAILED: frozenset({_S.QUEUED, _S.DELIVERING}),
    _S.CANCELLED: frozenset({_S.QUEUED, _S.DELIVERING}),
}  # fmt: skip


BEING_DELIVERED = frozenset({JobState.DELIVERING, JobState.DELIVERED})
"""Read, and not yet everywhere for sure."""


@dataclass(frozen=True)
class Job:
    """One row of the job table.

    Attributes:
        revision: 0 for the first reading of a study.
        reason: why it is in this state, for people.
        rejection: why the study could not be read, from the moment that is known; it decides that the
            job ends `rejected` and not `completed`.
        started_at: the recorded start: set once, kept over every retry, source of every date in the
            results.
        attempts: times a worker took it up since it was queued for the first time or by an
            administrator; a reading that was cut off and taken up again counts once.
        requeues: times it was queued again; part of its workflow ids.
        interruptions: times it was taken up again because the process that ran it had ended.
        priority: see `Priority`.
        rule: name of the routing rule that decided; None where none matched.
        asked_for: the rule asked for a reading, so that silence is no answer.
        bundle: what reads it, preset: how much of that reads, destinations: names of those that get the
            results; None is as the settings say.
        not_before: it waits until this moment, UTC, before it is taken up.
        series_instance_uid: the series that was read.
        selection_digest: SHA-256 over the selected instances.
        result_set: key of its set in the store.
        timings_s: seconds per stage.
    """

    id: int
    study_instance_uid: str
    revision: int
    state: JobState
    reason: str
    state_since: datetime
    created_at: datetime
    rejection: str | None = None
    started_at: datetime | None = None
    attempts: int = 0
    requeues: int = 0
    interruptions: int = 0
    priority: int = Priority.ROUTINE
    rule: str | None = None
    asked_for: bool | None = None
    bundle: str | None = None
    preset: str | None = None
    destinations: tuple[str, ...] | None = None
    not_before: datetime | None = None
    series_instance_uid: str | None = None
    selection_digest: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    model_sha256: str | None = None
    msnode_version: str | None = None
    runtime: str | None = None
    settings_digest: str | None = None
    result_set: str | None = None
    lesion_count: int | None = None
    lesion_volume_mm3: float | None = None
    timings_s: Mapping[str, float] | None = None

    def evolve(self, **changes: Any) -> Job:
        """A copy with `changes`."""
        return replace(self, **changes)


_COLUMNS = [schema.job.c[f.name] for f in fields(Job) if f.name != "study_instance_uid"]
_SELECT = sa.select(schema.study.c.study_instance_uid, *_COLUMNS).join_from(schema.job, schema.study)
_OWNED_BY_MOVE = frozenset({"id", "study_instance_uid", "revision", "state", "reason", "state_since"})


def create(tx: Transaction, study_key: int, revision: int, *, at: datetime, why: str) -> None:
    """A new job of the study, in `receiving`."""
    job_id = insert(
        tx, schema.job, study_key=study_key, revision=revision, state=JobState.RECEIVING, reason=why,
        state_since=at, created_at=at, attempts=0, requeues=0, timings_s={},
    )  # fmt: skip
    _note(tx, job_id, None, JobState.RECEIVING, at=at, why=why)


def hold(tx: Transaction, job_id: int) -> None:
    """Nobody else who holds the job changes what belongs to it until this transaction ends."""
    lock(tx, f"job {job_id}")


def find(tx: Transaction, job_id: int) -> Job | None:
    """The job, or None where there is no such job."""
    rows = _jobs(tx, _SELECT.where(schema.job.c.id == job_id))
    return rows[0] if rows else None


def recent(tx: Transaction, *, state: JobState | None = None, limit: int = 50) -> tuple[Job, ...]:
    """The newest jobs first, all of them or those in one state."""
    query = _SELECT.order_by(schema.job.c.id.desc()).limit(limit)
    return _jobs(tx, query if state is None else query.where(schema.job.c.state == state))


def in_states(
    tx: Transaction,
    states: Iterable[JobState],
    *,
    created_before: datetime | None = None,
    limit: int | None = None,
) -> tuple[Job, ...]:
    """The jobs in one of `states`, oldest first."""
    query = _SELECT.where(schema.job.c.state.in_(list(states)))
    if created_before is not None:
        query = query.where(schema.job.c.created_at < created_before)
    return _jobs(tx, query.order_by(schema.job.c.id).limit(limit))


def former(tx: Transaction, job: Job) -> Job | None:
    """The latest earlier revision of the same study that gave results, if any."""
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
    # Newest first: whoever locks several jobs of a study does so in one order.
    return _jobs(
        tx, query.where(schema.job.c.revision < job.revision, under_way).order_by(schema.job.c.id.desc())
    )


def awaits_former(tx: Transaction, job: Job) -> bool:
    """Whether an earlier revision of the same study is still to be read: revisions are read in order."""
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
        why: reason of the new state.
        facts: further columns of the job to set, by name.

    Returns:
        The job as it is now.

    Raises:
        InvalidTransition: the state does not lead to `to`, or the row is no longer what `job` says.
    """
    if to not in TRANSITIONS[job.state]:
        raise InvalidTransition(f"job {job.id} is {job.state}, which does not lead to {to}")
    if not _OWNED_BY_MOVE.isdisjoint(facts):
        raise InvalidTransition(f"job {job.id}: {sorted(_OWNED_BY_MOVE & facts.keys())} are not facts")
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
            f"job {job.id} is no longer {job.state} in attempt {job.attempts}: somebody else moved it"
        )
    _note(tx, job.id, job.state, to, at=at, why=why)
    return moved


def explain(tx: Transaction, job: Job, why: str) -> None:
    """Say why a job stays in its state; nothing where it has moved on since."""
    unchanged = (schema.job.c.id == job.id) & (schema.job.c.state == job.state)
    tx.execute(schema.job.update().where(unchanged).values(reason=why))


def start(tx: Transaction, job_id: int, *, at: datetime, **facts: Any) -> Job | None:
    """Take the job up: `running`, the recorded start set where there is none yet.

    From the queue it is one attempt more; where the process that ran it has ended, one interruption more.

    Returns:
        The job, or None where there is nothing to run: it was cancelled, or an earlier run of the same
        workflow finished it and died before saying so.
    """
    job = find(tx, job_id)
    if job is None or job.state not in {JobState.QUEUED, JobState.RUNNING}:
        return None
    again = job.state == JobState.RUNNING
    return move(
        tx, job, JobState.RUNNING, at=at,
        why="taken up again after its worker ended" if again else "taken up by a worker",
        attempts=job.attempts + (not again), interruptions=job.interruptions + again,
        started_at=job.started_at or at, not_before=None, **facts,
    )  # fmt: skip


def interrupt(tx: Transaction, job: Job, *, at: datetime, why: str) -> Job:
    """Note that the reading of a running job was ended from outside; the caller queues it again or fails it.

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
    """Back to `queued` for another attempt, under a new workflow id.

    Args:
        tx: the caller's transaction.
        job: a running job, or a queued one that is to wait longer or has another priority.
        at: UTC.
        why: for people.
        counted: False where the attempt that ends here was not the job's own failure.
        delay_s: it waits so long before it is taken up again.
        priority: its new one, where that changes.

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
    """Record which series is read and why each other was not; replaces what an earlier attempt noted."""
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


def _note(
    tx: Transaction, job_id: int, before: JobState | None, to: JobState, *, at: datetime, why: str
) -> None:
    insert(tx, schema.transition, job_id=job_id, state_before=before, state=to, at=at, reason=why)
