"""The one definition of a lesion, used wherever lesions are counted, measured or matched."""

from __future__ import annotations

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


def find_lesions(probability: Volume, *, threshold: float, min_volume_mm3: float) -> LesionMap:
    """Lesions: 26-connected components of `probability` >= `threshold`, at least `min_volume_mm3` large.

    Args:
        probability: lesion probability 0-1 (slice, row, column) on the source grid.
        threshold: smallest probability that counts as lesion.
        min_volume_mm3: smaller components are dropped.

    Returns:
        The lesion map; labels run from 1 by falling volume, ties by position in the array, so that
        one input always gives one numbering.
    """
    grid = probability.grid
    components, count = ndimage.label(probability.data >= threshold, structure=_CONNECTED_26)
    boxes = ndimage.find_objects(components)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    smallest = min_volume_mm3 / grid.voxel_volume_mm3 - 1e-6
    kept = [i for i in range(1, count + 1) if sizes[i] >= smallest]
    kept.sort(key=lambda i: (-int(sizes[i]), i))
    labels = np.zeros(grid.shape, dtype=np.int32)
    lesions = []
    for label, component in enumerate(kept, start=1):
        box = boxes[component - 1]
        inside = components[box] == component
        labels[box][inside] = label
        lesions.append(_describe(label, inside, box, probability.data[box], grid))
    return LesionMap(labels=labels, grid=grid, lesions=tuple(lesions))


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
