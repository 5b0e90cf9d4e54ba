"""Keeps the node's processes running: each a child process that is restarted when it dies."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from msnode.errors import ConfigurationError
from msnode.services.run import StopSignal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = structlog.get_logger()

_POLL_S = 0.2
_STOP_S = 20.0
_MISUSE = 2
_PAUSES_S = (0.5, 0.5, 1, 1, 2, 5)
_HEALTHY_S = 30.0


@dataclass(frozen=True)
class Process:
    """One process of a role; `instance` counts those of the role on this machine, from 1."""

    role: str
    instance: int


class _Child:
    """One process and how often it died lately."""

    def __init__(self, role: str, command: list[str]) -> None:
        self.role = role
        self._command = command
        self._deaths = 0
        self._started = 0.0
        self._restart_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)
        self._started = time.monotonic()
        log.info("process_started", role=self.role, pid=self.process.pid)

    def restart_if_ended(self) -> None:
        """Restart the process where it has ended, after a longer pause each time.

        Raises:
            ConfigurationError: it refused its configuration; trying again would not help.
        """
        if self.process is None:
            if time.monotonic() >= self._restart_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        if code == _MISUSE:
            raise ConfigurationError(f"the {self.role} refused to start; its message stands above")
        lived = time.monotonic() - self._started
        self._deaths = 0 if lived > _HEALTHY_S else self._deaths + 1
        pause = _PAUSES_S[min(self._deaths, len(_PAUSES_S) - 1)]
        log.error("process_ended", role=self.role, pid=self.process.pid, exit_code=code)
        self.process, self._restart_at = None, time.monotonic() + pause

    def stop(self, deadline: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("process_killed", role=self.role, pid=self.process.pid)
            self.process.kill()
            self.process.wait()


def supervise(processes: Sequence[Process], config: Path | None) -> None:
    """Run them all until SIGTERM or SIGINT; then end them, each after what it has in hand.

    Raises:
        ConfigurationError: a process refused its configuration.
    """
    stop = StopSignal()
    options = ["--config", str(config)] if config else []
    children = [_Child(each.role, [*_command(each), *options]) for each in processes]
    try:
        for child in children:
            child.start()
        while not stop.wait(_POLL_S):
            for child in children:
                child.restart_if_ended()
    finally:
        for child in children:
            if child.process is not None:
                child.process.terminate()
        deadline = time.monotonic() + _STOP_S
        for child in children:
            child.stop(deadline)


def _command(process: Process) -> list[str]:
    options = ["--role", process.role, "--instance", str(process.instance)]
    return [sys.executable, "-m", "msnode", "serve", *options]
