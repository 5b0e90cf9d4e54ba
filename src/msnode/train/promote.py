"""From a checkpoint of the trainer to a bundle: weights, OpenVINO, manifest, model card."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino
import torch

from msnode.segment.bundle import FORMAT, MANIFEST, Manifest, file_digest
from msnode.segment.nnunet import build_network
from msnode.train.augment import MIRROR_AXES
from msnode.train.card import model_card

if TYPE_CHECKING:
    from msnode.train.recipe import TrainingRecipe

_KNOWN_TRAINER = "nnUNetTrainer"
"""Written into the checkpoint in place of our subclass: a class that plain nnunetv2 can find."""


def promote(checkpoint: Path, recipe: TrainingRecipe, out: Path) -> Path:
    """Write a bundle without evaluation figures; `record_evaluation` completes it.

    Args:
        checkpoint: `.../fold_N/checkpoint_*.pth` of the trainer, plans.json and dataset.json one folder up.
        recipe: what the checkpoint was trained with.
        out: folder that bundles lie in; an earlier bundle of the same name and version is replaced.

    Returns:
        The bundle's folder.
    """
    fold = checkpoint.parent.name
    folder = out / f"{recipe.bundle.name}-{recipe.bundle.version}"
    made = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(made, ignore_errors=True)
    (made / fold).mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(checkpoint.parent.parent / name, made / name)
    _write_weights(checkpoint, made / fold / "checkpoint_final.pth")
    _export(made, fold, recipe.network.patch)
    _write_manifest(made, recipe, fold, {})
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
    return folder


def record_evaluation(bundle: Path, recipe: TrainingRecipe, fold: str, evaluation: dict[str, Any]) -> None:
    """Write the figures on held-out patients into manifest and model card."""
    _write_manifest(bundle, recipe, fold, evaluation)


def _write_weights(source: Path, target: Path) -> None:
    """What nnU-Net's predictor reads, in plain types and half precision (load_state_dict widens it)."""
    # our own file from the training just done: it holds NumPy values that a weights-only read refuses
    trained = torch.load(source, map_location="cpu", weights_only=False)
    halves: dict[int, torch.Tensor] = {}  # nnU-Net names most tensors several times: keep them shared
    for value in trained["network_weights"].values():
        halves.setdefault(value.data_ptr(), value.half())
    torch.save(
        {
            "network_weights": {
                key: halves[value.data_ptr()] for key, value in trained["network_weights"].items()
            },
            "trainer_name": _KNOWN_TRAINER,
            "init_args": {
                "configuration": trained["init_args"]["configuration"],
                "fold": int(source.parent.name[5:]),
            },
            "inference_allowed_mirroring_axes": tuple(trained["inference_allowed_mirroring_axes"]),
            "current_epoch": int(trained["current_epoch"]),
        },
        target,
    )


def _export(folder: Path, fold: str, patch: tuple[int, int]) -> None:
    """The same weights for OpenVINO: any number of slices of one patch, stored in half precision."""
    network = build_network(folder, fold, channels=1, classes=2)
    example = torch.zeros(1, 1, *patch)
    with torch.no_grad(), warnings.catch_warnings():
        # OpenVINO traces with torch.jit, which warns of its own future and of every Python condition
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network, example_input=example, input=[-1, 1, *patch])
    openvino.save_model(model, folder / f"{fold}.xml", compress_to_fp16=True)


def _write_manifest(folder: Path, recipe: TrainingRecipe, fold: str, evaluation: dict[str, Any]) -> None:
    (folder / "model_card.md").write_text(model_card(recipe, evaluation), encoding="utf-8")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    table = recipe.bundle
    manifest = Manifest(
        format=FORMAT,
        name=table.name,
        version=table.version,
        recipe=recipe.preprocess,
        channels=("flair",),
        classes=("background", "lesion"),
        activation="softmax",
        spatial_dims=2,
        patch=recipe.network.patch,
        mirror_axes=MIRROR_AXES,
        folds=(fold,),
        threshold=table.threshold,
        min_volume_mm3=table.min_volume_mm3,
        scope=table.scope,
        licence=table.licence,
        attribution=table.attribution,
        evaluation=evaluation,
        files={Path(p).relative_to(folder).as_posix(): file_digest(p) for p in files},
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
