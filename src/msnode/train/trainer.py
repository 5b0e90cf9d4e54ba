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
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.multiprocessing import spawn  # type: ignore[attr-defined]
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msnode.train import augment, cpu_layers
from msnode.train.dataset import DATASET_NAME
from msnode.train.sampling import Cases, balanced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from msnode.train.recipe import TrainingRecipe

_PLANS = "nnUNetPlans"
_CONFIGURATION = "2d"


class RecipeTrainer(nnUNetTrainer):  # type: ignore[misc] # untyped base
    """nnU-Net's trainer with a training recipe's numbers, bfloat16 also on the CPU, and its own augmentation.

    `configure` is called before `initialize`; the constructor's signature is nnU-Net's, which stores its
    arguments in every checkpoint. A kill costs at most the epoch in which it happens: every epoch ends with
    a checkpoint, written aside and renamed, that holds the states of all random generators.
    """

    network: torch.nn.Module
    _average: AveragedModel | None
    recipe: TrainingRecipe
    report: Callable[[RecipeTrainer], None]

    def configure(
        self, recipe: TrainingRecipe, report: Callable[[RecipeTrainer], None], *, pretraining: bool
    ) -> None:
        """Take the recipe's numbers; `report` is called at the end of every epoch."""
        self.recipe, self.report = recipe, report
        table = recipe.training
        self.num_epochs = table.pretraining_epochs if pretraining else table.epochs
        self.num_iterations_per_epoch = table.iterations_per_epoch
        self.num_val_iterations_per_epoch = table.validation_iterations
        self.initial_lr, self.weight_decay = table.initial_rate, table.weight_decay
        self.oversample_foreground_percent = table.oversample_lesion
        self.save_every = 1  # every epoch can be resumed or promoted

    def _do_i_compile(self) -> bool:
        return False  # compiling costs minutes, more than a short training gains

    def initialize(self) -> None:
        """Channels-last weights, the layout that oneDNN and cuDNN convolve fastest, and their average."""
        super().initialize()
        self.network = self.network.to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            cpu_layers.replace_layers(self.network)
        decay = self.recipe.training.averaging
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self.bare_network, multi_avg_fn=average) if decay else None

    @property
    def averaged(self) -> torch.nn.Module:
        """The network with averaged weights; the network itself where the recipe averages none."""
        return self._average.module if self._average is not None else self.bare_network

    @property
    def bare_network(self) -> torch.nn.Module:
        """The network, without what trains it on several GPUs."""
        return self.network.module if self.is_ddp else self.network  # type: ignore[return-value] # it wraps one

    def configure_optimizers(self) -> tuple[Any, Any]:
        """nnU-Net's SGD, or AdamW; the rate falls polynomially either way."""
        settings: dict[str, Any] = {"lr": self.initial_lr, "weight_decay": self.weight_decay, "fused": True}
        optimiser: torch.optim.Optimizer
        if self.recipe.training.optimiser == "sgd":
            optimiser = torch.optim.SGD(self.network.parameters(), momentum=0.99, nesterov=True, **settings)
        else:
            optimiser = torch.optim.AdamW(self.network.parameters(), **settings)
        return optimiser, PolyLRScheduler(optimiser, self.initial_lr, self.num_epochs)

    def start_from(self, checkpoint: Path) -> None:
        """Take the weights, and nothing else, of another training of the same network."""
        if not self.was_initialized:
            self.initialize()
        # our own file, from the pretraining just done
        trained = torch.load(checkpoint, map_location=self.device, weights_only=False)
        self.bare_network.load_state_dict(trained["averaged_weights"])

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802 - nnU-Net's name
        """The patch is read as large as the network sees it: `augment` brings zeros in, as padding does."""
        self.inference_allowed_mirroring_axes = augment.MIRROR_AXES
        return (0.0, 0.0), False, tuple(self.configuration_manager.patch_size), augment.MIRROR_AXES

    def get_training_transforms(self, *args: Any, **_: Any) -> Any:
        """The project's chain; `args` are patch, rotation and the scales of deep supervision, …."""
        return augment.training_transforms(self.recipe.augmentation, args[2])

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net draws cases evenly: real ones are named several times, for the recipe's share."""
        train, val = super().get_tr_and_val_datasets()
        names = balanced(train.identifiers, self.recipe.synthetic.share)
        return Cases(train, names, even_slices=self.recipe.training.even_slices), val

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of SGD: network in bfloat16, loss in float32, gradients clipped at 12 as nnU-Net does."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, _ = self._forward(self.network, batch)
        loss.backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self.bare_network)
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Loss of the averaged weights, and their hard counts of each foreground class over the batch."""
        loss, output = self._forward(self.averaged, batch)
        predicted, truth = output.argmax(1), batch["target"][0].to(self.device)[:, 0]
        counts: dict[str, list[float]] = {"tp_hard": [], "fp_hard": [], "fn_hard": []}
        for label in self.label_manager.foreground_labels:
            found, there = predicted == label, truth == label
            counts["tp_hard"].append(float((found & there).sum()))
            counts["fp_hard"].append(float((found & ~there).sum()))
            counts["fn_hard"].append(float((~found & there).sum()))
        sums = {key: np.array(values) for key, values in counts.items()}
        return {"loss": loss.detach().cpu().numpy(), **sums}

    def _forward(self, network: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        data = batch["data"].to(self.device, memory_format=torch.channels_last)
        target = [t.to(self.device) for t in batch["target"]]
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            outputs = network(data)
        outputs = [output.float() for output in outputs]
        return self.loss(outputs, target), outputs[0]

    def on_epoch_end(self) -> None:
        """nnU-Net's bookkeeping and checkpoint, then the report."""
        super().on_epoch_end()
        if self.local_rank == 0:
            self.report(self)

    def save_checkpoint(self, filename: str) -> None:
        """Write aside, add averages and random states, rename: a kill leaves the epoch before."""
        aside = f"{filename}.incomplete"
        super().save_checkpoint(aside)
        if self.local_rank != 0:
            return
        content = torch.load(aside, map_location="cpu", weights_only=False)  # our own, written a line above
        content["averaged_weights"] = self.averaged.state_dict()
        content["random"] = (torch.get_rng_state(), np.random.get_state())  # noqa: NPY002 - batchgenerators' own
        torch.save(content, aside)
        os.replace(aside, filename)  # noqa: PTH105 - nnU-Net passes names

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue where the checkpoint was written, averaged weights and random numbers included."""
        super().load_checkpoint(filename_or_checkpoint)
        content = torch.load(filename_or_checkpoint, map_location="cpu", weights_only=False)  # our own file
        if self._average is not None:
            self._average.module.load_state_dict(content["averaged_weights"])
            self._average.n_averaged += 1  # whatever their number: only the first replaces the average
        self._random = content["random"]

    def on_train_start(self) -> None:
        """nnU-Net draws from the generators while it sets up: their states come back after that."""
        super().on_train_start()
        if (states := getattr(self, "_random", None)) is not None:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])  # noqa: NPY002 - batchgenerators' own


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


def run(
    recipe: TrainingRecipe,
    work: Path,
    fold: int,
    report: Callable[[RecipeTrainer], None],
    *,
    device: str,
    gpus: int,
    workers: int,
) -> Path:
    """Train one fold, from the latest checkpoint where there is one.

    Args:
        recipe: the training recipe; its pretraining is fold number `recipe.dataset.folds`.
        work: the training's folder.
        fold: which fold.
        report: told of every epoch (on one GPU or the CPU).
        device: "cpu" or "cuda".
        workers: processes that augment; 0 augments in this one.
        gpus: number of GPUs; more than one train together by nnU-Net's distributed data parallel.

    Returns:
        The fold's checkpoint, `.../fold_N/checkpoint_final.pth`; plans.json and dataset.json lie a folder up.
    """
    folder = work / "nnUNet_results" / DATASET_NAME / f"{RecipeTrainer.__name__}__{_PLANS}__{_CONFIGURATION}"
    final = folder / f"fold_{fold}" / "checkpoint_final.pth"
    if final.exists():
        return final
    os.environ["nnUNet_n_proc_DA"] = str(workers)  # noqa: SIM112 - its spelling
    if gpus > 1:
        spawn(_run_rank, (gpus, recipe, work, folder, fold), nprocs=gpus)  # type: ignore[no-untyped-call]
    else:
        _run(recipe, work, folder, fold, report, device)
    return final


def curves(checkpoint: Path) -> dict[str, list[float]]:
    """Loss an epoch, on training and validation batches, as the checkpoint logged it."""
    # our own file, from the training just done
    logged = torch.load(checkpoint, map_location="cpu", weights_only=False)["logging"]
    names = {"train": "train_losses", "validation": "val_losses"}
    return {name: [round(float(v), 4) for v in logged[key]] for name, key in names.items()}


def _run_rank(  # noqa: PLR0917 - torch passes them by position
    rank: int, gpus: int, recipe: TrainingRecipe, work: Path, folder: Path, fold: int
) -> None:
    """One process of several, each on its own GPU."""
    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", "29501")
    torch.distributed.init_process_group("nccl", rank=rank, world_size=gpus)
    torch.cuda.set_device(rank)
    _run(recipe, work, folder, fold, lambda _: None, "cuda")
    torch.distributed.destroy_process_group()


def _run(  # noqa: PLR0917 - each is needed, none has a default
    recipe: TrainingRecipe,
    work: Path,
    folder: Path,
    fold: int,
    report: Callable[[RecipeTrainer], None],
    device: str,
) -> None:
    torch.manual_seed(recipe.training.seed + fold)
    np.random.seed(recipe.training.seed + fold)  # noqa: NPY002 - the generator that batchgenerators uses
    preprocessed = work / "nnUNet_preprocessed" / DATASET_NAME
    plans = load_json(str(preprocessed / f"{_PLANS}.json"))
    pretrained = folder / f"fold_{recipe.dataset.folds}" / "checkpoint_final.pth"
    latest = folder / f"fold_{fold}" / "checkpoint_latest.pth"
    plans["continue_training"] = latest.exists()
    dataset_json = load_json(str(preprocessed / "dataset.json"))
    trainer = RecipeTrainer(plans, _CONFIGURATION, fold, dataset_json, torch.device(device))
    pretraining = fold == recipe.dataset.folds
    trainer.configure(recipe, report, pretraining=pretraining)
    if latest.exists():
        trainer.load_checkpoint(str(latest))
    elif recipe.training.pretraining_epochs and not pretraining:
        trainer.start_from(pretrained)
    trainer.run_training()
