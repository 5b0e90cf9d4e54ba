"""Builds a network from nnU-Net's plans and checkpoint, without nnunetv2."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from msnode.errors import BundleCorrupt
from msnode.segment.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

_CONFIGURATION = "2d"


def build_network(folder: Path, fold: str, channels: int, classes: int) -> torch.nn.Module:
    """The trained network of one fold, float32, in evaluation mode.

    Args:
        folder: holds plans.json and `fold`/checkpoint_final.pth.
        fold: such as "fold_0".
        channels: number of input channels.
        classes: number of classes, background included.

    Raises:
        BundleCorrupt: the plans name an architecture that is not known, or the weights do not fit it.
    """
    plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    architecture = plans["configurations"][_CONFIGURATION]["architecture"]
    name = architecture["network_class_name"]
    if name not in ARCHITECTURES:
        raise BundleCorrupt(f"{folder.name}: architecture {name!r} is unknown to this version")
    network = ARCHITECTURES[name](architecture["arch_kwargs"], channels, classes)
    # only tensors and plain values are read: a checkpoint cannot run code
    checkpoint = torch.load(folder / fold / "checkpoint_final.pth", map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(checkpoint["network_weights"])
    except RuntimeError as error:
        raise BundleCorrupt(f"{folder.name}: the weights of {fold} do not fit its plans") from error
    return network.float().eval()
