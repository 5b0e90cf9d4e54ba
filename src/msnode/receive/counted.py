"""Counts what peers cause, so that each event is logged once a minute at most."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_S = 60
_MOST_KEYS = 1000


class Counted:
    """How often each event has happened since it was last logged.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._logged_at: dict[tuple[str, ...], float] = {}

    def count(self, *key: str) -> int:
        """Count one event; returns how many to log now, or 0 where one was logged within a minute."""
        with self._lock:
            if len(self._logged_at) >= _MOST_KEYS:  # keys are made from what peers send
                self._counts.clear()
                self._logged_at.clear()
            self._counts[key] += 1
            now = self._clock()
            if now - self._logged_at.get(key, -_PAUSE_S) < _PAUSE_S:
                return 0
            self._logged_at[key] = now
            return self._counts.pop(key)
