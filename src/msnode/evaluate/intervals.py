"""95 % confidence intervals by bootstrap over patients.

The patient is what is drawn, with replacement: slices, lesions and scans of one patient resemble each other,
and drawing them one by one would promise more certainty than there is. Every figure here is a function of
sums over patients (a mean is a sum over a count), so one matrix product makes all replicates at once.

Percentile intervals (Efron 1979). With few patients they are somewhat too narrow: below about ten, read them
as a lower bound of the uncertainty. Below five there is none: two patients who happen to agree would make an
interval without width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REPEATS = 2000
_LEVEL = 95
_LEAST_PATIENTS = 5

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Sums (replicate, k) → figure (replicate,); NaN where it is not defined."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval.

    Attributes:
        value: the figure over all patients; None where it is not defined.
        low: lower end; None where fewer than five patients say something about the figure.
        high: upper end.
        patients: how many patients say something about it.
    """

    value: float | None
    low: float | None
    high: float | None
    patients: int


def estimate(
    sums: Mapping[str, Sequence[float]], statistic: Statistic, *, seed: int = 0, repeats: int = REPEATS
) -> Estimate:
    """A figure and its interval.

    Args:
        sums: patient → that patient's k sums; all zero where the patient says nothing.
        statistic: makes the figure from the sums over some patients.
        seed: of the draw; one seed and one number of patients always draw the same patients, which is what
            pairs the intervals of two bundles.
        repeats: number of replicates; those in which the figure is not defined are left out.
    """
    if not sums:
        return Estimate(None, None, None, 0)
    matrix = np.array([sums[patient] for patient in sorted(sums)], dtype=np.float64)
    telling = int(matrix.any(axis=1).sum())
    value = float(statistic(matrix.sum(axis=0, keepdims=True))[0])
    if np.isnan(value):
        return Estimate(None, None, None, telling)
    if telling < _LEAST_PATIENTS:
        return Estimate(value, None, None, telling)
    patients = len(matrix)
    drawn = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=repeats)
    replicates = statistic(drawn @ matrix)
    tail = (100 - _LEVEL) / 2
    low, high = np.nanpercentile(replicates, (tail, 100 - tail))
    return Estimate(value, float(low), float(high), telling)


def ratio(sums: Floats) -> Floats:
    """The first sum over the second: a mean, or a pooled share."""
    return divide(sums[:, 0], sums[:, 1])


def mean_sums(values: Iterable[tuple[str, float | None]]) -> dict[str, tuple[float, float]]:
    """Sums for `ratio` from (patient, value) of each scan: a mean over scans where the value is defined."""
    sums: dict[str, tuple[float, float]] = {}
    for patient, value in values:
        total, count = sums.get(patient, (0.0, 0.0))
        sums[patient] = (total, count) if value is None else (total + value, count + 1)
    return sums


def add_sums(rows: Iterable[tuple[str, Sequence[float]]]) -> dict[str, tuple[float, ...]]:
    """Add up the rows (patient, sums) of each patient."""
    sums: dict[str, tuple[float, ...]] = {}
    for patient, row in rows:
        earlier = sums.get(patient, (0.0,) * len(row))
        sums[patient] = tuple(a + b for a, b in zip(earlier, row, strict=True))
    return sums


def divide(part: Floats, whole: Floats) -> Floats:
    """Part over whole, NaN where the whole is 0."""
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole != 0)
    return result
