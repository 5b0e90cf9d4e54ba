"""How a process of the node runs until it is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from itertools import count
from typing import TYPE_CHECKING

import structlog

from msnode.errors import OutOfResources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from msnode.services.complete_studies import StudyCompletion

log = structlog.get_logger()

_COMPLETE_S = 0.5
_ROUNDS_BETWEEN_CHECKS = 4
_CHECK_S = 5.0


class StopSignal:
    """An event set by SIGTERM and SIGINT, or when the parent process has gone."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._parent = os.getppid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; True once the process should end."""
        if os.getppid() != self._parent:
            self._event.set()  # an orphan would keep port and locks from the supervisor's successor
        return self._event.wait(seconds)


def run_checks(stop: StopSignal, checks: Iterable[Callable[[], None]]) -> None:
    """Run every check each five seconds; one that lacks resources is run again with the next round."""
    while True:
        for check in checks:
            try:
                check()
            except OutOfResources as error:
                log.warning("check_postponed", error=error)
        if stop.wait(_CHECK_S):
            return


def run_completion(stop: StopSignal, completion: StudyCompletion) -> None:
    """Queue complete studies twice a second, and check receivers and ages every two seconds."""
    for rounds in count():
        if stop.wait(_COMPLETE_S):
            return
        completion.queue_complete()
        if rounds % _ROUNDS_BETWEEN_CHECKS == 0:
            completion.check_receivers_and_ages()
