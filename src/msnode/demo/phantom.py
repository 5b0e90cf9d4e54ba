"""A simulated patient: one axial 2D FLAIR series with planted lesions.

The head is computed on a fine grid (`anatomy`), lesions are planted (`planting`), and the fine grid is
sampled as thick slices with gaps, coil shading and Rician noise. A seed defines a patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from msnode.demo.planting import choose_sites, draw
from msnode.domain.imaging import Grid, Volume
from msnode.train.anatomy import make_tissue, smooth_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.demo.planting import Site
    from msnode.train.anatomy import Field

SLICES, ROWS, COLUMNS = 20, 256, 256
PIXEL_MM = 0.9
SLICE_DISTANCE_MM = 7.0
SLICE_THICKNESS_MM = 5.5

_SUB_SLICES = 5
_PROFILE = np.array([0.6, 1.0, 1.0, 1.0, 0.6], dtype=np.float32)  # 5.5 of 7 mm, with soft flanks
_LOWEST_SLICE_MM = -50.0  # below the anterior commissure
_CENTRE_BEHIND_MM = 10.0  # of the field of view, behind the anterior commissure
_HEAD_SIZE = 0.94  # the template is about 6 % larger than a living brain
_WHITE_MATTER_VALUE = 900.0
_NOISE = 0.022  # of white matter, in air
_GRAIN = 0.025  # fine texture of tissue
_SHADING = 0.05


@dataclass(frozen=True)
class PlantedLesion:
    """A lesion of the simulated patient.

    Attributes:
        label: its value in `Phantom.labels`, from 1.
        region: periventricular, juxtacortical or deep.
        centroid_lps_mm: centre of gravity, LPS mm.
        volume_mm3: volume on the fine grid, before sampling into slices.
        diameter_mm: diameter of a sphere of that volume.
    """

    label: int
    region: str
    centroid_lps_mm: tuple[float, float, float]
    volume_mm3: float
    diameter_mm: float


@dataclass(frozen=True, eq=False)
class Phantom:
    """The FLAIR of a simulated patient.

    Attributes:
        seed: the seed that defines the patient.
        volume: float32 (slice, row, column) with integer values; slices from inferior to superior, rows to
            posterior, columns to the left; a few degrees oblique, as if planned on a tilted head.
        labels: int32 of the same shape: label of the planted lesion in each voxel, 0 for none.
        lesions: the planted lesions, in order of label.
    """

    seed: int
    volume: Volume
    labels: NDArray[np.int32]
    lesions: tuple[PlantedLesion, ...]

    def __post_init__(self) -> None:
        self.labels.setflags(write=False)


def make_patient(seed: int) -> Phantom:
    """Simulate the patient defined by a seed; takes a few seconds and about 1 GB.

    The same seed always gives the same voxels.

    Raises:
        ConfigurationError: the demo extra is not installed.
    """
    rng = np.random.default_rng(seed)
    x, y, z = _head_coordinates(rng)
    tissue = make_tissue(x, y, z, rng)
    spacing = (SLICE_DISTANCE_MM / _SUB_SLICES, PIXEL_MM, PIXEL_MM)
    middles = (np.arange(SLICES) + 0.5) * SLICE_DISTANCE_MM - spacing[0] / 2
    sites = choose_sites(tissue, spacing, middles, rng)
    extra, fine_labels = draw(sites, tissue, spacing, rng)
    values = _acquire(tissue.flair + extra, rng)
    grid = _grid(rng)
    return Phantom(
        seed, Volume(values, grid), _visible(fine_labels), _describe(sites, fine_labels, grid, spacing)
    )


def _head_coordinates(rng: np.random.Generator) -> tuple[Field, Field, Field]:
    """Head coordinates (LPS mm) of the fine grid, from a scaled, slightly rotated and deformed template."""
    shape = (SLICES * _SUB_SLICES, ROWS, COLUMNS)
    sub = SLICE_DISTANCE_MM / _SUB_SLICES
    up = _LOWEST_SLICE_MM + (np.arange(shape[0]) - (_SUB_SLICES - 1) / 2) * sub
    back = (np.arange(ROWS) - (ROWS - 1) / 2) * PIXEL_MM + _CENTRE_BEHIND_MM
    left = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * PIXEL_MM
    grid = np.meshgrid(*(a.astype(np.float32) for a in (up, back, left)), indexing="ij")
    roll, yaw = np.radians(rng.uniform(-2.5, 2.5, size=2)).astype(np.float32)
    sizes = (1 / (_HEAD_SIZE * rng.uniform(0.98, 1.02, size=3))).astype(np.float32)
    z = sizes[0] * (grid[0] + roll * grid[2])
    y = sizes[1] * (grid[1] + yaw * grid[2])
    x = sizes[2] * (grid[2] - roll * grid[0] - yaw * grid[1])
    bend = [smooth_field(rng, shape, (4, 5, 5), 2.5) for _ in range(3)]
    return x + bend[0], y + bend[1], z + bend[2]


def _grid(rng: np.random.Generator) -> Grid:
    """Grid of the acquired slices, tilted like the nodding head."""
    nod = np.radians(rng.uniform(2, 8))
    affine = np.eye(4)
    affine[:3, 0] = SLICE_DISTANCE_MM * np.array([0, -np.sin(nod), np.cos(nod)])
    affine[:3, 1] = PIXEL_MM * np.array([0, np.cos(nod), np.sin(nod)])
    affine[:3, 2] = [PIXEL_MM, 0, 0]
    middle = np.array([(SLICES - 1) / 2, (ROWS - 1) / 2, (COLUMNS - 1) / 2])
    affine[:3, 3] = -affine[:3, :3] @ middle + [0, 5, 0]
    return Grid((SLICES, ROWS, COLUMNS), np.round(affine, 6))


def _through_slices(fine: Field) -> Field:
    """Average the sub-slices of each slice with the slice profile."""
    stacked = fine.reshape(SLICES, _SUB_SLICES, ROWS, COLUMNS)
    return np.asarray(np.tensordot(_PROFILE / _PROFILE.sum(), stacked, axes=(0, 1)), dtype=np.float32)


def _acquire(fine: Field, rng: np.random.Generator) -> Field:
    """Simulate the acquisition: thick slices, tissue texture, coil shading, Rician noise, integer values."""
    image = _through_slices(fine)
    grain = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), (0, 0.7, 0.7))
    image *= 1 + _GRAIN / float(grain.std()) * grain
    image *= 1 + smooth_field(rng, image.shape, (3, 4, 4), _SHADING)
    real, imaginary = (_NOISE * rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    magnitude = np.hypot(image + real, imaginary)
    return np.asarray(np.rint(_WHITE_MATTER_VALUE * magnitude), dtype=np.float32)


def _visible(fine_labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Planted lesion of each acquired voxel: the lesion fills at least half of it, weighted by slice profile.

    A lesion that does not fill half of any voxel gets the voxels that it fills most.
    """
    labels = np.zeros((SLICES, ROWS, COLUMNS), dtype=np.int32)
    for label in range(1, int(fine_labels.max()) + 1):
        share = _through_slices((fine_labels == label).astype(np.float32))
        labels[share >= min(0.5, float(share.max()))] = label
    return labels


def _describe(
    sites: list[Site], fine_labels: NDArray[np.int32], grid: Grid, spacing: tuple[float, float, float]
) -> tuple[PlantedLesion, ...]:
    """Position and size of each lesion, measured on the fine grid."""
    boxes = ndimage.find_objects(fine_labels, max_label=len(sites))
    lesions = []
    for label, (site, box) in enumerate(zip(sites, boxes, strict=True), start=1):
        indices = np.argwhere(fine_labels[box] == label) + [b.start for b in box]
        volume = len(indices) * float(np.prod(spacing))
        acquired = indices.mean(axis=0)
        acquired[0] = (acquired[0] + 0.5) / _SUB_SLICES - 0.5
        x, y, z = grid.to_lps(acquired[np.newaxis])[0]
        diameter = float((6 * volume / np.pi) ** (1 / 3))
        lesions.append(PlantedLesion(label, site.region, (float(x), float(y), float(z)), volume, diameter))
    return tuple(lesions)
