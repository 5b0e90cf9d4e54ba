"""Agreement of the lesion volumes of scans with the expert's: correlation, bias, limits of agreement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from msnode.evaluate.intervals import REPEATS, add_sums, divide, estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.evaluate.intervals import Estimate, Floats

_LIMIT = 1.96
_FLAT = 1e-12
"""Relative variance below which a correlation is rounding noise."""


@dataclass(frozen=True)
class VolumeAgreement:
    """Predicted against expert volume over scans, ml (Bland and Altman, Lancet 1986).

    Attributes:
        pearson_r: correlation; None below three scans or where a side does not vary.
        bias_ml: mean of predicted - expert.
        lower_ml: bias - 1.96 standard deviations of the differences; None below two scans.
        upper_ml: bias + 1.96 standard deviations.
    """

    pearson_r: Estimate
    bias_ml: Estimate
    lower_ml: Estimate
    upper_ml: Estimate


def volume_agreement(
    scans: Sequence[tuple[str, float, float]], *, seed: int = 0, repeats: int = REPEATS
) -> VolumeAgreement:
    """Compare volumes.

    Args:
        scans: (patient, expert ml, predicted ml) of each scan.
        seed: of the bootstrap over patients.
        repeats: of the bootstrap.
    """
    values = np.array([pair for _, *pair in scans], dtype=np.float64).reshape(-1, 2)
    centre = values.mean(axis=0) if len(values) else np.zeros(2)
    # centred first: raw sums of squares of near-equal volumes would lose their digits
    rows = []
    for (patient, expert, predicted), (x, y) in zip(scans, values - centre, strict=True):
        d = predicted - expert
        rows.append((patient, (1.0, x, y, x * x, y * y, x * y, d, d * d)))
    sums = add_sums(rows)
    one = partial(estimate, sums, seed=seed, repeats=repeats)
    return VolumeAgreement(
        pearson_r=one(_pearson),
        bias_ml=one(lambda s: divide(s[:, 6], s[:, 0])),
        lower_ml=one(partial(_limit, sign=-1)),
        upper_ml=one(partial(_limit, sign=1)),
    )


def _pearson(sums: Floats) -> Floats:
    n, x, y, xx, yy, xy = sums[:, :6].T
    covariance = n * xy - x * y
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    defined = (n > 2) & (spread_x > _FLAT * n * xx) & (spread_y > _FLAT * n * yy)  # noqa: PLR2004 - two points always lie on a line
    product = np.where(defined, spread_x * spread_y, 0)
    return np.clip(divide(covariance, np.sqrt(product)), -1, 1)


def _limit(sums: Floats, *, sign: int) -> Floats:
    n, d, dd = sums[:, 0], sums[:, 6], sums[:, 7]
    bias = divide(d, n)
    variance = divide(np.maximum(dd - d * bias, 0), np.where(n > 1, n - 1, 0))
    return bias + sign * _LIMIT * np.sqrt(variance)
