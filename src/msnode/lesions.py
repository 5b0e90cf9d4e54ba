"""The one definition of a lesion, used wherever lesions are counted, measured or matched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from msnode.domain import Lesion, LesionMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain import Grid, Volume

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
        longest_in_plane_mm=_longest_in_plane(indices, points, grid),
        mean_probability=float(probability[inside].mean()),
    )


def _longest_in_plane(indices: NDArray[np.intp], points: NDArray[np.float64], grid: Grid) -> float:
    """Largest distance inside one slice between voxel centres, plus one voxel's width, mm."""
    longest = 0.0
    for k in np.unique(indices[:, 0]):
        in_slice = indices[:, 0] == k
        outline = points[in_slice]
        if len(outline) > 3:  # noqa: PLR2004 - a hull in a plane needs more than three points
            try:  # the extreme pair lies on the hull: cheaper than all pairs of a large lesion
                outline = outline[ConvexHull(indices[in_slice][:, 1:]).vertices]
            except QhullError:  # collinear voxels have no hull
                outline = outline[[0, -1]]
        if len(outline) > 1:
            longest = max(longest, float(pdist(outline).max()))
    return longest + max(grid.spacing[1:])
