"""Plants lesions of known position and size in white matter, at sites typical of multiple sclerosis.

All positions are on the fine grid: mm from its first voxel along the slice, row and column axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from msnode.train.anatomy import smooth_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.train.anatomy import Field, Tissue

    Position = NDArray[np.float64]
    Spacing = tuple[float, float, float]

# Regions of the McDonald criteria above the tentorium, and equivalent diameters in mm. Lesions in clinical
# axial 2D FLAIR, measured the same way: 5th to 95th percentile 4-16 mm, median 6-8 mm.
_PLAN = (
    ("periventricular", 15.0), ("deep", 12.5), ("periventricular", 11.0), ("periventricular", 10.0),
    ("deep", 9.0), ("juxtacortical", 8.5), ("periventricular", 8.0), ("deep", 7.5), ("juxtacortical", 7.0),
    ("periventricular", 6.5), ("deep", 6.5), ("juxtacortical", 6.0), ("deep", 5.5), ("juxtacortical", 4.5),
)  # fmt: skip
# Intensity relative to white matter before partial volume. After it, intensities match real lesions: means
# 1.18-1.65 (5th to 95th percentile), brightest voxels 1.3-2.1, higher in large lesions.
_PEAK_SMALL, _PEAK_LARGE, _PEAK_SPREAD = 1.4, 1.54, 0.06
_STRIDE = 2  # seeds are chosen on every second voxel
_SLAB = (0.36, 0.85)  # range of slices above the skull base and below the vertex, as a share of the stack
_OFF_CENTRE_MM = 1.5
_CLEARANCE_MM = 5.0
_FROM_MIDLINE_MM = 12.0
_EDGE_MM = 1.0
_VENTRICLE_DEPTH_MM = 25.0


@dataclass(frozen=True, eq=False)
class Site:
    """A lesion to be drawn.

    Attributes:
        region: periventricular, juxtacortical or deep.
        centre: the position of its seed.
        axis: unit vector of its long axis.
        diameter_mm: target diameter of a sphere of its volume.
        peak: intensity as a multiple of white matter.
    """

    region: str
    centre: Position
    axis: Position
    diameter_mm: float
    peak: float


@dataclass(frozen=True, eq=False)
class _Room:
    """Candidate positions for seeds: every second voxel of the fine grid, with distances in mm."""

    white: NDArray[np.bool_]
    to_ventricle: NDArray[np.float64]
    to_grey: NDArray[np.float64]
    step: Position


def choose_sites(
    tissue: Tissue, spacing: Spacing, slice_centres: NDArray[Any], rng: np.random.Generator
) -> list[Site]:
    """Choose sites for the planned lesions, far enough apart to stay separate.

    Args:
        tissue: the head on the fine grid.
        spacing: of the fine grid, mm.
        slice_centres: position along the slice axis of each acquired slice. Seeds are placed near one so
            that thick slices do not hide small lesions: the demo tests the whole loop, not the limit of
            detection.
        rng: random number generator.
    """
    room = _room(tissue, spacing)
    places = np.argwhere(room.white)
    positions = places * room.step
    near = np.abs(positions[:, :1] - slice_centres).min(axis=1) <= _OFF_CENTRE_MM
    midline = (tissue.white.shape[2] - 1) / 2 * spacing[2]
    near &= np.abs(positions[:, 2] - midline) > _FROM_MIDLINE_MM
    ventricle, grey = (d[tuple(places.T)] for d in (room.to_ventricle, room.to_grey))
    sites: list[Site] = []
    for region, diameter in _PLAN:
        radius = diameter / 2
        allowed = near & _suits(region, radius, ventricle, grey)
        for other in sites:
            gap = radius + other.diameter_mm / 2 + _CLEARANCE_MM
            allowed &= np.linalg.norm(positions - other.centre, axis=1) > gap
        candidates = np.flatnonzero(allowed)
        if len(candidates):
            chosen = rng.choice(candidates)
            axis = _long_axis(region, places[chosen], room, rng)
            sites.append(Site(region, positions[chosen], axis, diameter, _peak(diameter, rng)))
    return sites


def _room(tissue: Tissue, spacing: Spacing) -> _Room:
    every = (slice(None, None, _STRIDE),) * 3
    white, grey, depth = tissue.white[every], tissue.grey[every], tissue.depth[every]
    step = np.array(spacing) * _STRIDE
    fluid = (depth > _VENTRICLE_DEPTH_MM) & (white + grey < 0.4)  # noqa: PLR2004 - mostly CSF
    parts, count = ndimage.label(fluid)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:]))
    to_ventricle = ndimage.distance_transform_edt(parts != largest, sampling=step)
    to_grey = ndimage.distance_transform_edt(grey < 0.6, sampling=step)  # noqa: PLR2004 - mostly not grey
    pure = white > 0.85  # noqa: PLR2004 - voxels of white matter only
    slices = len(pure)
    pure[: int(_SLAB[0] * slices)] = False
    pure[int(_SLAB[1] * slices) :] = False
    return _Room(pure, to_ventricle, to_grey, step)


def _suits(
    region: str, radius: float, ventricle: NDArray[np.float64], grey: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which positions suit a lesion of the region, by distance to the ventricles and to grey matter."""
    if region == "periventricular":
        return ventricle <= radius + 1.5
    if region == "juxtacortical":
        return (grey <= 0.6 * radius + 1) & (ventricle > radius + 12)
    return (ventricle > radius + 6) & (grey > 0.6 * radius + 1.5)


def _long_axis(region: str, place: NDArray[np.intp], room: _Room, rng: np.random.Generator) -> Position:
    """Long axis: away from the ventricle (Dawson's fingers), along the cortex, or random."""
    axis = rng.standard_normal(3)
    if region != "deep":
        distance = room.to_ventricle if region == "periventricular" else room.to_grey
        low = np.maximum(place - 3, 0)
        near = distance[tuple(slice(a, b + 4) for a, b in zip(low, place, strict=True))]
        slope = np.array([g.mean() for g in np.gradient(near, *room.step)])
        slope /= max(float(np.linalg.norm(slope)), 1e-6)
        axis = slope if region == "periventricular" else axis - (axis @ slope) * slope
    unit: Position = axis / max(float(np.linalg.norm(axis)), 1e-6)
    return unit


def _peak(diameter: float, rng: np.random.Generator) -> float:
    large = float(np.clip((diameter - 5) / 7, 0, 1))
    spread = float(rng.uniform(-_PEAK_SPREAD, _PEAK_SPREAD))
    return _PEAK_SMALL + (_PEAK_LARGE - _PEAK_SMALL) * large + spread


def draw(
    sites: list[Site], tissue: Tissue, spacing: Spacing, rng: np.random.Generator
) -> tuple[Field, NDArray[np.int32]]:
    """Draw the lesions on the fine grid.

    Returns:
        The intensity to add to `tissue.flair`, and labels 1, 2, … in the order of `sites` for voxels of which
        at least half is lesion, else 0.
    """
    extra = np.zeros(tissue.flair.shape, dtype=np.float32)
    shape: tuple[int, ...] = tissue.flair.shape
    labels = np.zeros(shape, dtype=np.int32)
    for label, site in enumerate(sites, start=1):
        reach = 1.2 * site.diameter_mm + 3
        box = tuple(
            slice(max(0, int((c - reach) / s)), min(n, int((c + reach) / s) + 2))
            for c, s, n in zip(site.centre, spacing, shape, strict=True)
        )
        fraction = _shape(site, box, spacing, rng) * (tissue.white[box] + 0.6 * tissue.grey[box])
        extra[box] = np.maximum(extra[box], fraction * (site.peak - 1))
        labels[box][fraction >= 0.5] = label  # noqa: PLR2004 - half of the voxel
    return extra, labels


def _shape(site: Site, box: tuple[slice, ...], spacing: Spacing, rng: np.random.Generator) -> Field:
    """Lesion fraction, 0-1, of each voxel: an irregular ellipsoid of revolution with a soft edge."""
    offsets = [np.arange(b.start, b.stop) * s - c for b, s, c in zip(box, spacing, site.centre, strict=True)]
    grid = np.stack(np.meshgrid(*offsets, indexing="ij"))
    along = np.tensordot(site.axis, grid, axes=1)
    across = np.sqrt(np.maximum((grid**2).sum(axis=0) - along**2, 0))
    elongation, radius = float(rng.uniform(1.1, 1.7)), site.diameter_mm / 2
    long, short = radius * elongation ** (2 / 3), radius * elongation ** (-1 / 3)
    bumps = smooth_field(rng, along.shape, (5, 5, 5), 0.12)
    relative = np.hypot(along / long, across / short) + bumps
    return np.asarray(np.clip(0.5 + (1 - relative) * short / (2 * _EDGE_MM), 0, 1), dtype=np.float32)
