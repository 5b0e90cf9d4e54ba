"""The one definition of a lesion, used wherever lesions are counted, measured or matched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import pdist

from msnode.domain.findings import Lesion, LesionMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain.imaging import Grid, Volume

_CONNECTED_26 = np.ones((3, 3, 3), dtype=bool)


def find_lesions(
    probability: Volume, *, threshold: float, min_volume_mm3: float, spread: Volume | None = None
) -> LesionMap:
    """Lesions: 26-connected components of `probability` >= `threshold`, at least `min_volume_mm3` large.

    Args:
        probability: lesion probability 0-1 (slice, row, column) on the source grid.
        threshold: smallest probability that counts as lesion.
        min_volume_mm3: smaller components are dropped.
        spread: standard deviation of that probability over the ensemble's members, on the same grid;
            without it the lesions' spread is 0.

    Returns:
        The lesion map; labels run from 1 by falling volume, ties by position in the array, so that
        one input always gives one numbering. Confidence is filled in by who knows the bundle.

    Raises:
        ValueError: `spread` lies on another grid.
    """
    grid = probability.grid
    if spread is not None and not spread.grid.same_as(grid):
        raise ValueError("probability and spread lie on different grids")
    labels = np.zeros(grid.shape, dtype=np.int32)  # takes memory only where lesions are written
    mask = probability.data >= threshold
    corner = _bounds(mask)
    components, count = ndimage.label(mask[corner], structure=_CONNECTED_26)
    sizes = np.bincount(components[mask[corner]], minlength=count + 1)
    smallest = min_volume_mm3 / grid.voxel_volume_mm3 - 1e-6
    kept = [i for i in range(1, count + 1) if sizes[i] >= smallest]
    kept.sort(key=lambda i: (-int(sizes[i]), i))
    boxes = ndimage.find_objects(components)
    lesions = []
    for label, component in enumerate(kept, start=1):
        small = boxes[component - 1]
        inside = components[small] == component
        box = tuple(slice(b.start + c.start, b.stop + c.start) for b, c in zip(small, corner, strict=True))
        labels[box][inside] = label
        lesion = _describe(label, inside, box, probability.data[box], grid)
        if spread is not None:
            lesion = replace(lesion, spread=float(spread.data[box][inside].mean(dtype=np.float64)))
        lesions.append(lesion)
    return LesionMap(labels=labels, grid=grid, lesions=tuple(lesions))


def is_uncertain(lesion: Lesion, mark_below: float) -> bool:
    """Whether results mark a lesion: its confidence is known and lies under `mark_below`."""
    return lesion.confidence is not None and lesion.confidence < mark_below


def longest_axial_mm(inside: NDArray[np.bool_], grid: Grid) -> float:
    """The longest axial diameter of a lesion; see `domain.findings.Lesion.longest_axial_mm`.

    Args:
        inside: the lesion's voxels in its bounding box, (slice, row, column).
        grid: the grid that the box is cut from.

    Returns:
        The diameter, mm.
    """
    spacing = np.array(grid.spacing)
    axis = int(np.argmax(np.abs(grid.affine[2, :3]) / spacing))
    in_plane = [a for a in range(3) if a != axis]
    steps = grid.affine[:3, in_plane].T
    longest = 0.0
    for layer in np.moveaxis(inside, axis, 0):
        lines = np.flatnonzero(layer.any(axis=1))
        filled = layer[lines]
        # the two voxels that lie farthest apart are ends of their lines
        first, last = filled.argmax(axis=1), filled.shape[1] - 1 - filled[:, ::-1].argmax(axis=1)
        ends = np.stack([np.tile(lines, 2), np.concatenate([first, last])], axis=1)
        longest = max(longest, float(pdist(ends @ steps).max()))
    return longest + float(spacing[in_plane].max())


def _bounds(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that holds every True voxel; the first voxel where there is none."""
    box = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 1))
    return tuple(box)


def _describe(
    label: int, inside: NDArray[np.bool_], box: tuple[slice, ...], probability: NDArray[Any], grid: Grid
) -> Lesion:
    indices = np.argwhere(inside) + [s.start for s in box]
    points = grid.to_lps(indices)
    x, y, z = points.mean(axis=0)
    return Lesion(
        label=label,
        voxel_count=len(indices),
        volume_mm3=len(indices) * grid.voxel_volume_mm3,
        centroid_lps_mm=(float(x), float(y), float(z)),
        longest_axial_mm=longest_axial_mm(inside, grid),
        mean_probability=float(probability[inside].mean()),
    )
