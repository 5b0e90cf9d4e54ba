"""One scan that a bundle has read, scored against the expert's mask where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msnode.evaluate.metrics import score, score_lesions
from msnode.evaluate.pictures import choose_pictures
from msnode.evaluate.slices import count_voxels

if TYPE_CHECKING:
    from msnode.domain.findings import LesionMap
    from msnode.domain.imaging import Volume
    from msnode.evaluate.lesionwise import LesionMatch
    from msnode.evaluate.metrics import Scores
    from msnode.evaluate.pictures import Picture
    from msnode.evaluate.slices import SliceVoxels


@dataclass(frozen=True, eq=False)
class CaseResult:
    """What a bundle found in one scan; everything lies on the source grid.

    Attributes:
        case: name of the case.
        patient: whom it shows: scans of one patient are never treated as independent.
        fold: the fold that read it, where single folds did; None where the whole ensemble did.
        image: the FLAIR, for the pictures.
        truth: the expert's mask 0/1, or None where nobody drew one.
        lesions: what the bundle found.
        probability: lesion probability 0-1.
        held_out: whether no network that read it had seen this patient in training.
        ceiling: what a faultless network would have found: the expert's mask, sent through the preparation,
            back, and through threshold and smallest volume; None without a mask.
    """

    case: str
    patient: str
    fold: str | None
    image: Volume
    truth: Volume | None
    lesions: LesionMap
    probability: Volume
    held_out: bool
    ceiling: LesionMap | None = None


@dataclass(frozen=True, eq=False)
class CaseEvaluation:
    """The figures of one scan, and a few small pictures; no volume is kept.

    Attributes:
        case: name of the case.
        patient: whom it shows.
        fold: the fold that read it, or None.
        held_out: whether the patient was unseen.
        lesion_count: lesions found.
        lesion_ml: their volume, ml.
        scores: agreement with the expert; None without an expert's mask, as are the next two.
        match: what became of each lesion.
        slices: voxels a slice.
        pictures: slices to look at, in the order of the stack.
        ceiling: agreement of `CaseResult.ceiling` with the expert; None where there is none.
        thickest_mm: largest side of a voxel, mm: the distance of thick slices.
    """

    case: str
    patient: str
    fold: str | None
    held_out: bool
    lesion_count: int
    lesion_ml: float
    scores: Scores | None
    match: LesionMatch | None
    slices: SliceVoxels | None
    pictures: tuple[Picture, ...]
    ceiling: Scores | None
    thickest_mm: float


def evaluate_case(result: CaseResult) -> CaseEvaluation:
    """Score one scan.

    Args:
        result: the scan.

    Raises:
        ValueError: the image, mask and lesions lie on different grids.
    """
    if not result.image.grid.same_as(result.lesions.grid):
        raise ValueError(f"{result.case}: image and prediction lie on different grids")
    scores = match = slices = ceiling = None
    if result.truth is not None:
        scores, match = score_lesions(result.truth, result.lesions)
        ceiling = None if result.ceiling is None else score(result.truth, result.ceiling)
        slices = count_voxels(result.truth.data > 0, result.lesions.labels > 0)
    return CaseEvaluation(
        case=result.case,
        patient=result.patient,
        fold=result.fold,
        held_out=result.held_out,
        lesion_count=len(result.lesions.lesions),
        lesion_ml=sum(lesion.volume_mm3 for lesion in result.lesions.lesions) / 1000,
        scores=scores,
        match=match,
        slices=slices,
        pictures=choose_pictures(result.image, result.truth, result.lesions),
        ceiling=ceiling,
        thickest_mm=max(result.image.grid.spacing),
    )
