"""Slice level figures, as in the nnU-Net paper (Sci Rep 2025, s41598-025-14112-x; system A).

Definitions of the paper:

- A slice is positive when the expert marked a voxel in it, else normal. Normal slices are drawn at random,
  as many as there are positive ones. Here: all of them where there are fewer, and no positive
  slice is left out; PPV, NPV and accuracy then rest on an uneven set, and the counts say so.
- TP: a positive slice in which at least 10 % of the expert's voxels were predicted.
- TN: a normal slice without a predicted voxel. FP: a normal slice with one.

What a positive slice is in which too little was predicted, the paper does not say. Three readings:

- `usual`: each positive slice that is no TP is an FN. Sensitivity is then the share of positive slices found.
- `paper`: FN is a positive slice without any predicted voxel. A positive slice in which something, but less
  than 10 %, was predicted counts nowhere. Only so can 146 of 218 positive slices found be a sensitivity of
  100 %: 146 / (146 + 0), with 72 slices left out.
- `paper_any_voxel`: the same FN, but each positive slice with a predicted voxel is a TP.

Which of the two the authors used cannot be told from the counts alone. The last one gives all four published
internal percentages from 218 positive and 218 normal slices: TP 217, FN 1, TN 146, FP 72 make accuracy 83.3,
sensitivity 99.5, PPV 75.1 and NPV 99.3 % (published: 83, 100, 75, 99), with 146 and 72 on the normal side.
Under `paper` with 146 TP, no FN and a PPV of 75 % (49 FP), 218 normal slices would make an accuracy of 86 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msnode.evaluate.intervals import REPEATS, add_sums, divide, estimate
from msnode.evaluate.lesionwise import ENOUGH_OVERLAP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from msnode.evaluate.intervals import Estimate, Floats

READINGS = ("usual", "paper", "paper_any_voxel")
FIGURES = ("accuracy", "sensitivity", "ppv", "npv")
CURVE_THRESHOLDS = (0.01, *(k / 20 for k in range(1, 21)))

_COUNTS = ("tp", "partial", "fn", "tn", "fp")


@dataclass(frozen=True, eq=False)
class SliceVoxels:
    """Voxels in each slice of one scan, all int64 of shape (slice,).

    Attributes:
        truth: marked by the expert.
        predicted: marked by the model.
        both: marked by both.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    both: NDArray[np.int64]


@dataclass(frozen=True)
class SliceLevel:
    """Slice level figures of some scans.

    Attributes:
        positive: number of positive slices.
        normal: number of normal slices drawn.
        normal_available: number of normal slices there are.
        threshold: smallest share of the expert's voxels of a slice that makes a TP.
        counts: tp, partial (positive, predicted on, below the threshold), fn (positive, nothing predicted),
            tn and fp at the threshold.
        readings: reading → figure → value with its interval.
        curve_thresholds: thresholds of the curves.
        curves: reading → figure → one value a threshold; None where not defined.
    """

    positive: int
    normal: int
    normal_available: int
    threshold: float
    counts: Mapping[str, int]
    readings: Mapping[str, Mapping[str, Estimate]]
    curve_thresholds: tuple[float, ...]
    curves: Mapping[str, Mapping[str, tuple[Estimate, ...]]]


def count_voxels(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> SliceVoxels:
    """Voxels a slice of two masks (slice, row, column)."""
    per_slice = [np.count_nonzero(m, axis=(1, 2)) for m in (truth, predicted, truth & predicted)]
    return SliceVoxels(*(np.asarray(n, dtype=np.int64) for n in per_slice))


def slice_level(
    scans: Sequence[tuple[str, str, SliceVoxels]], *, seed: int = 0, repeats: int = REPEATS
) -> SliceLevel:
    """Slice level figures.

    Args:
        scans: (case name, patient, voxels a slice) of each scan; their order does not matter.
        seed: of the draw of normal slices and of the bootstrap over patients.
        repeats: of the bootstrap.
    """
    ordered = sorted(scans, key=lambda scan: scan[0])
    normal = [(i, int(k)) for i, (_, _, v) in enumerate(ordered) for k in np.flatnonzero(v.truth == 0)]
    positive = sum(int(np.count_nonzero(v.truth)) for _, _, v in ordered)
    rng = np.random.default_rng(seed)
    picked = rng.choice(len(normal), size=min(positive, len(normal)), replace=False)
    drawn: list[list[int]] = [[] for _ in ordered]
    for at in sorted(picked.tolist()):
        drawn[normal[at][0]].append(normal[at][1])

    def sums(threshold: float) -> dict[str, tuple[float, ...]]:
        return add_sums(
            (patient, _count(voxels, chosen, threshold))
            for (_, patient, voxels), chosen in zip(ordered, drawn, strict=True)
        )

    def figures(threshold: float, reading: str) -> dict[str, Estimate]:
        here = sums(threshold)
        return {name: estimate(here, _figure(reading, name), seed=seed, repeats=repeats) for name in FIGURES}

    at_threshold = np.sum(list(sums(ENOUGH_OVERLAP).values()), axis=0) if ordered else np.zeros(len(_COUNTS))
    curves = {r: [figures(t, r) for t in CURVE_THRESHOLDS] for r in ("usual", "paper")}
    return SliceLevel(
        positive=positive,
        normal=len(picked),
        normal_available=len(normal),
        threshold=ENOUGH_OVERLAP,
        counts=dict(zip(_COUNTS, map(int, at_threshold), strict=True)),
        readings={reading: figures(ENOUGH_OVERLAP, reading) for reading in READINGS},
        curve_thresholds=CURVE_THRESHOLDS,
        curves={
            r: {name: tuple(row[name] for row in rows) for name in FIGURES} for r, rows in curves.items()
        },
    )


def _count(voxels: SliceVoxels, normal: Sequence[int], threshold: float) -> tuple[float, ...]:
    """tp, partial, fn, tn, fp of one scan."""
    positive = voxels.truth > 0
    hit = positive & (voxels.both >= threshold * voxels.truth - 1e-9)
    marked = voxels.predicted > 0
    quiet = int(np.count_nonzero(~marked[list(normal)]))
    return (
        float(hit.sum()),
        float((positive & ~hit & marked).sum()),
        float((positive & ~marked).sum()),
        float(quiet),
        float(len(normal) - quiet),
    )


def _figure(reading: str, name: str) -> Callable[[Floats], Floats]:
    """The statistic of one figure under one reading, from the sums tp, partial, fn, tn, fp."""

    def statistic(sums: Floats) -> Floats:
        tp, partial, fn, tn, fp = sums.T
        if reading == "usual":
            fn = fn + partial
        elif reading == "paper_any_voxel":
            tp = tp + partial
        if name == "accuracy":
            return divide(tp + tn, tp + fn + tn + fp)
        part, other = {"sensitivity": (tp, fn), "ppv": (tp, fp), "npv": (tn, fn)}[name]
        return divide(part, part + other)

    return statistic
