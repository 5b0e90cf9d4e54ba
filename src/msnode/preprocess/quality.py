"""Whether a brain mask looks like a whole brain: what a reader should know where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain.imaging import Volume

SMALLEST_ML, LARGEST_ML = 700.0, 2000.0
"""Adult brains with their ventricles lie well inside: 1.17-1.85 l in the 13 expert masks at hand. Less is a
brain half found, more is a brain with scalp or neck."""

CUT_SHARE = 0.4
"""The top slice cuts the brain off where its brain area exceeds this share of the largest slice's: about
15 mm are missing then, for a brain that ends as an ellipsoid 65 mm above its widest slice. The lowest slice
cuts it off from the same share."""

BASE_SHARE = 0.3
"""The base is inside where the lowest slice's brain area is at most this share of the largest: brain stem
and the low poles of cerebellum and temporal lobes (0-0.17 in 13 expert masks of whole brains)."""

TOUCH_MM2 = 100.0
"""Area of brain on a border of the field of view from which it counts as touching: about 11 voxels of
1 x 9 mm. Single voxels there are a rough mask, not a cut brain."""

_BORDERS = (("anterior", 1, 0), ("posterior", 1, -1), ("right", 2, 0), ("left", 2, -1))
"""Name, axis and index of each border in axial order."""


def judge_brain(brain: Volume) -> tuple[str, ...]:
    """What speaks against the quality of a brain mask.

    Args:
        brain: label > 0 is brain; axial order (slices inferior → superior, rows anterior → posterior,
            columns right → left).

    Returns:
        One sentence each, in English, without a full stop; empty where nothing speaks against it. The volume
        is judged only where vertex and base lie inside the stack.
    """
    inside = brain.data > 0
    if not inside.any():
        return ("no brain was found",)
    area = inside.sum(axis=(1, 2)) * (brain.grid.voxel_volume_mm3 / brain.grid.spacing[0])
    cut = area[-1] > CUT_SHARE * area.max()
    complete = not cut and area[0] <= BASE_SHARE * area.max()
    found = []
    ml = float(inside.sum()) * brain.grid.voxel_volume_mm3 / 1000
    if complete and not SMALLEST_ML <= ml <= LARGEST_ML:
        found.append(f"the brain's volume of {ml:.0f} ml is outside {SMALLEST_ML:.0f}-{LARGEST_ML:.0f} ml")
    if cut:
        found.append(
            f"the brain is cut off at the vertex: the top slice still shows {area[-1] / 100:.0f} cm2 of it"
        )
    if area[0] > CUT_SHARE * area.max():
        found.append(
            f"the brain is cut off at the base: the lowest slice still shows {area[0] / 100:.0f} cm2 of it"
        )
    for name, axis, index in _BORDERS:
        if _area_on_border(inside, axis, index, brain) >= TOUCH_MM2:
            found.append(f"the brain touches the {name} border of the field of view")
    return tuple(found)


def _area_on_border(inside: NDArray[np.bool_], axis: int, index: int, brain: Volume) -> float:
    """Area of brain in the outermost layer of voxels, mm2."""
    face = brain.grid.voxel_volume_mm3 / brain.grid.spacing[axis]
    return float(np.take(inside, index, axis=axis).sum()) * face
