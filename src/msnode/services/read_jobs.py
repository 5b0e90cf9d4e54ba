"""Reads one study at a time in a child process that keeps the model loaded.

The child is started once and takes job ids over a pipe. One that dies, or goes past its time or memory
limit, is killed and replaced by a fresh one; the job is tried again a limited number of times. The error
class decides what becomes of a job (see errors.py).

What ends the reading by itself counts as an attempt. What ends it from outside (a restart, a power cut,
somebody's SIGKILL) is counted apart and generously, because it says little about the input; still it may
be the input's doing, so that such a job steps aside for the others from time to time, and fails in the end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import structlog

from msnode import crash_points, errors
from msnode.domain.imaging import PassedOver
from msnode.errors import (
    ConfigurationError,
    InvalidTransition,
    MsnodeError,
    OutOfResources,
    ProcessDied,
    ProcessKilled,
    Transient,
)
from msnode.record import deliveries, jobs
from msnode.record.deliveries import Result, Takes
from msnode.record.jobs import JobState
from msnode.record.studies import destinations_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from msnode.record.database import Database, Transaction
    from msnode.record.jobs import Job

    ReadJob = Callable[[int], dict[str, Any]]
    EnqueueWork = Callable[[Transaction, Job], None]

log = structlog.get_logger()

_LOOK_S = 0.2
_STOP_S = 5.0
_INTERRUPTIONS = 30
_STEP_ASIDE_AFTER = 3
_STEP_ASIDE_S = 20.0
_NO_ROOM_S = 30.0
_FORMER_S = 5.0


class ReadingFailed(MsnodeError):
    """An unexpected exception in the child; the message is its traceback, without values."""


@dataclass(frozen=True)
class Limits:
    """What one reading may take: wall seconds and resident bytes of the child."""

    seconds: float
    rss_bytes: int


class InferenceChild:
    """The process that reads; started at the first job and kept until `stop`.

    Args:
        make_reader: called once in the child; returns the function that reads one job. Picklable.
        limits: past them the child is killed.
    """

    def __init__(self, make_reader: Callable[[], ReadJob], limits: Limits) -> None:
        self._make_reader = make_reader
        self._limits = limits
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def read(self, job_id: int) -> dict[str, Any]:
        """Have the child read one job and commit its result set; returns the result's description.

        Raises:
            ProcessDied: it ended by signal, or was killed past its time or memory limit, or by the kernel
                where memory ran out.
            ProcessKilled: somebody else killed it.
            MsnodeError: what the reading raised there.
        """
        pipe, process = self._running(), self._process
        out_of_memory = _kernel_kills()
        try:
            pipe.send(job_id)
            self._wait(pipe)
            kind, payload = pipe.recv()
        except (EOFError, OSError):
            how = self._bury("ended")
            killed = process is not None and process.exitcode == -signal.SIGKILL
            raise (ProcessKilled if killed and _kernel_kills() == out_of_memory else ProcessDied)(
                how
            ) from None
        if kind == "result":
            result: dict[str, Any] = payload
            return result
        error_class = getattr(errors, kind, ReadingFailed)
        raise error_class(payload)

    def start(self) -> None:
        """Start the child before its first job, so that the model is loaded by then."""
        self._running()

    def stop(self) -> None:
        """End the child."""
        if self._process is not None:
            self._bury("stopped")

    def _running(self) -> Connection:
        if self._pipe is None or self._process is None or not self._process.is_alive():
            self.stop()
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_child, args=(theirs, self._make_reader), name="msnode-inference", daemon=True
            )
            self._process.start()
            theirs.close()
            log.info("inference child started", pid=self._process.pid)
        return self._pipe

    def _wait(self, pipe: Connection) -> None:
        deadline = time.monotonic() + self._limits.seconds
        watched = psutil.Process(self._process.pid) if self._process else None
        while not pipe.poll(_LOOK_S):
            if time.monotonic() > deadline:
                raise ProcessDied(self._bury(f"killed after {self._limits.seconds:.0f} s"))
            with contextlib.suppress(psutil.NoSuchProcess):
                if watched and watched.memory_info().rss > self._limits.rss_bytes:
                    megabytes = self._limits.rss_bytes // 2**20
                    raise ProcessDied(self._bury(f"killed past {megabytes} MB of memory"))

    def _bury(self, what: str) -> str:
        """Make sure that the child is gone; says how it ended."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is None:
            return "inference child is not there"
        process.join(_STOP_S if what == "stopped" else 0)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        log.info("inference child ended", pid=process.pid, exit_code=code)
        return f"inference child {what} ({how})"


def _kernel_kills() -> int:
    """How many processes the kernel has killed for want of memory since the machine started."""
    for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def _child(pipe: Connection, make_reader: Callable[[], ReadJob]) -> None:
    """Body of the child: job ids in, descriptions or errors out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    with contextlib.suppress(OSError):  # where memory runs out, the kernel is to take this process first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    parent = os.getppid()
    read: ReadJob | None = None
    with contextlib.suppress(MsnodeError):  # said again, to the one who asks, at the first job
        read = make_reader()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while os.getppid() == parent:
            job_id = pipe.recv()
            try:
                read = read or make_reader()
                answer: tuple[str, Any] = ("result", read(job_id))
            except MsnodeError as error:
                answer = (type(error).__name__, str(error))
            except Exception as error:  # noqa: BLE001 - the worker's duty: anything else is a failed job
                frames = traceback.extract_tb(error.__traceback__)
                places = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames))
                answer = ("ReadingFailed", f"{type(error).__name__} at {places}")
            pipe.send(answer)


class Worker:
    """Runs the workflow `job`: a queued job to its result set and deliveries, or to its end.

    Args:
        database: the record.
        child: what reads.
        enqueue: has the engine run what the job needs next, in the given transaction.
        takes: destination → what it is given, and how it confirms it; of them those that routing named for
            the job, and those that have something of an earlier revision.
        attempts: how often a reading may end by itself before its job fails.
    """

    def __init__(
        self,
        database: Database,
        child: InferenceChild,
        enqueue: EnqueueWork,
        takes: Mapping[str, Takes],
        *,
        attempts: int,
    ) -> None:
        self._database = database
        self._child = child
        self._enqueue = enqueue
        self._takes = takes
        self._attempts = attempts

    def run(self, job_id: int) -> None:
        """Read one job; safe to call again after a crash at any point.

        Raises:
            OutOfResources: the record cannot be used; call again.
        """
        job = self._take_up(job_id)
        if job is None:
            return
        log.info("job started", job_id=job.id, revision=job.revision, attempt=job.attempts)
        crash_points.reach("job-started", job.study_instance_uid)
        try:
            self._check_destinations(job)
            result = self._child.read(job.id)
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
            self._finish(job, result)
            crash_points.reach("result-recorded", job.study_instance_uid)

    def _check_destinations(self, job: Job) -> None:
        """A result that nobody would get is not made: the job fails, and is retried once somebody would."""
        gone = sorted(set(job.destinations or ()) - self._takes.keys())
        if gone:
            why = f"the rule {job.rule!r} named {', '.join(gone)}, no longer among the destinations"
            raise ConfigurationError(why)

    def _takes_of(self, tx: Transaction, job: Job) -> Mapping[str, Takes]:
        """Whoever has something of an earlier revision is not left with it."""
        if job.destinations is None:
            return self._takes
        names = {*job.destinations, *destinations_of(tx, job.study_instance_uid)}
        return {name: takes for name, takes in self._takes.items() if name in names}

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
        if job.interruptions >= _INTERRUPTIONS:
            jobs.move(tx, job, JobState.FAILED, at=_now(), why=why)
            log.error("job failed", job_id=job.id, attempt=job.attempts, count=job.interruptions)
            return
        delay_s = 0 if job.interruptions % _STEP_ASIDE_AFTER else _STEP_ASIDE_S
        self._enqueue(tx, jobs.requeue(tx, job, at=_now(), why=why, counted=False, delay_s=delay_s))
        log.warning("job steps aside", job_id=job.id, count=job.interruptions)

    def _finish(self, job: Job, result: Mapping[str, Any]) -> None:
        with self._unless_moved_on(job) as tx:
            moved = self._record(tx, job, result)
            log.info("job read", job_id=job.id, state=moved.state, count=result["lesion_count"] or 0)

    def _record(self, tx: Transaction, job: Job, result: Mapping[str, Any]) -> Job:
        facts = _facts(result)
        jobs.note_selection(
            tx, job, result["series_instance_uid"], [PassedOver(**p) for p in result["passed_over"]]
        )
        if result["status"] in {JobState.PASSED_OVER, JobState.UNCHANGED}:
            to = JobState(result["status"])
            return jobs.move(tx, job, to, at=_now(), why=result["reason"], **facts)
        moved = deliveries.finish(
            tx, job, _results(result), self._takes_of(tx, job),
            at=_now(), why=result["reason"], result_set=result["result_set"], **facts,
        )  # fmt: skip
        deliveries.withdraw_former(tx, moved, at=_now())
        self._enqueue(tx, moved)
        return moved

    def _requeue(self, job: Job, error: Transient, *, counted: bool, delay_s: float = 0) -> None:
        with self._unless_moved_on(job) as tx:
            queued = jobs.requeue(tx, job, at=_now(), why=str(error), counted=counted, delay_s=delay_s)
            self._enqueue(tx, queued)
            log.warning("job will be tried again", job_id=job.id, attempt=job.attempts, error=error)

    def _fail(self, job: Job, error: MsnodeError) -> None:
        with self._unless_moved_on(job) as tx:
            jobs.move(tx, job, JobState.FAILED, at=_now(), why=f"{type(error).__name__}: {error}")
            log.error("job failed", job_id=job.id, attempt=job.attempts, error=error)

    @contextlib.contextmanager
    def _unless_moved_on(self, job: Job) -> Iterator[Transaction]:
        """One transaction; nothing is written where the job is no longer what it was when it was taken up."""
        try:
            with self._database.write() as tx:
                yield tx
        except InvalidTransition as error:
            log.warning("job moved on meanwhile", job_id=job.id, error=error)


def _now() -> datetime:
    return datetime.now(UTC)


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the job that a reading fills."""
    model = result["model"] or {"name": None, "version": None, "sha256": None}
    return {
        "rejection": result["reason"] if result["status"] == JobState.REJECTED else None,
        "selection_digest": result["selection_digest"],
        "model_name": model["name"],
        "model_version": model["version"],
        "model_sha256": model["sha256"],
        "msnode_version": result["msnode_version"],
        "settings_digest": result["settings_digest"],
        "runtime": result["runtime"],
        "lesion_count": result["lesion_count"],
        "lesion_volume_mm3": result["lesion_volume_mm3"],
        "timings_s": result["timings_s"],
    }


def _results(result: Mapping[str, Any]) -> list[Result]:
    names = Result.__dataclass_fields__
    return [Result(**{name: output[name] for name in names}) for output in result["outputs"]]
