"""The child process that reads, and keeps the model loaded from one study to the next.

It is started once and takes job ids over a pipe. One that dies, or goes past its time or memory limit, is
killed; the next job finds a fresh one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import structlog

from msnode.errors import MsnodeError, ProcessDied, ProcessKilled, ReadingFailed, error_named
from msnode.process import forbid_core_dumps, keep_libraries_off_stderr
from msnode.reading.summary import ReadingSummary

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    ReadJob = Callable[[int], ReadingSummary]
    """Reads the study of one job and commits its result set."""

log = structlog.get_logger()

_POLL_S = 0.2
_STOP_S = 5.0
_SUMMARY = "summary"
"""Kind of an answer that is no error; that of an error is the name of its class."""


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

    def read(self, job_id: int) -> ReadingSummary:
        """Have the child read one job and commit its result set.

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
            how = self._end("ended")
            killed = process is not None and process.exitcode == -signal.SIGKILL
            raise (ProcessKilled if killed and _kernel_kills() == out_of_memory else ProcessDied)(
                how
            ) from None
        if kind == _SUMMARY:
            return ReadingSummary.from_json(payload)
        raise error_named(kind)(payload)

    def start(self) -> None:
        """Start the child before its first job, so that the model is loaded by then."""
        self._running()

    def stop(self) -> None:
        """End the child."""
        if self._process is not None:
            self._end("stopped")

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
            log.info("inference_child_started", pid=self._process.pid)
        return self._pipe

    def _wait(self, pipe: Connection) -> None:
        deadline = time.monotonic() + self._limits.seconds
        watched = psutil.Process(self._process.pid) if self._process else None
        while not pipe.poll(_POLL_S):
            if time.monotonic() > deadline:
                raise ProcessDied(self._end(f"killed after {self._limits.seconds:.0f} s"))
            with contextlib.suppress(psutil.NoSuchProcess):
                if watched and watched.memory_info().rss > self._limits.rss_bytes:
                    megabytes = self._limits.rss_bytes // 2**20
                    raise ProcessDied(self._end(f"killed past {megabytes} MB of memory"))

    def _end(self, what: str) -> str:
        """Make sure that the child is gone; says how it ended."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is None:
            return "inference child is not running"
        process.join(_STOP_S if what == "stopped" else 0)
        if process.is_alive():
            process.kill()
            process.join()
        code = process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        log.info("inference_child_ended", pid=process.pid, exit_code=code)
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
    forbid_core_dumps()
    keep_libraries_off_stderr()
    parent = os.getppid()
    read: ReadJob | None = None
    with contextlib.suppress(MsnodeError):  # said again, to the one who asks, at the first job
        read = make_reader()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while os.getppid() == parent:
            job_id = pipe.recv()
            try:
                read = read or make_reader()
                answer = (_SUMMARY, read(job_id).to_json())
            except MsnodeError as error:
                answer = (type(error).__name__, str(error))
            except Exception as error:  # noqa: BLE001 - the worker's duty: anything else is a failed job
                frames = traceback.extract_tb(error.__traceback__)
                places = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames))
                answer = (ReadingFailed.__name__, f"{type(error).__name__} at {places}")
            pipe.send(answer)
