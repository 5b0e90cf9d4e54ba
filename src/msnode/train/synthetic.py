"""Synthetic FLAIR scans with labels: any contrast and thickness, from tissue maps and real lesions.

After SynthSeg (Billot et al., Medical Image Analysis 2023, doi 10.1016/j.media.2023.102789): anatomy and
labels are deformed at random, and intensities are drawn at random for each tissue, so that a network learns
shapes and relations instead of one scanner's grey values. Anatomy: `train.anatomy` (ICBM 152). Lesions:
expert masks in MNI space, where MS lesions really lie and what shapes they have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from msnode.domain.imaging import Grid, Volume
from msnode.train.anatomy import make_tissue, smooth_field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Field = NDArray[np.float32]

_SIZE = 256
_PIXEL_MM = 230 / 256
_SLICES = 14
_SAMPLE_MM = 1.5  # distance of the samples that a slice is averaged from
_LOWEST_MM, _HIGHEST_MM = -62.0, 70.0  # head coordinates: medulla to vertex
_DEEP_MM = 22.0  # cerebrospinal fluid deeper than this below the brain's surface is ventricle
_VISIBLE = 0.5


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """One synthetic scan; all volumes on one grid, axial order.

    Attributes:
        flair: float32, normal white matter near 100.
        lesions: uint8 0/1.
        brain: uint8, 0 outside, 1 brain, 2 ventricles.
    """

    flair: Volume
    lesions: Volume
    brain: Volume


def synthesise(lesion_masks: Sequence[Volume], seed: int) -> SyntheticScan:
    """One scan of `_SLICES` axial slices.

    Args:
        lesion_masks: expert masks in MNI space, axial order or any other.
        seed: one seed always gives one scan.
    """
    rng = np.random.default_rng(seed)
    thickness = float(np.exp(rng.uniform(0, np.log(8))))
    samples = max(1, round(thickness / _SAMPLE_MM))
    heights = _heights(rng, thickness)
    offsets = (np.arange(samples) + 0.5) / samples * thickness - thickness / 2
    x, y, z = _positions((heights[:, None] + offsets).ravel(), rng)
    tissue = make_tissue(x, y, z, rng)
    parenchyma = np.clip(tissue.white + tissue.grey, 0, 1)
    inside = np.clip(0.5 + tissue.depth / 1.6, 0, 1)
    csf = np.clip(inside - parenchyma, 0, 1)
    ventricles = csf * (tissue.depth > _DEEP_MM)
    lesions, brightness = _lesions(lesion_masks, (x, y, z), parenchyma, rng)
    brain = _brain_intensity(tissue.white, tissue.grey, csf, ventricles, rng)
    brain = brain * (1 - lesions) + brightness * lesions * parenchyma + brain * lesions * (1 - parenchyma)
    outside = tissue.flair * (1 - inside)
    outside = rng.uniform(0.5, 1.6) * np.maximum(outside, 0) ** rng.uniform(0.7, 1.4)
    flair = _slabs(brain * inside + outside, samples)
    flair = ndimage.gaussian_filter(flair, (0, *[rng.uniform(0, 0.8)] * 2))
    flair = np.abs(flair + rng.normal(0, rng.uniform(0, 0.05), flair.shape).astype(np.float32))
    labels = np.where(_slabs(inside, samples) >= _VISIBLE, 1, 0)
    labels[_slabs(ventricles, samples) >= _VISIBLE] = 2
    grid = _grid(heights)
    lesion = (_slabs((lesions >= _VISIBLE) * parenchyma, samples) >= _VISIBLE) & (labels > 0)
    return SyntheticScan(
        Volume(np.asarray(100 * flair, dtype=np.float32), grid),
        Volume(lesion.astype(np.uint8), grid),
        Volume(labels.astype(np.uint8), grid),
    )


def _heights(rng: np.random.Generator, thickness: float) -> NDArray[np.float64]:
    """Centres of the slices, evenly spread: a stack where slices are thick, a choice of slices where thin."""
    step = max(thickness, (_HIGHEST_MM - _LOWEST_MM) / _SLICES * 0.8)
    first = rng.uniform(_LOWEST_MM, max(_LOWEST_MM + 1, _HIGHEST_MM - step * (_SLICES - 1)))
    return np.asarray(first + step * np.arange(_SLICES))


def _positions(heights: NDArray[np.float64], rng: np.random.Generator) -> tuple[Field, Field, Field]:
    """Head coordinates (LPS, mm) of every sample: an affine and a smooth elastic deformation of the grid."""
    shape = (len(heights), _SIZE, _SIZE)
    across = (np.arange(_SIZE) - (_SIZE - 1) / 2) * _PIXEL_MM
    z, y, x = np.meshgrid(heights, across, across, indexing="ij", copy=True)
    y += 18  # the brain's middle lies behind the anterior commissure
    angles = np.deg2rad(rng.uniform(-12, 12, 3))
    scale = rng.uniform(0.9, 1.1) * rng.uniform(0.95, 1.05, 3)
    matrix = _rotation(angles) / scale[:, None]
    points = np.stack([x, y, z]).reshape(3, -1).astype(np.float32)
    moved = (matrix.astype(np.float32) @ points).reshape(3, *shape)
    amplitude = rng.uniform(1, 4)
    knots = (max(3, round(np.ptp(heights) / 30)), 8, 8)
    for axis in range(3):
        moved[axis] += smooth_field(rng, shape, knots, amplitude)
    return moved[0], moved[1], moved[2]


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = result @ turn
    return result


def _brain_intensity(
    white: Field, grey: Field, csf: Field, ventricles: Field, rng: np.random.Generator
) -> Field:
    """Intensity of normal brain, multiples of white matter, with what mimics lesions left unlabelled."""
    shape = white.shape
    knots = (max(2, shape[0] // 6), 7, 7)

    def uneven(amplitude: float) -> Field:
        return np.asarray(1 + smooth_field(rng, shape, knots, amplitude), dtype=np.float32)

    fluid = rng.uniform(0.05, 0.45)
    value = white * uneven(0.03) + rng.uniform(0.95, 1.4) * grey * uneven(0.05) + fluid * csf
    # caps and bands of normal periventricular white matter are a little bright
    near = ndimage.gaussian_filter(ventricles, (0, 2.0, 2.0)) * (1 - ventricles) * (white + grey)
    value += rng.uniform(0, 0.5) * near
    # pulsating fluid escapes the inversion: bright patches inside ventricles and cisterns
    flow = np.clip(smooth_field(rng, shape, (knots[0], 14, 14), 1.0) - 1.6, 0, 1)
    value += rng.uniform(0, 1.2) * flow * csf
    fine = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0.5, 1, 1))
    return np.asarray(value * (1 + rng.uniform(0, 0.06) * fine), dtype=np.float32)


def _lesions(
    masks: Sequence[Volume], at: tuple[Field, Field, Field], parenchyma: Field, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Share of lesion and its intensity (multiples of white matter) at every sample."""
    share: Any = np.zeros(at[0].shape, dtype=np.float32)
    bright: Any = np.ones(at[0].shape, dtype=np.float32)
    base = rng.uniform(1.25, 2.2)
    for index in rng.choice(len(masks), size=int(rng.integers(1, 5)), replace=False):
        mask = masks[index]
        kept, value = _choose(mask, base, rng)
        mirrored = -1 if rng.random() < 0.5 else 1  # noqa: PLR2004 - either side alike
        points = np.stack([mirrored * at[0], at[1], at[2]]).reshape(3, -1)
        inverse = np.linalg.inv(mask.grid.affine)
        indices = (inverse[:3, :3] @ points + inverse[:3, 3:]).reshape(3, *at[0].shape)
        one = ndimage.map_coordinates(kept, indices, order=1, output=np.float32)
        its = ndimage.map_coordinates(value, indices, order=1, output=np.float32)
        edge = np.clip((one - 0.5) / rng.uniform(0.3, 0.9) + 0.5, 0, 1)
        bright = np.where(edge > share, its / np.maximum(one, 1e-3), bright)
        share = np.maximum(share, edge)
    uneven = 1 + smooth_field(rng, at[0].shape, (max(2, at[0].shape[0] // 4), 24, 24), 0.08)
    return share * (parenchyma > _VISIBLE), np.clip(bright, 1, 2.5) * uneven


def _choose(mask: Volume, base: float, rng: np.random.Generator) -> tuple[Field, Field]:
    """Some of a mask's lesions, softened, and the same times each lesion's own brightness."""
    components, count = ndimage.label(mask.data > 0, structure=np.ones((3, 3, 3)))
    factors = 1 + (base - 1) * rng.uniform(0.5, 1.3, count + 1)
    kept = rng.random(count + 1) < rng.uniform(0.3, 1)
    kept[0] = False
    sigma = rng.uniform(0.5, 0.9)
    present = ndimage.gaussian_filter(kept[components].astype(np.float32), sigma)
    value = ndimage.gaussian_filter((kept * factors)[components].astype(np.float32), sigma)
    return present, value


def _slabs(values: NDArray[Any], samples: int) -> Field:
    """Mean over the samples of each slice."""
    return np.asarray(values.reshape(-1, samples, *values.shape[1:]).mean(axis=1), dtype=np.float32)


def _grid(heights: NDArray[np.float64]) -> Grid:
    affine = np.zeros((4, 4))
    affine[2, 0] = heights[1] - heights[0]
    affine[1, 1] = affine[0, 2] = _PIXEL_MM
    affine[:, 3] = [-(_SIZE - 1) / 2 * _PIXEL_MM, -(_SIZE - 1) / 2 * _PIXEL_MM, heights[0], 1]
    return Grid((len(heights), _SIZE, _SIZE), affine)
