"""Frozen types that flow between stages.

Arrays are C-ordered (slice, row, column). Positions are in the DICOM patient coordinate system
(LPS, mm; PS3.3 C.7.6.2.1.1). Arrays in these types are read-only.

    Instance → Series → Selection → SourceVolume → Prepared → probability → LesionMap → Findings → Output
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

    from msnode.errors import Rejected

FLAIR = "flair"
"""The one input channel of today's bundles."""

OUTSIDE_SCOPE = "Outside the model's scope: "
LOW_QUALITY = "Low quality: "
"""How sentences on scope and on quality begin; by this a report also says them in code."""


def _freeze(array: NDArray[Any]) -> None:
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
        _freeze(self.affine)

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
        _freeze(self.data)

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
        header: the data set without pixel data.
    """

    path: Path
    digest: str
    header: Dataset

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


@dataclass(frozen=True)
class PassedOver:
    """A series that was not taken, and why."""

    series_instance_uid: str
    reason: str


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
    """

    series: Mapping[str, Series]
    passed_over: tuple[PassedOver, ...]
    reason: str
    refusal: Rejected | None = None
    asked_for: bool = True


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
        _freeze(self.data)
        if self.brain is not None:
            _freeze(self.brain)


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
        _freeze(self.probability)
        _freeze(self.spread)


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
        _freeze(self.labels)


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


@dataclass(frozen=True)
class ModelIdentity:
    """Which bundle made a result: name, version and SHA-256 of its manifest."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """What a result was made from; results are a function of this and the source alone.

    Attributes:
        started_at: the job's recorded start: every date in every object comes from here.
        revision: 0 for the first reading of a study.
        model: the bundle; None where a study was rejected before a bundle was chosen.
        msnode_version: version of this package.
        runtime: what ran the network and in which precision, such as "openvino-cpu-f32".
        settings_digest: SHA-256 over the settings that change results.
        known_series_numbers: numbers already used in the study.
        replaced_reports: kind of report → SOP Instance UID in the latest earlier revision that a destination
            has; empty where there is none.
    """

    started_at: datetime
    revision: int
    model: ModelIdentity | None
    msnode_version: str
    runtime: str
    settings_digest: str
    known_series_numbers: frozenset[int] = field(default_factory=frozenset)
    replaced_reports: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Output:
    """One result object, complete with file meta information and ready to write.

    Attributes:
        kind: one of `encode.kinds.KIND_NUMBERS`.
        dataset: the object.
    """

    kind: str
    dataset: Dataset

    @property
    def sop_instance_uid(self) -> str:
        """(0008,0018)."""
        return str(self.dataset.SOPInstanceUID)
