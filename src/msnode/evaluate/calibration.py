"""Whether the confidence of a lesion means what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msnode.evaluate.intervals import REPEATS, add_sums, divide, estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.evaluate.intervals import Estimate, Floats

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Lesions whose confidence lies from `low` to `high` (the last bin includes 1).

    Attributes:
        count: number of lesions.
        mean_confidence: their mean confidence; None in an empty bin.
        share_true: share of them that the expert marked too; None in an empty bin.
    """

    low: float
    high: float
    count: int
    mean_confidence: float | None
    share_true: float | None


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram in numbers.

    Attributes:
        bins: ten bins of equal width.
        count: number of lesions.
        expected_error: expected calibration error (Naeini et al., AAAI 2015): the gap between mean confidence
            and share that is true, weighted by the lesions of each bin.
    """

    bins: tuple[ReliabilityBin, ...]
    count: int
    expected_error: Estimate


def reliability(
    lesions: Sequence[tuple[str, float, bool]], *, seed: int = 0, repeats: int = REPEATS
) -> Reliability:
    """Compare confidences with the truth.

    Args:
        lesions: (patient, confidence 0-1, whether the expert marked it too) of each predicted lesion.
        seed: of the bootstrap over patients.
        repeats: of the bootstrap.

    Raises:
        ValueError: a confidence lies outside 0-1.
    """
    rows = []
    for patient, confidence, true in lesions:
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence {confidence:g} lies outside 0-1")
        row = np.zeros((3, BINS))
        row[:, min(int(confidence * BINS), BINS - 1)] = (1, confidence, true)
        rows.append((patient, row.ravel().tolist()))
    sums = add_sums(rows)
    total = np.sum(list(sums.values()), axis=0).reshape(3, BINS) if sums else np.zeros((3, BINS))
    bins = tuple(
        ReliabilityBin(
            low=k / BINS,
            high=(k + 1) / BINS,
            count=int(count),
            mean_confidence=float(confidence / count) if count else None,
            share_true=float(true / count) if count else None,
        )
        for k, (count, confidence, true) in enumerate(total.T)
    )
    error = estimate(sums, _expected_error, seed=seed, repeats=repeats)
    return Reliability(bins, int(total[0].sum()), error)


def _expected_error(sums: Floats) -> Floats:
    count, confidence, true = sums.reshape(-1, 3, BINS).transpose(1, 0, 2)
    return divide(np.abs(confidence - true).sum(axis=1), count.sum(axis=1))
