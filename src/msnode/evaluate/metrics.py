"""Agreement of a lesion map with an expert's mask, by voxel and by lesion, on the source grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from msnode.domain import Volume
from msnode.lesions import find_lesions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.domain import LesionMap


@dataclass(frozen=True)
class Scores:
    """Agreement of one scan; a ratio whose denominator is 0 is None.

    Attributes:
        dice: 2 |A and B| / (|A| + |B|) over voxels.
        ppv: share of predicted voxels that the expert marked.
        sensitivity: share of the expert's voxels that were predicted.
        iou: |A and B| / |A or B|.
        lesion_sensitivity: share of the expert's lesions that share a voxel with the prediction.
        lesion_ppv: share of predicted lesions that share a voxel with the expert's mask.
        lesion_f1: harmonic mean of the two.
        truth_count: number of the expert's lesions; they obey the same smallest volume.
        predicted_count: number of predicted lesions.
        truth_ml: the expert's lesion volume, ml.
        predicted_ml: predicted lesion volume, ml.
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


def score(truth: Volume, predicted: LesionMap, *, min_volume_mm3: float) -> Scores:
    """Compare one scan.

    Args:
        truth: expert mask 0/1 on the source grid.
        predicted: lesions on the same grid.
        min_volume_mm3: smallest of the expert's lesions that counts (26-connected, as everywhere). Voxel
            figures use the whole mask.

    Raises:
        ValueError: the grids differ.
    """
    if not truth.grid.same_as(predicted.grid):
        raise ValueError("truth and prediction lie on different grids")
    a, b = truth.data > 0, predicted.labels > 0
    both, either = int((a & b).sum()), int((a | b).sum())
    expert = find_lesions(Volume(a.astype(np.uint8), truth.grid), threshold=1, min_volume_mm3=min_volume_mm3)
    hit = len(set(np.unique(expert.labels[b])) - {0})
    right = len(set(np.unique(predicted.labels[a])) - {0})
    lesion_sensitivity = _ratio(hit, len(expert.lesions))
    lesion_ppv = _ratio(right, len(predicted.lesions))
    voxel_ml = truth.grid.voxel_volume_mm3 / 1000
    return Scores(
        dice=_ratio(2 * both, int(a.sum()) + int(b.sum())),
        ppv=_ratio(both, int(b.sum())),
        sensitivity=_ratio(both, int(a.sum())),
        iou=_ratio(both, either),
        lesion_sensitivity=lesion_sensitivity,
        lesion_ppv=lesion_ppv,
        lesion_f1=_harmonic(lesion_sensitivity, lesion_ppv),
        truth_count=len(expert.lesions),
        predicted_count=len(predicted.lesions),
        truth_ml=int(a.sum()) * voxel_ml,
        predicted_ml=int(b.sum()) * voxel_ml,
    )


def mean(scores: Sequence[Scores]) -> dict[str, float | None]:
    """Mean of each figure over the scans where it is defined; None where it is defined in none."""
    rows = [asdict(s) for s in scores]
    result: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        result[name] = float(np.mean(values)) if values else None
    return result


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _harmonic(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b else 0.0
