"""Reads queued jobs, one at a time, in a child process; an error's class decides what becomes of its job.

A reading that ends by itself counts as an attempt, and the job is tried again a limited number of times. One
that is ended from outside (a restart, a power cut, a SIGKILL) is counted apart and generously: that says
little about the input. It may still be the input's doing, so such a job lets the others go first from time
to time, and fails in the end.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from msnode import crash_points
from msnode.errors import (
    ConfigurationError,
    InvalidTransition,
    MsnodeError,
    OutOfResources,
    ProcessKilled,
    StoredBytesChanged,
    Transient,
)
from msnode.reading.summary import ReadingStatus
from msnode.record import audit, jobs
from msnode.record.job import JobState
from msnode.record.results import finish_reading, withdraw_former
from msnode.record.studies import destinations_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from msnode.reading.summary import ReadingSummary
    from msnode.record.database import Database, Transaction
    from msnode.record.delivery import Recipient
    from msnode.record.job import Job
    from msnode.services.inference_child import InferenceChild

    EnqueueWork = Callable[[Transaction, Job], None]

log = structlog.get_logger()

_MAX_INTERRUPTIONS = 30
_STEP_ASIDE_AFTER = 3
_STEP_ASIDE_S = 20.0
_NO_ROOM_S = 30.0
_FORMER_S = 5.0
_WITHOUT_RESULTS = {
    ReadingStatus.PASSED_OVER: JobState.PASSED_OVER,
    ReadingStatus.UNCHANGED: JobState.UNCHANGED,
}


class Worker:
    """Runs the workflow `job`: a queued job to its result set and deliveries, or to its end.

    Args:
        database: the record.
        child: what reads.
        enqueue: has the engine run what the job needs next, in the given transaction.
        recipients: destination → what it receives, and how it confirms it. A job uses those that routing
            named for it, and those that have something of an earlier revision.
        attempts: how often a reading may end by itself before its job fails.
    """

    def __init__(
        self,
        database: Database,
        child: InferenceChild,
        enqueue: EnqueueWork,
        recipients: Mapping[str, Recipient],
        *,
        attempts: int,
    ) -> None:
        self._database = database
        self._child = child
        self._enqueue = enqueue
        self._recipients = recipients
        self._attempts = attempts

    def run(self, job_id: int) -> None:
        """Read one job; safe to call again after a crash at any point.

        Raises:
            OutOfResources: the record cannot be used; call again.
        """
        job = self._take_up(job_id)
        if job is None:
            return
        log.info("job_started", job_id=job.id, revision=job.revision, attempt=job.attempts)
        crash_points.reach("job-started", job.study_instance_uid)
        try:
            self._check_destinations(job)
            summary = self._child.read(job.id)
        except OutOfResources as error:
            self._requeue(job, error, counted=False, delay_s=_NO_ROOM_S)
        except ProcessKilled as error:
            self._cut_off(job, error)
        except Transient as error:
            if job.attempts >= self._attempts:
                self._fail(job, error)
            else:
                self._requeue(job, error, counted=True)
        except MsnodeError as error:
            self._fail(job, error)
        else:
            self._finish(job, summary)
            crash_points.reach("result-recorded", job.study_instance_uid)

    def _check_destinations(self, job: Job) -> None:
        """Fail a job whose result nobody would get; it can be retried once its destinations are back."""
        gone = sorted(set(job.destinations or ()) - self._recipients.keys())
        if gone:
            why = f"the rule {job.rule!r} named {', '.join(gone)}, no longer among the destinations"
            raise ConfigurationError(why)

    def _recipients_of(self, tx: Transaction, job: Job) -> Mapping[str, Recipient]:
        """The job's destinations, and those that have something of an earlier revision."""
        if job.destinations is None:
            return self._recipients
        names = {*job.destinations, *destinations_of(tx, job.study_instance_uid)}
        return {name: each for name, each in self._recipients.items() if name in names}

    def _take_up(self, job_id: int) -> Job | None:
        """The running job; None where there is nothing to run, or it has to wait for others first."""
        with self._database.write() as tx:
            found = jobs.find(tx, job_id)
            if found is not None and found.state == JobState.QUEUED and jobs.awaits_former(tx, found):
                why = "waits until the revision before is read"
                self._enqueue(tx, jobs.requeue(tx, found, at=_now(), why=why, delay_s=_FORMER_S))
                return None
            job = jobs.start(tx, job_id, at=_now())
            cut_off = job is not None and found is not None and job.interruptions > found.interruptions
            if job is None or not cut_off or job.interruptions % _STEP_ASIDE_AFTER:
                return job
            self._step_aside(tx, job, "its worker ended")
            return None

    def _cut_off(self, job: Job, error: ProcessKilled) -> None:
        with self._unless_moved_on(job) as tx:
            self._step_aside(tx, jobs.interrupt(tx, job, at=_now(), why=str(error)), str(error))

    def _step_aside(self, tx: Transaction, job: Job, why: str) -> None:
        """Back to the end of the queue, after every third interruption for a while; at last give it up."""
        why = f"cut off {job.interruptions} times while it was read, {why}"
        if job.interruptions >= _MAX_INTERRUPTIONS:
            jobs.move(tx, job, JobState.FAILED, at=_now(), why=why)
            log.error("job_failed", job_id=job.id, attempt=job.attempts, count=job.interruptions)
            return
        delay_s = 0 if job.interruptions % _STEP_ASIDE_AFTER else _STEP_ASIDE_S
        self._enqueue(tx, jobs.requeue(tx, job, at=_now(), why=why, counted=False, delay_s=delay_s))
        log.warning("job_stepped_aside", job_id=job.id, count=job.interruptions)

    def _finish(self, job: Job, summary: ReadingSummary) -> None:
        with self._unless_moved_on(job) as tx:
            moved = self._record(tx, job, summary)
            log.info("job_read", job_id=job.id, state=moved.state, count=summary.lesion_count or 0)

    def _record(self, tx: Transaction, job: Job, summary: ReadingSummary) -> Job:
        facts = _columns(summary)
        jobs.note_selection(tx, job, summary.series_instance_uid, summary.passed_over)
        if summary.status in _WITHOUT_RESULTS:
            to = _WITHOUT_RESULTS[summary.status]
            return jobs.move(tx, job, to, at=_now(), why=summary.reason, **facts)
        moved = finish_reading(
            tx, job, summary.results, self._recipients_of(tx, job),
            at=_now(), why=summary.reason, result_set=summary.result_set, **facts,
        )  # fmt: skip
        withdraw_former(tx, moved, at=_now())
        self._enqueue(tx, moved)
        return moved

    def _requeue(self, job: Job, error: Transient, *, counted: bool, delay_s: float = 0) -> None:
        with self._unless_moved_on(job) as tx:
            queued = jobs.requeue(tx, job, at=_now(), why=str(error), counted=counted, delay_s=delay_s)
            self._enqueue(tx, queued)
            log.warning("job_requeued", job_id=job.id, attempt=job.attempts, error=error)

    def _fail(self, job: Job, error: MsnodeError) -> None:
        with self._unless_moved_on(job) as tx:
            jobs.move(tx, job, JobState.FAILED, at=_now(), why=f"{type(error).__name__}: {error}")
            if isinstance(error, StoredBytesChanged):
                audit.stored_bytes_changed(tx, error, at=_now(), job_id=job.id)
                log.error("stored_bytes_changed", job_id=job.id, error=error)
            log.error("job_failed", job_id=job.id, attempt=job.attempts, error=error)

    @contextlib.contextmanager
    def _unless_moved_on(self, job: Job) -> Iterator[Transaction]:
        """One transaction; nothing is written where the job is no longer what it was when it was taken up."""
        try:
            with self._database.write() as tx:
                yield tx
        except InvalidTransition as error:
            log.warning("job_changed_meanwhile", job_id=job.id, error=error)


def _now() -> datetime:
    return datetime.now(UTC)


def _columns(summary: ReadingSummary) -> dict[str, Any]:
    """The columns of the job that a reading fills."""
    model = summary.model
    return {
        "rejection": summary.reason if summary.status == ReadingStatus.REJECTED else None,
        "selection_digest": summary.selection_digest,
        "model_name": model.name if model else None,
        "model_version": model.version if model else None,
        "model_sha256": model.sha256 if model else None,
        "msnode_version": summary.msnode_version,
        "settings_digest": summary.settings_digest,
        "runtime": summary.runtime,
        "lesion_count": summary.lesion_count,
        "lesion_volume_mm3": summary.lesion_volume_mm3,
        "timings_s": summary.timings_s,
        "result_sha256": summary.result_sha256,
    }
