"""Reads one study at a time in a child process that keeps the model loaded.

The child is started once and takes job ids over a pipe. One that dies, or goes past its time or memory
limit, is killed and replaced by a fresh one; the job is tried again a limited number of times.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import structlog

from msnode import errors
from msnode.errors import MsnodeError, ProcessDied

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    ReadJob = Callable[[int], dict[str, Any]]

log = structlog.get_logger()

_LOOK_S = 0.2
_STOP_S = 5.0


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
            ProcessDied: it ended by signal, or was killed past its time or memory limit.
            MsnodeError: what the reading raised there.
        """
        pipe = self._running()
        try:
            pipe.send(job_id)
            self._wait(pipe)
            kind, payload = pipe.recv()
        except (EOFError, OSError):
            raise ProcessDied(self._bury("ended")) from None
        if kind == "result":
            result: dict[str, Any] = payload
            return result
        error_class = getattr(errors, kind, ReadingFailed)
        raise error_class(payload)

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


def _child(pipe: Connection, make_reader: Callable[[], ReadJob]) -> None:
    """Body of the child: job ids in, descriptions or errors out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    parent = os.getppid()
    read = None
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
