"""Which lesions of the expert and of the model share voxels: the base of every lesion level figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from msnode.domain.findings import LesionMap

ENOUGH_OVERLAP = 0.10
"""The stricter criterion of a match: a tenth of the lesion's own voxels."""

SIZE_EDGES_MM3 = (0.0, 10.0, 100.0, 1000.0, float("inf"))
"""Size bins of the expert's lesions: from one edge (included) to the next (not included)."""


@dataclass(frozen=True)
class MatchedLesion:
    """One lesion and how much of it the other side marked.

    Attributes:
        volume_mm3: its volume.
        overlap: share of its voxels that the other side marked, 0-1.
        confidence: the model's calibrated confidence, 0-1; None for the expert's lesions and for bundles
            that are not calibrated.
    """

    volume_mm3: float
    overlap: float
    confidence: float | None = None

    def matched(self, least: float = 0.0) -> bool:
        """Whether the overlap is above 0 and at least `least`."""
        return self.overlap > 0 and self.overlap >= least - 1e-9


@dataclass(frozen=True)
class LesionMatch:
    """The lesions of one scan, by falling volume."""

    truth: tuple[MatchedLesion, ...]
    predicted: tuple[MatchedLesion, ...]

    @property
    def false_positives(self) -> int:
        """Predicted lesions that share no voxel with the expert's mask."""
        return sum(not lesion.matched() for lesion in self.predicted)

    def found_by_size(self) -> tuple[tuple[int, int], ...]:
        """(found by any overlap, all) of the expert's lesions, one entry a size bin."""
        volumes = [lesion.volume_mm3 for lesion in self.truth]
        bins = np.searchsorted(SIZE_EDGES_MM3, np.asarray(volumes) + 1e-6, side="right") - 1
        return tuple(
            (
                sum(one.matched() for one, at in zip(self.truth, bins, strict=True) if at == k),
                int((bins == k).sum()),
            )
            for k in range(len(SIZE_EDGES_MM3) - 1)
        )


def match_lesions(
    expert: LesionMap, truth: NDArray[np.bool_], predicted: LesionMap, marked: NDArray[np.bool_]
) -> LesionMatch:
    """Compare the lesions of two maps on one grid.

    Args:
        expert: the expert's lesions.
        truth: every voxel of the expert's mask (slice, row, column).
        predicted: the model's lesions.
        marked: every voxel the model marked.
    """
    return LesionMatch(_overlaps(expert, marked), _overlaps(predicted, truth))


def shares(lesions: Iterable[MatchedLesion], least: float = 0.0) -> tuple[int, int]:
    """(matched, all) of some lesions; a match is any overlap, or at least `least` of the lesion."""
    flags = [lesion.matched(least) for lesion in lesions]
    return sum(flags), len(flags)


def _overlaps(lesions: LesionMap, other: NDArray[np.bool_]) -> tuple[MatchedLesion, ...]:
    shared = np.bincount(lesions.labels[other], minlength=len(lesions.lesions) + 1)
    return tuple(
        MatchedLesion(one.volume_mm3, float(shared[one.label]) / one.voxel_count, one.confidence)
        for one in lesions.lesions
    )
