"""How often to try again, and after which delays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """Tries with growing delays.

    The defaults last about 30 hours, so that a peer may be down overnight.

    Attributes:
        first_s: first delay, seconds.
        factor: by which each delay is longer than the one before.
        max_s: longest delay, seconds.
        limit: maximum number of tries.
        answers: how many unclear or negative answers of a destination make the answer final.
    """

    first_s: float = 5.0
    factor: float = 2.0
    max_s: float = 900.0
    limit: int = 120
    answers: int = 3

    def delay(self, attempt: int, key: str) -> float | None:
        """Seconds to wait after a failed try; None after the last one.

        Args:
            attempt: number of the failed try, from 1.
            key: names what is tried. It changes the delay by up to a tenth, always equally for one key and
                attempt, so that what failed together is not tried again together.
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
