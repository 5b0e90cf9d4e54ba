"""The wall clock, and whether somebody has set it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_STEP_S = 2.0


@dataclass(frozen=True)
class ClockReading:
    """What the clock says.

    Attributes:
        now: UTC.
        step_s: by how many seconds the clock was set forward (or back, negative) since it was last read; 0 if
            it went on by itself.
    """

    now: datetime
    step_s: float


class WallClock:
    """Compares the wall clock with one that nobody can set. Steps of up to 2 s are not noticed.

    Args:
        wall: reads the wall clock, UTC.
        steady: seconds that only grow.
    """

    def __init__(self, wall: Callable[[], datetime], steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._ahead: float | None = None

    def read(self) -> ClockReading | None:
        """The time; None if reading took too long to tell a step from a delay.

        Raises:
            OutOfResources: the clock is a server's, which does not answer.
        """
        before = self._steady()
        now = self._wall()
        after = self._steady()
        if after - before > _STEP_S / 2:
            return None
        ahead = now.timestamp() - after
        step_s = 0.0 if self._ahead is None else ahead - self._ahead
        self._ahead = ahead
        return ClockReading(now, step_s if abs(step_s) > _STEP_S else 0.0)
