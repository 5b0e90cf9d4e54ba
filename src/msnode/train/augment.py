"""Random changes of training slices: nnU-Net's own, widened so that another scanner does not break the model.

Geometry after system A's paper (rotation, zoom, horizontal flip); intensities on the [0, 1] scale of the
prepared image, where air and padding are 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.train.recipe import AugmentationTable

MIRROR_AXES = (1,)
"""Columns only: left and right are alike in the brain, front and back are not."""


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
        terms = (
            np.random.normal(0, self.strength) * rows[:, None] ** i * columns[None] ** j  # noqa: NPY002 - the seeded generator that batchgenerators uses
            for i, j in powers
        )
        return {"field": torch.exp(torch.stack(list(terms)).sum(0))}

    def _apply_to_image(self, img: torch.Tensor, *, field: torch.Tensor, **_: Any) -> torch.Tensor:
        return img * field


def rotation_range(table: AugmentationTable) -> tuple[float, float]:
    """Rotation in radians."""
    limit = float(np.deg2rad(table.rotation_deg))
    return -limit, limit


def training_transforms(
    table: AugmentationTable, patch: Sequence[int], deep_supervision_scales: Sequence[Sequence[float]]
) -> ComposeTransforms:
    """The chain for one slice: (channel, row, column) image and (1, row, column) segmentation.

    Args:
        table: ranges.
        patch: rows and columns that leave the chain.
        deep_supervision_scales: size of each output of the network, as a share of the patch.
    """
    spatial = SpatialTransform(
        tuple(patch),
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=0.1,
        elastic_deform_scale=(0.05, 0.15),
        elastic_deform_magnitude=(0.02, 0.1),
        p_rotation=0.4,
        rotation=rotation_range(table),
        p_scaling=0.4,
        scaling=table.scale,
        p_synchronize_scaling_across_axes=0.7,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    low_resolution = SimulateLowResolutionTransform(
        scale=table.low_resolution,
        synchronize_channels=False,
        synchronize_axes=False,
        ignore_axes=None,
        allowed_channels=None,
        p_per_channel=1,
    )
    return ComposeTransforms(
        [
            spatial,
            RandomTransform(BiasFieldTransform(table.bias_field), apply_probability=0.3),
            *_intensity_transforms(table),
            RandomTransform(low_resolution, apply_probability=0.2),
            RandomTransform(
                GaussianNoiseTransform(noise_variance=(0, table.noise_variance)), apply_probability=0.25
            ),
            MirrorTransform(allowed_axes=MIRROR_AXES),
            RemoveLabelTansform(-1, 0),
            DownsampleSegForDSTransform(ds_scales=deep_supervision_scales),
        ]
    )


def _intensity_transforms(table: AugmentationTable) -> list[RandomTransform]:
    brightness = MultiplicativeBrightnessTransform(
        multiplier_range=BGContrast(table.brightness), synchronize_channels=False, p_per_channel=1
    )
    contrast = ContrastTransform(
        contrast_range=BGContrast(table.contrast),
        preserve_range=True,
        synchronize_channels=False,
        p_per_channel=1,
    )
    gamma, inverted_gamma = (
        GammaTransform(
            gamma=BGContrast(table.gamma),
            p_invert_image=inverted,
            synchronize_channels=False,
            p_per_channel=1,
            p_retain_stats=1,
        )
        for inverted in (0, 1)
    )
    blur = GaussianBlurTransform(
        blur_sigma=table.blur_sigma, synchronize_channels=False, synchronize_axes=False, p_per_channel=1
    )
    return [
        RandomTransform(blur, apply_probability=0.2),
        RandomTransform(brightness, apply_probability=0.2),
        RandomTransform(contrast, apply_probability=0.3),
        RandomTransform(gamma, apply_probability=0.4),
        RandomTransform(inverted_gamma, apply_probability=0.2),
    ]
