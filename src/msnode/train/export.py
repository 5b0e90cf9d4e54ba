"""From a bundle to a model folder that plain nnunetv2 loads.

nnU-Net knows no preprocessing recipes: its predictor must be handed prepared images, on the plans' spacing.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import torch

from msnode.errors import ConfigurationError
from msnode.preprocess import recipes
from msnode.segment.bundle import CONFIGURATION, load_bundle
from msnode.segment.nnunet import build_network

if TYPE_CHECKING:
    from pathlib import Path

_TRAINER = "nnUNetTrainer"
"""A class that plain nnunetv2 finds, in place of our subclass."""


def export_nnunet(bundle: Path, out: Path) -> Path:
    """Write plans.json, dataset.json and fold_N/checkpoint_final.pth of every fold.

    `nnUNetv2_predict_from_modelfolder -m OUT` and `nnUNetPredictor.initialize_from_trained_model_folder`
    read them. The checkpoints hold tensors, numbers and text only: `torch.load(weights_only=True)` reads
    them too.

    Args:
        bundle: a bundle's folder, or the brain bundle within one.
        out: the folder to write; it must not exist, or be empty.

    Returns:
        `out`.

    Raises:
        ConfigurationError: `out` holds something.
        BundleMissing: there is no bundle.
        BundleCorrupt: the bundle is not whole.
    """
    loaded = load_bundle(bundle, recipes.names())
    manifest = loaded.manifest
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} is not an empty folder; name another")
    out.mkdir(parents=True, exist_ok=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(bundle / name, out / name)
    for fold in manifest.folds:
        network = build_network(bundle, fold, len(manifest.channels), len(manifest.classes))
        (out / fold).mkdir()
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": _TRAINER,
            "init_args": {"configuration": CONFIGURATION, "fold": int(fold.removeprefix("fold_"))},
            "inference_allowed_mirroring_axes": manifest.mirror_axes,
        }
        torch.save(checkpoint, out / fold / "checkpoint_final.pth")
    return out
