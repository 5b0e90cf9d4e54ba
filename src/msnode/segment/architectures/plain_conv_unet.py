"""nnU-Net's plain convolutional U-Net in two dimensions (Isensee et al., Nature Methods 2021, 18:203-211)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

if TYPE_CHECKING:
    from collections.abc import Mapping


def plain_conv_unet(kwargs: Mapping[str, Any], channels: int, classes: int) -> torch.nn.Module:
    """Build the network, without deep supervision.

    Args:
        kwargs: `arch_kwargs` of the plans.
        channels: number of input channels.
        classes: number of classes, background included.
    """
    network: torch.nn.Module = PlainConvUNet(
        input_channels=channels,
        n_stages=kwargs["n_stages"],
        features_per_stage=kwargs["features_per_stage"],
        conv_op=torch.nn.Conv2d,
        kernel_sizes=kwargs["kernel_sizes"],
        strides=kwargs["strides"],
        n_conv_per_stage=kwargs["n_conv_per_stage"],
        num_classes=classes,
        n_conv_per_stage_decoder=kwargs["n_conv_per_stage_decoder"],
        conv_bias=kwargs["conv_bias"],
        norm_op=torch.nn.InstanceNorm2d,
        norm_op_kwargs=kwargs["norm_op_kwargs"],
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs=kwargs["nonlin_kwargs"],
        deep_supervision=False,
    )
    return network
