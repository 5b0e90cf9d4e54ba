"""Agreement of a lesion map with an expert's mask, by voxel and by lesion, on the source grid.

A figure is None where it is not defined, and a mean leaves it out: a ratio whose denominator is 0, so also
Dice, IoU and lesion F1 where both sides are empty (a scan without lesions, rightly read, says nothing about
how well lesions are outlined; its false lesions are counted), and a surface distance where one side is empty.
Where just one side is empty, Dice, IoU and lesion F1 are 0.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from msnode.domain.imaging import Volume
from msnode.evaluate.lesionwise import ENOUGH_OVERLAP, match_lesions, shares
from msnode.evaluate.surface import surface_distances
from msnode.measure.lesions import find_lesions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.domain.findings import LesionMap
    from msnode.evaluate.lesionwise import LesionMatch


@dataclass(frozen=True)
class Scores:
    """Agreement of one scan; None where not defined (see the module).

    Attributes:
        dice: 2 |A and B| / (|A| + |B|) over voxels.
        ppv: share of predicted voxels that the expert marked.
        sensitivity: share of the expert's voxels that were predicted.
        iou: |A and B| / |A or B|.
        lesion_sensitivity: share of the expert's lesions that share a voxel with the prediction.
        lesion_ppv: share of predicted lesions that share a voxel with the expert's mask.
        lesion_f1: harmonic mean of the two.
        truth_count: number of the expert's lesions.
        predicted_count: number of predicted lesions.
        truth_ml: the expert's lesion volume, ml.
        predicted_ml: predicted lesion volume, ml.
        specificity: share of the grid's other voxels (air too) that were not predicted.
        mcc: Matthews correlation coefficient over all voxels of the grid, -1 to 1.
        hd95_mm: 95 % Hausdorff distance of the surfaces, mm.
        asd_mm: average symmetric surface distance, mm.
        lesion10_sensitivity: as `lesion_sensitivity`, but a tenth of the lesion must be predicted.
        lesion10_ppv: as `lesion_ppv`, but the expert must have marked a tenth of the lesion.
        lesion10_f1: harmonic mean of the two.
        false_positives: predicted lesions that share no voxel with the expert's mask.
        large_sensitivity: as `lesion_sensitivity`, of the expert's lesions of `LARGE_MM3` and more.
        large_f1: harmonic mean of that and `lesion_ppv`.
    """

    dice: float | None
    ppv: float | None
    sensitivity: float | None
    iou: float | None
    lesion_sensitivity: float | None
    lesion_ppv: float | None
    lesion_f1: float | None
    truth_count: int
    predicted_count: int
    truth_ml: float
    predicted_ml: float
    specificity: float | None
    mcc: float | None
    hd95_mm: float | None
    asd_mm: float | None
    lesion10_sensitivity: float | None
    lesion10_ppv: float | None
    lesion10_f1: float | None
    false_positives: int
    large_sensitivity: float | None
    large_f1: float | None


VOXEL_FIGURES = ("dice", "iou", "ppv", "sensitivity", "specificity", "mcc", "hd95_mm", "asd_mm")
LESION_FIGURES = (
    "lesion_f1",
    "lesion_sensitivity",
    "lesion_ppv",
    "large_f1",
    "large_sensitivity",
    "lesion10_f1",
    "lesion10_sensitivity",
    "lesion10_ppv",
    "false_positives",
)


LARGE_MM3 = 15.0
"""From here on an expert's lesion counts as large: a ball of 3 mm. Raters agree less on smaller ones."""


def score(truth: Volume, predicted: LesionMap) -> Scores:
    """Compare one scan; arguments and errors as `score_lesions`."""
    return score_lesions(truth, predicted)[0]


def score_lesions(truth: Volume, predicted: LesionMap) -> tuple[Scores, LesionMatch]:
    """Compare one scan, and keep what became of each lesion.

    Args:
        truth: expert mask 0/1 on the source grid. Every 26-connected component is a lesion of the expert's,
            whatever the smallest volume of the predicted ones.
        predicted: lesions on the same grid.

    Raises:
        ValueError: the grids differ.
    """
    if not truth.grid.same_as(predicted.grid):
        raise ValueError("truth and prediction lie on different grids")
    a, b = truth.data > 0, predicted.labels > 0
    expert = find_lesions(Volume(a.astype(np.uint8), truth.grid), threshold=1, min_volume_mm3=0)
    match = match_lesions(expert, a, predicted, b)
    both, in_a, in_b = int((a & b).sum()), int(a.sum()), int(b.sum())
    neither = a.size - in_a - in_b + both
    distances = surface_distances(a, b, truth.grid)
    lesion_sensitivity, lesion_ppv, f1 = _lesion_level(match, 0.0)
    sensitivity10, ppv10, f1_10 = _lesion_level(match, ENOUGH_OVERLAP)
    large = tuple(one for one in match.truth if one.volume_mm3 >= LARGE_MM3 - 1e-6)
    large_sensitivity, _, large_f1 = _lesion_level(replace(match, truth=large), 0.0)
    if not large:
        large_f1 = None  # what was found says nothing about lesions that are not there
    voxel_ml = truth.grid.voxel_volume_mm3 / 1000
    scores = Scores(
        dice=_ratio(2 * both, in_a + in_b),
        ppv=_ratio(both, in_b),
        sensitivity=_ratio(both, in_a),
        iou=_ratio(both, in_a + in_b - both),
        lesion_sensitivity=lesion_sensitivity,
        lesion_ppv=lesion_ppv,
        lesion_f1=f1,
        truth_count=len(match.truth),
        predicted_count=len(match.predicted),
        truth_ml=in_a * voxel_ml,
        predicted_ml=in_b * voxel_ml,
        specificity=_ratio(neither, a.size - in_a),
        mcc=_matthews(both, in_b - both, in_a - both, neither),
        hd95_mm=distances[0] if distances else None,
        asd_mm=distances[1] if distances else None,
        lesion10_sensitivity=sensitivity10,
        lesion10_ppv=ppv10,
        lesion10_f1=f1_10,
        false_positives=match.false_positives,
        large_sensitivity=large_sensitivity,
        large_f1=large_f1,
    )
    return scores, match


def mean(scores: Sequence[Scores]) -> dict[str, float | None]:
    """Mean of each figure over the scans where it is defined; None where it is defined in none."""
    rows = [asdict(s) for s in scores]
    result: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        result[name] = float(np.mean(values)) if values else None
    return result


def _lesion_level(match: LesionMatch, least: float) -> tuple[float | None, float | None, float | None]:
    """Sensitivity, PPV and F1, where a match needs `least` of the lesion's own voxels."""
    found, expert = shares(match.truth, least)
    right, predicted = shares(match.predicted, least)
    sensitivity, ppv = _ratio(found, expert), _ratio(right, predicted)
    if not expert and not predicted:
        return None, None, None
    if not sensitivity or not ppv:
        return sensitivity, ppv, 0.0
    return sensitivity, ppv, 2 * sensitivity * ppv / (sensitivity + ppv)


def _matthews(tp: int, fp: int, fn: int, tn: int) -> float | None:
    """(TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)), in Python's unbounded integers."""
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(margins) if margins else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
