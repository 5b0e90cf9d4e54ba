"""From the trainer's checkpoints to a bundle: weights of every fold, manifest, model card."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors.torch import save

from msnode.errors import ConfigurationError
from msnode.preprocess import recipes
from msnode.segment.bundle import BRAIN, FORMAT, MANIFEST, Manifest, file_digest
from msnode.segment.nnunet import build_network
from msnode.train.augment import MIRROR_AXES
from msnode.train.card import model_card

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from msnode.train.recipe import TrainingRecipe


def promote(
    checkpoints: Mapping[str, Path],
    recipe: TrainingRecipe,
    out: Path,
    *,
    brain: Path | None,
    training: dict[str, Any],
) -> Path:
    """Write a bundle without evaluation figures; `record` completes it.

    Args:
        checkpoints: fold, such as "fold_0" → `.../fold_0/checkpoint_*.pth` of our own trainer (it is
            unpickled), plans.json and dataset.json one folder up.
        recipe: what the checkpoints were trained with.
        out: folder that bundles lie in; an earlier bundle of the same name and version is replaced.
        brain: bundle of the network that finds the brain; None where the recipe strips no skull.
        training: what the manifest records of the training.

    Returns:
        The bundle's folder.

    Raises:
        ConfigurationError: no checkpoint, checkpoints of different plans or beyond half precision, or a
            brain bundle that the recipe needs is missing.
        BundleCorrupt: weights and plans do not fit each other.
    """
    if not checkpoints:
        raise ConfigurationError("there is no checkpoint to promote")
    strips = recipes.get(recipe.preprocess).strips_skull
    if strips and brain is None:
        raise ConfigurationError(f"recipe {recipe.preprocess!r} strips the skull: name a brain bundle")
    folder = out / f"{recipe.bundle.name}-{recipe.bundle.version}"
    made = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        versions = {(path.parent.parent / name).read_bytes() for path in checkpoints.values()}
        if len(versions) > 1:
            raise ConfigurationError(f"the checkpoints were trained with different {name}")
        (made / name).write_bytes(versions.pop())
    if strips and brain is not None:
        shutil.copytree(brain, made / BRAIN)
    classes = _classes(made)
    for fold, path in checkpoints.items():
        _write_weights(path, made / f"{fold}.safetensors")
        build_network(made, fold, channels=1, classes=len(classes))  # refuses what would not load
    _write_manifest(
        made,
        recipe,
        {
            "format": FORMAT,
            "name": recipe.bundle.name,
            "version": recipe.bundle.version,
            "recipe": recipe.preprocess,
            "strips_skull": strips,
            "channels": ("flair",),
            "classes": classes,
            "activation": "softmax",
            "spatial_dims": 2,
            "patch": recipe.network.patch,
            "mirror_axes": MIRROR_AXES,
            "folds": tuple(checkpoints),
            "threshold": recipe.bundle.threshold,
            "min_volume_mm3": recipe.bundle.min_volume_mm3,
            "scope": recipe.bundle.scope,
            "licence": recipe.bundle.licence,
            "attribution": recipe.bundle.attribution,
            "calibration": None,
            "training": training,
            "evaluation": {},
        },
    )
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
    return folder


def record(bundle: Path, recipe: TrainingRecipe, **changes: Any) -> None:
    """Write fields of the manifest anew, such as evaluation, calibration or scope, and the model card.

    Args:
        bundle: its folder.
        recipe: what it was trained with.
        changes: field of the manifest → its new value.

    Raises:
        ConfigurationError: a field does not exist, or cannot hold the value.
    """
    fields = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    _write_manifest(bundle, recipe, fields | changes)


def _classes(folder: Path) -> tuple[str, ...]:
    labels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
    return tuple(sorted(labels, key=labels.__getitem__))


def _write_weights(source: Path, target: Path) -> None:
    """Each tensor once, in half precision: nnU-Net names most of them several times.

    Raises:
        ConfigurationError: a weight lies beyond half precision: the training diverged.
    """
    # our own file from the training just done: it holds NumPy values that a weights-only read refuses
    trained = torch.load(source, map_location="cpu", weights_only=False)
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in trained["averaged_weights"].items():
        if value.data_ptr() in seen:
            continue
        seen.add(value.data_ptr())
        tensors[name] = value.half().contiguous()
        if not torch.isfinite(tensors[name]).all():
            raise ConfigurationError(f"{source.parent.name}: {name} is not finite in half precision")
    target.write_bytes(save(tensors))  # their own writer lets nobody but the owner read the file


def _write_manifest(folder: Path, recipe: TrainingRecipe, fields: dict[str, Any]) -> None:
    """Model card and manifest, from the fields of one; the digests are taken here."""
    try:
        manifest = Manifest.model_validate(fields | {"files": {}})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"manifest: {key}: {first['msg']}") from error
    table = recipe.bundle.model_copy(
        update={name: getattr(manifest, name) for name in ("scope", "threshold", "min_volume_mm3")}
    )
    card = model_card(recipe.model_copy(update={"bundle": table}), manifest.evaluation)
    (folder / "model_card.md").write_text(card, encoding="utf-8")
    named = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in named}
    fields = manifest.model_dump(mode="json") | {"files": files}
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
