"""The steps that recipes are made of: pure functions from Volume to Volume.

Every step works along the axes of the voxel grid, never across them, so that a value moves only inside
its own plane and the way back (`recipes.restore`) is exact for every orientation, oblique ones included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from msnode.domain.imaging import Grid, Volume
from msnode.errors import NotAVolume

if TYPE_CHECKING:
    from numpy.typing import NDArray

THIN_MM = 2.5
"""Slices closer to each other than this are thin."""


def to_axial(volume: Volume) -> Volume:
    """Order the axes as an axial stack.

    The nearest of the 48 permutations and flips by direction cosines is taken; values are moved, never
    interpolated, so an oblique acquisition stays in its own planes.

    Args:
        volume: any orientation, LPS affine.

    Returns:
        The same voxels; slices run inferior → superior (+z), rows anterior → posterior (+y), columns
        right → left (+x).
    """
    directions = volume.grid.affine[:3, :3] / np.array(volume.grid.spacing)
    order = _nearest_permutation(directions)
    data = np.transpose(volume.data, order)
    affine = volume.grid.affine.copy()
    affine[:, :3] = affine[:, order]
    for axis, lps in enumerate((2, 1, 0)):
        if affine[lps, axis] < 0:
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
            data = np.flip(data, axis)
    shape = (data.shape[0], data.shape[1], data.shape[2])
    return Volume(np.ascontiguousarray(data), Grid(shape, affine))


def _nearest_permutation(directions: NDArray[np.float64]) -> list[int]:
    """Index axes that serve as slice (z), row (y) and column (x) axis: best total alignment."""
    permutations = ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
    alignment = np.abs(directions)
    return max(permutations, key=lambda p: alignment[2, p[0]] + alignment[1, p[1]] + alignment[0, p[2]])


def through_plane(volume: Volume, *, thickness_mm: float) -> Volume:
    """Average thin slices (distance under 2.5 mm) into slabs of about `thickness_mm`.

    A 2D network trained on thick slices sees too little partial volume in a 1 mm slice. Slabs are equally
    thick, do not overlap and cover every slice; a slice on the border of two is shared by its overlap.

    Args:
        volume: axial order.
        thickness_mm: wanted slab thickness.

    Returns:
        The slabs on their grid; the volume itself where its slices are thick already, or as thick as wanted.
    """
    distance = volume.grid.spacing[0]
    count = volume.data.shape[0]
    each = round(thickness_mm / distance)
    if distance >= THIN_MM or each <= 1 or count < 2 * each:
        return volume
    slabs = round(count / each)
    step = count / slabs
    edges = step * np.arange(slabs + 1)
    slices = np.arange(count)
    overlap = np.minimum(edges[1:, None], slices + 1) - np.maximum(edges[:-1, None], slices)
    return _sampled(volume, 0, np.clip(overlap, 0, 1) / step, (step - 1) / 2, step)


def in_plane(volume: Volume, *, spacing_mm: float) -> Volume:
    """Bring rows and columns to `spacing_mm`, area-correct; the field of view is kept.

    The number of pixels is rounded, so a border may move by a quarter of a pixel. A grid within 0.5 % of
    the spacing keeps its own voxels: interpolation would only blur it.

    Args:
        volume: axial order.
        spacing_mm: distance between pixel centres along rows and columns.

    Returns:
        The volume with isotropic pixels, centred on the same point.
    """
    for axis in (1, 2):
        step = spacing_mm / volume.grid.spacing[axis]
        if abs(step - 1) > 0.005:  # noqa: PLR2004 - the tolerance that the docstring states
            size = max(1, round(volume.data.shape[axis] / step))
            volume = _resample(volume, axis, size, step)
    return volume


def resize(volume: Volume, *, rows: int, columns: int) -> Volume:
    """The same field of view in `rows` x `columns` pixels, area-correct (same paper, preprocessing step 3).

    Args:
        volume: axial order.
        rows: number of rows.
        columns: number of columns.
    """
    for axis, size in ((1, rows), (2, columns)):
        old = volume.data.shape[axis]
        if old != size:
            volume = _resample(volume, axis, size, old / size)
    return volume


def crop(volume: Volume, box: tuple[slice, slice, slice]) -> Volume:
    """The voxels of `box` (plain slices with start and stop) on their own grid."""
    data = np.ascontiguousarray(volume.data[box])
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    return Volume(data, Grid((data.shape[0], data.shape[1], data.shape[2]), affine))


def finite(volume: Volume) -> NDArray[np.float32]:
    """The values as float32.

    Raises:
        NotAVolume: one of them is not finite.
    """
    data = volume.data.astype(np.float32)
    if not np.isfinite(data).all():
        raise NotAVolume("the volume holds values that are not finite numbers")
    return data


def strip(volume: Volume, brain: Volume) -> Volume:
    """Set what is not brain (label 0) to 0 (same paper, step 1)."""
    return Volume(np.where(brain.data > 0, volume.data, 0).astype(np.float32), volume.grid)


def min_max(volume: Volume, brain: Volume | None) -> Volume:
    """Bring intensities to [0, 1] (same paper, step 2): minimum and maximum inside the brain; outside it 0.

    A constant volume becomes zeros.

    Raises:
        NotAVolume: a value is not finite.
    """
    data = finite(volume)
    inside = np.ones(data.shape, bool) if brain is None else brain.data > 0
    low, high = (data[inside].min(), data[inside].max()) if inside.any() else (0.0, 0.0)
    if high <= low:
        return Volume(np.zeros_like(data), volume.grid)
    return Volume(np.where(inside, (data - low) / (high - low), 0).astype(np.float32), volume.grid)


def unit_range(volume: Volume, brain: Volume | None = None) -> Volume:
    """Bring intensities to [0, 1] as `min_max` does, but robustly and for a whole head.

    0 is the first percentile of all voxels (air); 1 is the 99.5th percentile of the foreground, the
    voxels brighter than a tenth of the way to the 99th percentile. What lies outside is clipped. A constant
    volume becomes zeros. `brain` is not used: a step takes it as every step of values does.

    Raises:
        NotAVolume: a value is not finite.
    """
    del brain
    data = finite(volume)
    low, high = np.percentile(data, [1.0, 99.0])
    foreground = data[data > low + 0.1 * (high - low)]
    if foreground.size:
        high = np.percentile(foreground, 99.5)
    if high <= low:
        return Volume(np.zeros_like(data), volume.grid)
    return Volume(np.clip((data - low) / (high - low), 0, 1).astype(np.float32), volume.grid)


def binarise(mask: Volume) -> Volume:
    """Training masks as 0 and 1, whatever value the annotation tool wrote (same paper, step 4)."""
    return Volume((mask.data > 0).astype(np.uint8), mask.grid)


def slice_entropy(mask: Volume) -> NDArray[np.float64]:
    """Shannon entropy of each slice's mask, bits, shape (slice,): H = -sum p log2 p (same paper, step 5)."""
    share = mask.data.reshape(mask.data.shape[0], -1).astype(bool).mean(axis=1)
    p = np.stack([share, 1 - share])
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, -p * np.log2(p), 0.0)
    return np.asarray(terms.sum(axis=0))


def resampling_matrix(positions: NDArray[np.float64], size: int, width: float) -> NDArray[np.float32]:
    """Weights of a one-dimensional linear interpolation, shape (len(positions), size); rows sum to 1.

    Args:
        positions: where to sample, in indices of the input axis; outside it the edge value holds.
        size: length of the input axis.
        width: half the width of the triangle in input indices: 1 interpolates; the sampling step, where
            larger, averages over the new voxel (no aliasing).
    """
    clamped = np.clip(positions, 0, size - 1)
    distance = np.abs(clamped[:, None] - np.arange(size)[None, :])
    weights = np.clip(1 - distance / max(width, 1.0), 0, None)
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised.astype(np.float32)


def apply_along(data: NDArray[np.float32], weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """`weights` (new, old) applied along one axis of `data`."""
    moved = np.moveaxis(np.tensordot(weights, data, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(moved)


def _resample(volume: Volume, axis: int, size: int, step: float) -> Volume:
    """`size` samples `step` old voxels apart along one axis, centred on the old field of view."""
    old = volume.data.shape[axis]
    first = (old - 1) / 2 - step * (size - 1) / 2
    weights = resampling_matrix(first + step * np.arange(size), old, step)
    return _sampled(volume, axis, weights, first, step)


def _sampled(
    volume: Volume, axis: int, weights: NDArray[np.floating[Any]], first: float, step: float
) -> Volume:
    """`weights` (new, old) along one axis; new samples lie `step` old voxels apart from `first` on."""
    data = apply_along(volume.data.astype(np.float32), weights.astype(np.float32), axis)
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * first
    affine[:3, axis] *= step
    return Volume(data, Grid((data.shape[0], data.shape[1], data.shape[2]), affine))
