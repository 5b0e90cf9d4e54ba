"""Builds a torch network from nnU-Net's plans and a bundle's weights, without nnunetv2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_model

from msnode.errors import BundleCorrupt
from msnode.segment.architectures import ARCHITECTURES
from msnode.segment.bundle import architecture

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def build_network(folder: Path, fold: str, channels: int, classes: int) -> torch.nn.Module:
    """The trained network of one fold, float32, in evaluation mode.

    Args:
        folder: holds plans.json and `fold`.safetensors.
        fold: such as "fold_0".
        channels: number of input channels.
        classes: number of classes, background included.

    Raises:
        BundleCorrupt: the plans name an architecture that is not known, the weights do not fit it, or they
            are no safetensors file: no other file is read, so none can run code.
    """
    name, kwargs = architecture(folder)
    if name not in ARCHITECTURES:
        raise BundleCorrupt(f"{folder.name}: architecture {name!r} is unknown to this version")
    try:
        network = ARCHITECTURES[name](kwargs, channels, classes)
        load_model(network, folder / f"{fold}.safetensors", strict=True)
    except (OSError, SafetensorError) as error:
        raise BundleCorrupt(
            f"{fold}.safetensors is not a safetensors file; no other weights are read"
        ) from error
    except (KeyError, RuntimeError) as error:
        raise BundleCorrupt(f"{folder.name}: the weights of {fold} do not fit its plans") from error
    return network.float().eval()
