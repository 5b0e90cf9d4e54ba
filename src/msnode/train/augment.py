"""Random changes of training slices: system A's geometry, and intensities widened far beyond one scanner.

System A is "nnU-Net based automated MS lesion segmentation in FLAIR", Scientific Reports 2025
(s41598-025-14112-x); its five new images a slice become one random draw of the same ranges at each iteration.
Intensities are on the [0, 1] scale of the prepared image, where air and what was stripped are 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.train.recipe import AugmentationTable, Span

MIRROR_AXES = (1,)
"""Columns only: left and right are alike in the brain, front and back are not."""

_LESION = 1
_ELASTIC_KNOTS = 8
_ELASTIC_SHIFT = 0.03  # standard deviation at the knots, as a share of half the slice

# The generator that batchgenerators draws from and that a training seeds; NPY002 does not apply.
_draw = np.random


class SliceTransform(BasicTransform):  # type: ignore[misc] # untyped base
    """A transform of image (channel, row, column) and labels (1, row, column) together."""

    def apply(self, data_dict: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Replace "image" and "segmentation"."""
        image, labels = self.change(data_dict["image"], data_dict["segmentation"])
        return data_dict | {"image": image, "segmentation": labels}

    def change(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The changed pair."""
        raise NotImplementedError


class AffineTransform(SliceTransform):
    """Rotation, shift, shear, zoom and bending in one interpolation; zeros come in from outside.

    Args:
        table: ranges.
    """

    def __init__(self, table: AugmentationTable) -> None:
        super().__init__()
        self.table = table

    def change(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Image by bilinear interpolation; labels by the same, where one covers half."""
        moved, bent = (_draw.random() < share for share in (self.table.rotation_chance, self.table.elastic))
        if not moved and not bent:
            return image, labels
        rows, columns = image.shape[-2:]
        matrix = self._matrix(rows, columns) if moved else torch.eye(2, 3)
        grid = _grid(matrix, rows, columns)
        if bent:
            knots = torch.from_numpy(_draw.normal(0, _ELASTIC_SHIFT, (1, 2, _ELASTIC_KNOTS, _ELASTIC_KNOTS)))
            offset = functional.interpolate(
                knots.float(), (rows, columns), mode="bicubic", align_corners=False
            )
            grid = grid + offset.permute(0, 2, 3, 1)
        present = [label for label in range(1, int(labels.max()) + 1) if bool((labels == label).any())]
        maps = torch.cat([image, *[(labels == label).float() for label in present]])
        sampled = functional.grid_sample(maps[None], grid, align_corners=False)[0]
        channels = image.shape[0]
        new = torch.zeros_like(labels)
        if present:
            best, which = sampled[channels:].max(0, keepdim=True)
            new = torch.where(best >= 0.5, torch.tensor(present, dtype=labels.dtype)[which], new)  # noqa: PLR2004 - half covered
        return sampled[:channels], new

    def _matrix(self, rows: int, columns: int) -> torch.Tensor:
        """(2, 3): where in the source, in torch's (x, y) from -1 to 1, each point of the result is read."""
        table = self.table
        angle, shear = (
            np.deg2rad(_draw.uniform(-limit, limit)) for limit in (table.rotation_deg, table.shear_deg)
        )
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        slant = np.array([[1, np.tan(shear)], [0, 1]])
        source = turn @ slant / _draw.uniform(*table.scale)
        aspect = np.diag([columns, rows])
        shift = _draw.uniform(-table.shift, table.shift, (2, 1)) * 2
        linear = np.linalg.inv(aspect) @ source @ aspect
        return torch.from_numpy(np.hstack([linear, shift])).float()


def _grid(matrix: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """(1, row, column, [x, y]): the centres of all pixels, from -1 to 1, through `matrix` (2, 3)."""
    y, x = ((2 * torch.arange(n) + 1) / n - 1 for n in (rows, columns))
    parts = (line[0] * x + (line[1] * y + line[2])[:, None] for line in matrix)
    return torch.stack(list(parts), -1)[None]


class BiasFieldTransform(ImageOnlyTransform):  # type: ignore[misc] # untyped base
    """Multiply by exp of a random polynomial of order three over the slice: receive-coil inhomogeneity.

    Args:
        strength: standard deviation of each coefficient.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def get_parameters(self, image: torch.Tensor, **_: Any) -> dict[str, Any]:
        """One field for all channels, shape as a slice."""
        rows, columns = (torch.linspace(-1, 1, n) for n in image.shape[-2:])
        powers = [(i, j) for i in range(4) for j in range(4 - i) if i + j > 0]
        terms = (_draw.normal(0, self.strength) * rows[:, None] ** i * columns[None] ** j for i, j in powers)
        return {"field": torch.exp(torch.stack(list(terms)).sum(0)).float()}

    def _apply_to_image(self, img: torch.Tensor, *, field: torch.Tensor, **_: Any) -> torch.Tensor:
        return img * field


class LesionContrastTransform(SliceTransform):
    """Bring lesions closer to the brain around them, or further away.

    Args:
        factors: range of the factor on a lesion's difference from the median of the slice's other brain.
    """

    def __init__(self, factors: Span) -> None:
        super().__init__()
        self.factors = factors

    def change(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Only voxels of lesions change, at their blurred border less than inside."""
        lesion = (labels == _LESION).float()
        normal = image[(image > 0) & (lesion == 0)]
        if not lesion.any() or not len(normal):
            return image, labels
        reference = normal.median()
        weight = functional.avg_pool2d(lesion[None], 3, 1, 1)[0].maximum(lesion * 0.75)
        factor = _draw.uniform(*self.factors)
        return (image + weight * (factor - 1) * (image - reference).clamp(min=0)).clamp(0, 1), labels


class BrainEdgeTransform(SliceTransform):
    """Lose up to some pixels of the brain's border, as an imprecise brain mask does; lesions there too.

    Args:
        pixels: the most that is lost.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def change(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outside means exactly 0 and connected to the border in effect: dark fluid inside is not widened."""
        width = int(_draw.randint(1, self.pixels + 1))
        solid = _widened((image[:1] > 0).float(), 3)  # close dark fluid first
        solid = 1 - _widened(1 - solid, 3 + width)
        return image * solid, (labels * (solid > 0)).to(labels.dtype)


def _widened(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """A mask (channel, row, column) of 0 and 1, grown by a square: along rows, then along columns."""
    across = functional.max_pool2d(mask, (2 * pixels + 1, 1), 1, (pixels, 0))
    return functional.max_pool2d(across, (1, 2 * pixels + 1), 1, (0, pixels))


class StripTransform(SliceTransform):
    """Set everything but the labelled brain to 0: an image that was stripped before it came here."""

    def change(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels stay."""
        return image * (labels > 0), labels


class InsideOnly(SliceTransform):
    """Other transforms, after which what was 0 is 0 again: stripped background carries no noise or bias.

    Args:
        transforms: applied in order.
    """

    def __init__(self, transforms: Sequence[BasicTransform]) -> None:
        super().__init__()
        self.chain = ComposeTransforms(list(transforms))

    def change(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values stay in [0, 1.5]."""
        inside = image > 0
        changed = self.chain(image=image, segmentation=labels)
        return changed["image"].clamp(0, 1.5) * inside, changed["segmentation"]


def training_transforms(
    table: AugmentationTable, deep_supervision_scales: Sequence[Sequence[float]]
) -> ComposeTransforms:
    """The chain for one slice: (channel, row, column) image and (1, row, column) segmentation.

    Args:
        table: ranges.
        deep_supervision_scales: size of each output of the network, as a share of the patch.
    """
    chain: list[Any] = [RemoveLabelTansform(-1, 0), AffineTransform(table), MirrorTransform(MIRROR_AXES)]
    if table.strip_chance:
        chain.append(RandomTransform(StripTransform(), apply_probability=table.strip_chance))
    if table.lesion_contrast != (1.0, 1.0):
        chain.append(RandomTransform(LesionContrastTransform(table.lesion_contrast), apply_probability=0.5))
    if table.brain_edge_px:
        chain.append(RandomTransform(BrainEdgeTransform(table.brain_edge_px), apply_probability=0.2))
    if table.intensity_chance:
        chain.append(InsideOnly(_intensity_transforms(table)))
    return ComposeTransforms([*chain, DownsampleSegForDSTransform(ds_scales=deep_supervision_scales)])


def _intensity_transforms(table: AugmentationTable) -> list[RandomTransform]:
    gamma, inverted_gamma = (
        GammaTransform(BGContrast(table.gamma), inverted, False, 1, 1) for inverted in (0, 1)
    )
    transforms = [
        BiasFieldTransform(table.bias_field),
        GaussianBlurTransform(table.blur_sigma, False, False, p_per_channel=1),
        MultiplicativeBrightnessTransform(BGContrast(table.brightness), False, 1),
        ContrastTransform(BGContrast(table.contrast), True, False, 1),
        gamma,
        inverted_gamma,
        SimulateLowResolutionTransform(table.low_resolution, False, False, None, None, 1),
        GaussianNoiseTransform((0, table.noise_variance)),
    ]
    return [RandomTransform(one, apply_probability=table.intensity_chance) for one in transforms]
