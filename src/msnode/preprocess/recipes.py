"""Named, versioned lists of preprocessing steps. A recipe is never edited: bundles name the one they know."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING

import numpy as np

from msnode.domain import Prepared, Volume
from msnode.errors import RecipeMismatch
from msnode.preprocess import steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Step = Callable[[Volume], Volume]


@dataclass(frozen=True)
class Recipe:
    """Steps from a source volume to what a network sees.

    Attributes:
        name: what bundles call it, version included.
        geometry: steps that move voxels; also applied to training masks.
        intensity: steps that change values only.
    """

    name: str
    geometry: tuple[Step, ...]
    intensity: tuple[Step, ...]

    def apply(self, volume: Volume) -> Prepared:
        """Prepare one channel.

        Args:
            volume: (slice, row, column) in any orientation.

        Returns:
            float32 (1, slice, row, column) on the prepared grid, slices inferior → superior, rows
            anterior → posterior, columns right → left.

        Raises:
            NotAVolume: the values cannot be read as an image.
        """
        moved = reduce(lambda v, step: step(v), (*self.geometry, *self.intensity), volume)
        data = moved.data.astype(np.float32)[np.newaxis]
        return Prepared(data=data, grid=moved.grid, source=volume.grid, recipe=self.name)

    def apply_to_mask(self, mask: Volume) -> Volume:
        """A training mask on the prepared grid, uint8 0/1: binarised, moved, cut at one half."""
        moved = reduce(lambda v, step: step(v), self.geometry, steps.binarise(mask))
        return Volume((moved.data >= 0.5).astype(np.uint8), moved.grid)  # noqa: PLR2004 - half covered


_RECIPES = (
    # Whole head, no skull stripping: axial order, thin slices averaged to 6 mm, pixels of a 230 mm field
    # of view in 256 columns, intensities to [0, 1].
    Recipe(
        "flair2d-head-v1",
        geometry=(
            steps.to_axial,
            partial(steps.through_plane, thickness_mm=6.0),
            partial(steps.in_plane, spacing_mm=230 / 256),
        ),
        intensity=(steps.unit_range,),
    ),
)


def names() -> tuple[str, ...]:
    """Every recipe that this version has."""
    return tuple(recipe.name for recipe in _RECIPES)


def get(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        RecipeMismatch: this version has no such recipe.
    """
    for recipe in _RECIPES:
        if recipe.name == name:
            return recipe
    raise RecipeMismatch(f"recipe {name!r} is unknown to this version, which has: {', '.join(names())}")


def restore(values: NDArray[np.float32], prepared: Prepared) -> Volume:
    """Bring values on the prepared grid back to exactly the source grid.

    Args:
        values: (slice, row, column) on `prepared.grid`, such as a lesion probability.
        prepared: what they were computed from.

    Returns:
        float32 on `prepared.source`: linear interpolation where the grids differ along an axis (averaged
        over the source voxel where that is larger), the very values where they agree.
    """
    to_prepared = np.linalg.inv(prepared.grid.affine) @ prepared.source.affine
    axis_of = np.argmax(np.abs(to_prepared[:3, :3]), axis=1)  # source axis that runs along each prepared axis
    data = np.asarray(values, dtype=np.float32)
    for axis, source_axis in enumerate(axis_of):
        step, offset = to_prepared[axis, source_axis], to_prepared[axis, 3]
        positions = offset + step * np.arange(prepared.source.shape[source_axis])
        nearest = np.rint(positions).astype(np.intp)
        inside = nearest.min() >= 0 and nearest.max() < data.shape[axis]
        if inside and np.abs(positions - nearest).max() < 1e-3:  # noqa: PLR2004 - thousandths of a voxel
            data = np.take(data, nearest, axis=axis)
        else:
            weights = steps.resampling_matrix(positions, data.shape[axis], abs(step))
            data = steps.apply_along(data, weights, axis)
    return Volume(np.ascontiguousarray(np.transpose(data, np.argsort(axis_of))), prepared.source)
