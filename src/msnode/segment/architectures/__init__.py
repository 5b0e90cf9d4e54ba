"""Networks by the class name that nnU-Net's plans give them; a name outside this table is not built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msnode.segment.architectures.plain_conv_unet import plain_conv_unet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

ARCHITECTURES: Mapping[str, Callable[[Mapping[str, Any], int, int], torch.nn.Module]] = {
    "dynamic_network_architectures.architectures.unet.PlainConvUNet": plain_conv_unet,
}
