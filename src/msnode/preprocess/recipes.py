"""Named, versioned lists of preprocessing steps. A recipe is never edited: bundles name the one they know.

System A below is "nnU-Net based automated MS lesion segmentation in FLAIR", Scientific Reports 2025
(s41598-025-14112-x).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from msnode.domain.imaging import Prepared, Volume
from msnode.errors import OutsideModelScope, RecipeMismatch
from msnode.preprocess import steps
from msnode.preprocess.normalise import brain_unit_range
from msnode.preprocess.quality import judge_brain

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from msnode.preprocess.brain import Extractor

_CROP_MARGIN = 6
"""Pixels around the brain that stay: room for the network's context and for a mask that is too tight."""


@dataclass(frozen=True)
class Move:
    """A step that moves voxels; training masks take it too."""

    step: Callable[[Volume], Volume]


@dataclass(frozen=True)
class Values:
    """A step that changes values only; it sees the brain mask, None where nothing was stripped before it."""

    step: Callable[[Volume, Volume | None], Volume]


@dataclass(frozen=True)
class SkullStrip:
    """Find the brain with the extractor that `apply` is given, and set the rest to 0."""


@dataclass(frozen=True)
class CropToBrain:
    """Leave rows and columns that hold no brain."""


Step = Move | Values | SkullStrip | CropToBrain


@dataclass(frozen=True)
class Recipe:
    """Steps from a source volume to what a network sees.

    Attributes:
        name: what bundles call it, version included.
        steps: in the order in which they are done.
        across_mm: standard deviation of the Gaussian by which `restore` averages neighbouring slices where
            they are thin; 0 for none.
    """

    name: str
    steps: tuple[Step, ...]
    across_mm: float = 0.0

    @property
    def strips_skull(self) -> bool:
        """Whether `apply` needs an extractor."""
        return any(isinstance(step, SkullStrip) for step in self.steps)

    def apply(self, volume: Volume, extract: Extractor | None = None) -> Prepared:
        """Prepare one channel.

        Args:
            volume: (slice, row, column) in any orientation.
            extract: finds the brain in a volume in axial order; needed where the recipe strips the skull.

        Returns:
            float32 (1, slice, row, column) on the prepared grid, slices inferior → superior, rows
            anterior → posterior, columns right → left; with the brain's labels where the skull was stripped.

        Raises:
            NotAVolume: the values cannot be read as an image.
            OutsideModelScope: there is no brain in it.
            RecipeMismatch: the recipe strips the skull and there is no extractor.
        """
        moved, brain = volume, None
        warnings: tuple[str, ...] = ()
        for step in self.steps:
            match step:
                case Move():
                    moved = step.step(moved)
                    brain = brain and _labels(step.step(brain))
                case Values():
                    moved = step.step(moved, brain)
                case SkullStrip():
                    brain = self._brain(moved, extract)
                    moved = steps.strip(moved, brain)
                    warnings = judge_brain(brain)
                case CropToBrain() if brain is not None:
                    box = _box(brain)
                    moved, brain = steps.crop(moved, box), steps.crop(brain, box)
        return Prepared(
            data=moved.data.astype(np.float32)[np.newaxis],
            grid=moved.grid,
            source=volume.grid,
            recipe=self.name,
            brain=None if brain is None else brain.data,
            warnings=warnings,
        )

    def apply_to_mask(self, mask: Volume, prepared: Prepared) -> Volume:
        """A training mask on the grid of the prepared image, uint8 0/1: binarised, moved, cut at one half.

        Args:
            mask: on the source grid.
            prepared: the image of the same scan.
        """
        moved = steps.binarise(mask)
        for step in self.steps:
            if isinstance(step, Move):
                moved = step.step(moved)
        first = np.linalg.solve(moved.grid.affine, prepared.grid.affine[:, 3])[:3]
        start = np.rint(first).astype(int)
        box = tuple(slice(int(a), int(a) + n) for a, n in zip(start, prepared.grid.shape, strict=True))
        cut = moved.data[box] >= 0.5  # noqa: PLR2004 - half covered
        return Volume(cut.astype(np.uint8), prepared.grid)

    def _brain(self, volume: Volume, extract: Extractor | None) -> Volume:
        if extract is None:
            raise RecipeMismatch(f"recipe {self.name!r} strips the skull; the bundle has no network for it")
        brain = extract(volume)
        if not brain.data.any():
            raise OutsideModelScope("no brain was found in the series")
        return brain


def _stripped(slab_mm: float) -> tuple[Step, ...]:
    """The brain alone, scaled by its own median, cropped to it; thin slices in slabs of about `slab_mm`."""
    return (
        Move(steps.to_axial),
        Move(partial(steps.through_plane, thickness_mm=slab_mm)),
        Move(partial(steps.in_plane, spacing_mm=230 / 256)),
        SkullStrip(),
        Values(brain_unit_range),
        CropToBrain(),
    )


_RECIPES = (
    # The built-in bundle's.
    Recipe("flair2d-brain-v1", _stripped(3.0)),
    # Thin slices one by one, and their probabilities averaged over neighbours, instead of the slices before.
    # Ten expert masks of 1 mm, as if a network gave them, come back with Dice 0.83 instead of 0.68 at
    # threshold 0.5 and 15 mm3, 0.89 at 0.4 and 5 mm3; and what shows up in one slice alone, as bright cortex
    # does, fades.
    Recipe("flair2d-brain-v2", _stripped(1.0), across_mm=1.0),
    # The network that finds brain and ventricles: the whole head, coarsely.
    Recipe(
        "brain2d-v1",
        (
            Move(steps.to_axial),
            Move(partial(steps.through_plane, thickness_mm=4.0)),
            Move(partial(steps.in_plane, spacing_mm=1.8)),
            Values(steps.unit_range),
        ),
    ),
    # System A, step by step: skull stripping, [0, 1], 512 x 512. Masks are binarised by `apply_to_mask`, and
    # slices of low mask entropy leave the training set by the training recipe's `min_slice_entropy`.
    Recipe(
        "paper-a-v1",
        (
            Move(steps.to_axial),
            SkullStrip(),
            Values(steps.min_max),
            Move(partial(steps.resize, rows=512, columns=512)),
        ),
    ),
    # Whole head, no skull stripping.
    Recipe(
        "flair2d-head-v1",
        (
            Move(steps.to_axial),
            Move(partial(steps.through_plane, thickness_mm=6.0)),
            Move(partial(steps.in_plane, spacing_mm=230 / 256)),
            Values(steps.unit_range),
        ),
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
        over the source voxel where that is larger), the very values where they agree, 0 beyond the border of
        the prepared grid. Where the recipe averages thin slices, they are averaged first.
    """
    to_prepared = np.linalg.inv(prepared.grid.affine) @ prepared.source.affine
    axis_of = np.argmax(np.abs(to_prepared[:3, :3]), axis=1)  # source axis that runs along each prepared axis
    data = _across(np.asarray(values, dtype=np.float32), prepared)
    for axis, source_axis in enumerate(axis_of):
        step, offset = to_prepared[axis, source_axis], to_prepared[axis, 3]
        positions = offset + step * np.arange(prepared.source.shape[source_axis])
        data = _along(data, positions, axis, abs(step))
    return Volume(np.ascontiguousarray(np.transpose(data, np.argsort(axis_of))), prepared.source)


def _across(values: NDArray[np.float32], prepared: Prepared) -> NDArray[np.float32]:
    """Thin slices averaged with their neighbours, as the recipe that prepared them says."""
    across_mm = next((recipe.across_mm for recipe in _RECIPES if recipe.name == prepared.recipe), 0.0)
    distance = prepared.grid.spacing[0]
    if not across_mm or distance >= steps.THIN_MM:
        return values
    averaged: NDArray[np.float32] = ndimage.gaussian_filter1d(
        values, across_mm / distance, axis=0, mode="nearest"
    )
    return averaged


def _along(
    data: NDArray[np.float32], positions: NDArray[np.float64], axis: int, step: float
) -> NDArray[np.float32]:
    """Values at `positions` (in indices of `axis`), 0 more than half a voxel beyond the ends."""
    size = data.shape[axis]
    nearest = np.rint(positions).astype(np.intp)
    half = max(0.5, step / 2) + 1e-3
    inside = (positions >= -half) & (positions <= size - 1 + half)
    if np.abs(positions - nearest).max() < 1e-3:  # noqa: PLR2004 - thousandths of a voxel
        taken = np.take(data, np.clip(nearest, 0, size - 1), axis=axis)
        if inside.all():
            return taken
        shape = [1] * data.ndim
        shape[axis] = -1
        return np.asarray(taken * inside.reshape(shape), dtype=np.float32)
    weights = steps.resampling_matrix(positions, size, step) * inside[:, None]
    return steps.apply_along(data, weights.astype(np.float32), axis)


def _labels(brain: Volume) -> Volume:
    return Volume(np.rint(brain.data).astype(np.uint8), brain.grid)


def _box(brain: Volume) -> tuple[slice, slice, slice]:
    """All slices; rows and columns of the brain with a margin."""
    box = [slice(0, brain.data.shape[0])]
    for axis in (1, 2):
        other = tuple({0, 1, 2} - {axis})
        found = np.flatnonzero(brain.data.any(axis=other))
        first, last = int(found[0]) - _CROP_MARGIN, int(found[-1]) + _CROP_MARGIN + 1
        box.append(slice(max(0, first), min(brain.data.shape[axis], last)))
    return box[0], box[1], box[2]
