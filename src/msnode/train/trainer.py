"""nnU-Net training, the only importer of nnunetv2: planning, preprocessing, the trainer class, resuming.

nnU-Net reads its folders and process counts from the environment when it is imported:
`session.prepare_environment` runs before this module is imported.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
    preprocess_dataset,
)
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from msnode.train import augment
from msnode.train.dataset import DATASET_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from msnode.train.recipe import TrainingRecipe

_PLANS = "nnUNetPlans"
_CONFIGURATION = "2d"


class CompactTrainer(nnUNetTrainer):  # type: ignore[misc] # untyped base
    """nnU-Net's trainer with a training recipe's numbers, bfloat16 also on the CPU, and its own augmentation.

    `recipe` and `report` are set before `initialize`; the constructor's signature is nnU-Net's, which stores
    its arguments in every checkpoint.
    """

    network: torch.nn.Module
    recipe: TrainingRecipe
    report: Callable[[CompactTrainer], None]

    def configure(self, recipe: TrainingRecipe, report: Callable[[CompactTrainer], None]) -> None:
        """Take the recipe's numbers; `report` is called at the end of every epoch."""
        self.recipe, self.report = recipe, report
        table = recipe.training
        self.num_epochs = table.epochs
        self.num_iterations_per_epoch = table.iterations_per_epoch
        self.num_val_iterations_per_epoch = table.validation_iterations
        self.initial_lr, self.weight_decay = table.initial_rate, table.weight_decay
        self.oversample_foreground_percent = table.oversample_lesion
        self.save_every = 1  # every epoch can be resumed or promoted

    def _do_i_compile(self) -> bool:
        return False  # compiling costs minutes, more than a short training gains

    def initialize(self) -> None:
        """Channels-last weights: the layout that oneDNN and cuDNN convolve fastest."""
        super().initialize()
        self.network = self.network.to(memory_format=torch.channels_last)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802 - nnU-Net's name
        """Ranges of the recipe, and the patch to read so that rotation leaves no empty corner."""
        rotation = augment.rotation_range(self.recipe.augmentation)
        patch = self.configuration_manager.patch_size
        initial = get_patch_size(patch, rotation, (0, 0), (0, 0), self.recipe.augmentation.scale)
        self.inference_allowed_mirroring_axes = augment.MIRROR_AXES
        return rotation, False, initial, augment.MIRROR_AXES

    def get_training_transforms(self, patch_size: Any, *args: Any, **_: Any) -> Any:
        """The project's chain; `args` begins with the rotation and the scales of deep supervision."""
        return augment.training_transforms(self.recipe.augmentation, patch_size, args[1])

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of SGD: network in bfloat16, loss in float32, gradients clipped at 12 as nnU-Net does."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, _ = self._forward(batch)
        loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Loss and hard counts of the lesion class over the batch."""
        loss, output = self._forward(batch)
        predicted = output.argmax(1) == 1
        truth = batch["target"][0].to(self.device)[:, 0] == 1
        counts = {
            "tp_hard": predicted & truth,
            "fp_hard": predicted & ~truth,
            "fn_hard": ~predicted & truth,
        }
        sums = {key: np.array([float(value.sum())]) for key, value in counts.items()}
        return {"loss": loss.detach().cpu().numpy(), **sums}

    def _forward(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        data = batch["data"].to(self.device, memory_format=torch.channels_last)
        target = [t.to(self.device) for t in batch["target"]]
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            outputs = self.network(data)
        outputs = [output.float() for output in outputs]
        return self.loss(outputs, target), outputs[0]

    def on_epoch_end(self) -> None:
        """nnU-Net's bookkeeping and checkpoint, then the report."""
        super().on_epoch_end()
        self.report(self)


def plan(recipe: TrainingRecipe, work: Path) -> None:
    """Fingerprint, nnU-Net's planner, the recipe's edits to the 2D plan, nnU-Net's preprocessing."""
    os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112 - its spelling; the planner makes it a thread count
    extract_fingerprint_dataset(1, num_processes=1, show_progress_bar=False)
    plan_experiment_dataset(1)
    path = work / "nnUNet_preprocessed" / DATASET_NAME / f"{_PLANS}.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"] = {_CONFIGURATION: _compact(plans["configurations"][_CONFIGURATION], recipe)}
    path.write_text(json.dumps(plans, indent=2), encoding="utf-8")
    preprocess_dataset(1, _PLANS, (_CONFIGURATION,), (1,))  # a second process costs more than it saves


def _compact(planned: dict[str, Any], recipe: TrainingRecipe) -> dict[str, Any]:
    """The planner's 2D configuration with the recipe's features, stages, batch and patch."""
    stages = len(recipe.network.features)
    architecture = planned["architecture"]["arch_kwargs"] | {
        "n_stages": stages,
        "features_per_stage": list(recipe.network.features),
        "kernel_sizes": [[3, 3]] * stages,
        "strides": [[1, 1]] + [[2, 2]] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
    return planned | {
        "batch_size": recipe.training.batch,
        "patch_size": list(recipe.network.patch),
        "architecture": planned["architecture"] | {"arch_kwargs": architecture},
    }


def run(recipe: TrainingRecipe, work: Path, fold: int, report: Callable[[CompactTrainer], None]) -> Path:
    """Train one fold, from the latest checkpoint where there is one.

    Returns:
        nnU-Net's result folder (plans.json, dataset.json, fold_N/checkpoint_final.pth).
    """
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - its spelling; 0 augments in this process
    torch.manual_seed(recipe.training.seed)
    np.random.seed(recipe.training.seed)  # noqa: NPY002 - the generator that batchgenerators uses
    preprocessed = work / "nnUNet_preprocessed" / DATASET_NAME
    plans = load_json(str(preprocessed / f"{_PLANS}.json"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = work / "nnUNet_results" / DATASET_NAME / f"{CompactTrainer.__name__}__{_PLANS}__{_CONFIGURATION}"
    final, latest = (folder / f"fold_{fold}" / f"checkpoint_{kind}.pth" for kind in ("final", "latest"))
    if final.exists():
        return folder
    plans["continue_training"] = latest.exists()
    dataset_json = load_json(str(preprocessed / "dataset.json"))
    trainer = CompactTrainer(plans, _CONFIGURATION, fold, dataset_json, device)
    trainer.configure(recipe, report)
    if latest.exists():
        trainer.load_checkpoint(str(latest))
    trainer.run_training()
    return folder
