"""Images on their way to a network: from a received instance to the probability of lesions.

Arrays are C-ordered (slice, row, column). Positions are in the DICOM patient coordinate system
(LPS, mm; PS3.3 C.7.6.2.1.1). Arrays in these types are read-only.

    Instance → Series → Selection → SourceVolume → Prepared → Prediction
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

    from msnode.domain.provenance import PassedOver
    from msnode.errors import Rejected

FLAIR = "flair"
"""The one input channel of today's bundles."""


def freeze(array: NDArray[Any]) -> None:
    """Make an array read-only, as every array in a domain type is."""
    array.setflags(write=False)


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular voxel grid.

    Attributes:
        shape: number of slices, rows, columns.
        affine: (4, 4) float64, voxel index (slice, row, column, 1) → LPS mm, voxel centres.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        freeze(self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along slice, row and column axis, mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, mm3 (of the parallelepiped, so also right for a sheared grid)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_lps(self, indices: NDArray[Any]) -> NDArray[np.float64]:
        """Positions in LPS mm, shape (n, 3), of voxel indices, shape (n, 3) as (slice, row, column)."""
        return np.asarray(indices, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def same_as(self, other: Grid, *, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have one shape and voxel positions within `tolerance_mm` at every corner."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1).T
        return bool(np.abs(self.to_lps(corners) - other.to_lps(corners)).max() <= tolerance_mm)


@dataclass(frozen=True, eq=False)
class Volume:
    """Values on a grid: `data` is (slice, row, column)."""

    data: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.data.shape != self.grid.shape:
            raise ValueError(f"data of shape {self.data.shape} on a grid of shape {self.grid.shape}")
        freeze(self.data)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over type, shape and values of the data and the affine to a millionth of a mm."""
        affine = (np.round(self.grid.affine, 6) + 0.0).tolist()  # adding zero turns -0.0 into 0.0
        described = json.dumps([str(self.data.dtype), *self.grid.shape, affine])
        hasher = hashlib.sha256(described.encode())
        hasher.update(np.ascontiguousarray(self.data).data)
        return hasher.hexdigest()


@dataclass(frozen=True, eq=False)
class Instance:
    """One received or read SOP instance.

    Attributes:
        path: where the bytes lie (a complete DICOM file).
        digest: SHA-256 of those bytes, 64 hex digits.
        header: the data set without pixel data and without malformed elements.
        malformed: keywords of the elements that were left out because their value cannot be parsed.
    """

    path: Path
    digest: str
    header: Dataset
    malformed: frozenset[str] = frozenset()

    @property
    def sop_instance_uid(self) -> str:
        """(0008,0018)."""
        return str(self.header.SOPInstanceUID)

    @property
    def sop_class_uid(self) -> str:
        """(0008,0016)."""
        return str(self.header.SOPClassUID)


@dataclass(frozen=True, eq=False)
class Series:
    """The instances of one series, in no particular order.

    Attributes:
        missing: why instances that came are not among them; empty where all are.
    """

    series_instance_uid: str
    study_instance_uid: str
    instances: tuple[Instance, ...]
    missing: str = ""


@dataclass(frozen=True, eq=False)
class Selection:
    """What to read in a study.

    Attributes:
        series: channel name → series; empty where nothing can be read.
        passed_over: every series not taken, each with its reason.
        reason: why this series was taken, or why none was.
        refusal: the error that ends the job where nothing can be read, else None.
        asked_for: whether the study held a candidate, so that silence would be a wrong answer;
            a study without one was merely routed past the node and is recorded, not reported.
        remarks: what a reader of the results should know of the choice.
    """

    series: Mapping[str, Series]
    passed_over: tuple[PassedOver, ...]
    reason: str
    refusal: Rejected | None = None
    asked_for: bool = True
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Frame:
    """One source plane: an instance, and the frame in it (from 1; always 1 in a classic image)."""

    instance: Instance
    frame_number: int


@dataclass(frozen=True, eq=False)
class SourceVolume:
    """A series as a volume of modality values.

    Attributes:
        volume: float32 (slice, row, column), slices ordered along the stack's normal (row x column).
        frames: the source plane of each slice, same order.
        series: where they come from.
        warnings: what a reader of the result should know (lossy compression, defects repaired, …).
    """

    volume: Volume
    frames: tuple[Frame, ...]
    series: Series
    warnings: tuple[str, ...] = ()

    @property
    def image_digest(self) -> str:
        """SHA-256 over values, geometry, and instance and frame of each slice in order.

        Headers beside these and the transfer syntax have no part in it: equal digests give equal lesions.
        """
        order = [[f.instance.sop_instance_uid, f.frame_number] for f in self.frames]
        return hashlib.sha256(json.dumps([order, self.volume.digest]).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a network sees.

    Attributes:
        data: float32 (channel, slice, row, column).
        grid: the prepared grid (shape as data.shape[1:]).
        source: the grid to return to.
        recipe: name of the recipe that made it.
        brain: uint8 (slice, row, column) on `grid`: 0 outside, 1 brain, 2 ventricles; None where the recipe
            strips no skull.
        warnings: what a reader of the result should know of the preparation, one sentence each.
    """

    data: NDArray[np.float32]
    grid: Grid
    source: Grid
    recipe: str
    brain: NDArray[np.uint8] | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self.data)
        if self.brain is not None:
            freeze(self.brain)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a bundle's networks say about a prepared volume.

    Attributes:
        probability: float32 (class, slice, row, column): softmax of the logits' mean over the members
            (folds and mirror images).
        spread: float32 (slice, row, column): standard deviation over the members of the last class'
            probability; zeros where there is one member.
    """

    probability: NDArray[np.float32]
    spread: NDArray[np.float32]

    def __post_init__(self) -> None:
        freeze(self.probability)
        freeze(self.spread)
