"""When to try again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again: delays grow by `factor` from `first_s` to `max_s`, at most `limit` tries.

    The defaults go on for about a day and a quarter: a peer that is down over night is not given up.

    Attributes:
        answers: how often a destination may itself answer what is unclear, or no, before that is final.
    """

    first_s: float = 5.0
    factor: float = 2.0
    max_s: float = 900.0
    limit: int = 120
    answers: int = 3

    def delay(self, attempt: int, key: str) -> float | None:
        """Seconds to wait after try number `attempt` (from 1) failed; None where that was the last.

        Args:
            attempt: the try that failed.
            key: what is tried. It moves the delay by up to a tenth, always equally for one key and
                attempt, so that what failed together does not come back together.
        """
        if attempt >= self.limit:
            return None
        grown = self.first_s
        for _ in range(attempt - 1):
            grown *= self.factor
            if grown >= self.max_s:
                break
        digest = hashlib.sha256(f"{key}/{attempt}".encode()).digest()
        shift = int.from_bytes(digest[:4]) / 2**32 * 0.2 - 0.1
        return min(grown, self.max_s) * (1 + shift)
