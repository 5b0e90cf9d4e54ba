"""Distances between the surfaces of two masks, in mm, on any grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain.imaging import Grid

_PERCENTILE = 95
_FACES = ndimage.generate_binary_structure(3, 1)


def surface_distances(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], grid: Grid
) -> tuple[float, float] | None:
    """95 % Hausdorff distance and average symmetric surface distance.

    The surface of a mask is its voxels with a face on the background or on the edge of the grid. Distances
    run between voxel centres, in patient coordinates, so that thick slices count as thick as they are.

    Args:
        truth: expert mask (slice, row, column).
        predicted: predicted mask, same shape.
        grid: their grid.

    Returns:
        (HD95, average), mm, or None where a mask is empty: no distance is defined then. HD95 is the larger of
        the two directed 95th percentiles (Metrics Reloaded, Nat Methods 2024); the average is taken over the
        surface voxels of both masks together (Heimann et al., IEEE TMI 2009).
    """
    if not truth.any() or not predicted.any():
        return None
    a, b = grid.to_lps(_surface(truth)), grid.to_lps(_surface(predicted))
    a_to_b, b_to_a = KDTree(b).query(a)[0], KDTree(a).query(b)[0]
    hd95 = max(float(np.percentile(d, _PERCENTILE)) for d in (a_to_b, b_to_a))
    return hd95, float(np.concatenate([a_to_b, b_to_a]).mean())


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Voxel indices (n, 3) of the surface."""
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    inside = np.pad(mask[box], 1)  # the edge of the grid is a surface too
    border = inside & ~ndimage.binary_erosion(inside, _FACES)
    start: NDArray[np.intp] = np.array([s.start for s in box], dtype=np.intp)
    return np.argwhere(border) + (start - 1)
