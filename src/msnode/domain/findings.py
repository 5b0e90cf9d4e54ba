"""What a reading found: lesions on the source grid, and their identity across time.

Positions are in the DICOM patient coordinate system (LPS, mm); volumes are in mm3 unless named otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msnode.domain.imaging import freeze

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msnode.domain.imaging import Grid

OUTSIDE_SCOPE = "Outside the model's scope: "
LOW_QUALITY = "Low quality: "
"""How sentences on scope and on quality begin; by this a report also says them in code."""


@dataclass(frozen=True)
class Lesion:
    """One connected component of the lesion map.

    Attributes:
        label: its value in `LesionMap.labels`, from 1, by falling volume.
        voxel_count: number of voxels.
        volume_mm3: volume.
        centroid_lps_mm: mean position of its voxels, LPS mm.
        longest_axial_mm: longest axial diameter: largest distance between the centres of voxels of one layer,
            plus one voxel (the wider of its two sides in that layer), mm. Layers are counted along the array
            axis closest to the patient's z axis, whatever the plane that was acquired.
        mean_probability: mean lesion probability inside it, 0-1.
        spread: mean standard deviation of that probability over the ensemble's members, 0-0.5.
        confidence: calibrated probability that an expert would mark it, 0-1; None where the bundle is
            not calibrated.
    """

    label: int
    voxel_count: int
    volume_mm3: float
    centroid_lps_mm: tuple[float, float, float]
    longest_axial_mm: float
    mean_probability: float
    spread: float = 0.0
    confidence: float | None = None


@dataclass(frozen=True, eq=False)
class LesionMap:
    """Lesions on the source grid: `labels` is int32 (slice, row, column), 0 = background."""

    labels: NDArray[np.int32]
    grid: Grid
    lesions: tuple[Lesion, ...]

    def __post_init__(self) -> None:
        freeze(self.labels)


@dataclass(frozen=True)
class Finding:
    """A lesion with its identity across time.

    Attributes:
        lesion: the component.
        tracking_id: short human-readable identifier, such as "Lesion 3".
        tracking_uid: unique identifier (112040 DCM), derived, never random.
    """

    lesion: Lesion
    tracking_id: str
    tracking_uid: str


@dataclass(frozen=True)
class Findings:
    """What one reading found: lesions by falling volume, their count and total volume in mm3.

    Attributes:
        brain_volume_ml: brain and ventricles inside the stack, ml; None where it was not measured.
        limitations: what a reader of the result should know of scope and quality, one sentence each, which
            begins with `OUTSIDE_SCOPE` or `LOW_QUALITY`.
    """

    lesions: tuple[Finding, ...]
    brain_volume_ml: float | None = None
    limitations: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of lesions."""
        return len(self.lesions)

    @property
    def total_volume_mm3(self) -> float:
        """Sum of the lesion volumes, mm3."""
        return float(sum(f.lesion.volume_mm3 for f in self.lesions))
