"""Reads the lesions of the SEG and compares them with the planted ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread
from scipy import ndimage

from msnode.demo.picture import level
from msnode.errors import NotAVolume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

    from msnode.demo.phantom import Phantom, PlantedLesion

ENOUGH = 0.8
"""Share of the lesions larger than `COUNTED_MM` that must be found."""
COUNTED_MM = 5.0

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class FoundLesion:
    """One segment of the SEG.

    Attributes:
        number: Segment Number (0062,0004).
        points: voxel centres, (n, 3), LPS mm.
        volume_mm3: number of voxels times the voxel volume.
        levels: position of each of its frames along the normal, mm.
    """

    number: int
    points: NDArray[np.float64]
    volume_mm3: float
    levels: tuple[float, ...]

    @property
    def centroid_lps_mm(self) -> tuple[float, float, float]:
        """Mean of the voxel centres."""
        x, y, z = self.points.mean(axis=0)
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class Match:
    """A planted lesion and the segments that touch it; without segments, it was missed."""

    planted: PlantedLesion
    found: tuple[FoundLesion, ...]


@dataclass(frozen=True)
class Comparison:
    """Comparison of planted and found lesions.

    Attributes:
        matches: one per planted lesion, in order of label.
        extra: segments that do not touch any planted lesion.
    """

    matches: tuple[Match, ...]
    extra: tuple[FoundLesion, ...]

    @property
    def counted(self) -> tuple[Match, ...]:
        """Matches of the lesions larger than `COUNTED_MM`."""
        return tuple(m for m in self.matches if m.planted.diameter_mm > COUNTED_MM)

    @property
    def share_found(self) -> float:
        """Share of the counted lesions that were found, 0-1."""
        return sum(bool(m.found) for m in self.counted) / len(self.counted)


def read_seg(path: Path) -> tuple[FoundLesion, ...]:
    """Segments of a BINARY SEG in order of number, positioned by the geometry of their frames."""
    seg = dcmread(path)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    row_mm, column_mm = (float(v) for v in measures.PixelSpacing)
    slice_mm = float(measures.get("SpacingBetweenSlices") or measures.SliceThickness)
    along_row, along_column = np.array(orientation, dtype=np.float64).reshape(2, 3)
    points: dict[int, list[NDArray[np.float64]]] = {}
    levels: dict[int, list[float]] = {}
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        plane = group.PlanePositionSequence[0]
        plane.ImageOrientationPatient = orientation
        rows, columns = np.nonzero(frame)
        position = np.array(plane.ImagePositionPatient, dtype=np.float64)
        number = _segment_number(group, shared)
        inside = position + np.outer(columns * column_mm, along_row) + np.outer(rows * row_mm, along_column)
        points.setdefault(number, []).append(inside)
        levels.setdefault(number, []).append(level(plane))
    voxel_mm3 = row_mm * column_mm * slice_mm
    return tuple(
        FoundLesion(number, inside, len(inside) * voxel_mm3, tuple(levels[number]))
        for number, inside in ((n, np.concatenate(points[n])) for n in sorted(points))
        if len(inside)
    )


def _segment_number(group: Dataset, shared: Dataset) -> int:
    """Segment of a frame; a SEG with one segment may give it once, in the shared functional groups."""
    holder = group if "SegmentIdentificationSequence" in group else shared
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def compare(phantom: Phantom, found: Sequence[FoundLesion]) -> Comparison:
    """Match by contact: a segment belongs to every planted lesion that it touches or is adjacent to.

    Adjacent means one voxel away, diagonals included: the border of a lesion that a thick slice shows only
    partially is not well defined.

    Raises:
        NotAVolume: a segment lies outside the phantom's volume.
    """
    touched: dict[int, list[FoundLesion]] = {lesion.label: [] for lesion in phantom.lesions}
    extra = []
    grown = {
        lesion.label: ndimage.binary_dilation(phantom.labels == lesion.label, structure=_NEIGHBOURS)
        for lesion in phantom.lesions
    }
    for one in found:
        voxels = tuple(_indices(phantom, one.points).T)
        hits = [label for label, mask in grown.items() if mask[voxels].any()]
        for label in hits:
            touched[label].append(one)
        if not hits:
            extra.append(one)
    matches = tuple(Match(lesion, tuple(touched[lesion.label])) for lesion in phantom.lesions)
    return Comparison(matches, tuple(extra))


def _indices(phantom: Phantom, points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Nearest voxel (slice, row, column) of each position.

    Raises:
        NotAVolume: a position is outside the volume, so the SEG does not match its source.
    """
    inverse = np.linalg.inv(phantom.volume.grid.affine)
    indices = np.asarray(np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]), dtype=np.intp)
    if (indices < 0).any() or (indices >= phantom.volume.grid.shape).any():
        raise NotAVolume("the SEG has lesion voxels outside the series that was sent")
    return indices
