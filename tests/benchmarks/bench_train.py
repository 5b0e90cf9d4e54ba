"""Training iterations a second on the CPU: our layers and optimiser against torch's and nnU-Net's own.

Both in one process, in alternation, on the same drawn slices: augmentation, network in bfloat16, loss,
gradient and step of a batch as the recipe has it. "As 0.4.0 did" keeps torch's instance normalisation and
transposed convolution (in channels-last as well) and its optimiser, one tensor after the other.
"""

import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msnode.segment.architectures.plain_conv_unet import plain_conv_unet
from msnode.train import augment
from msnode.train.cpu_layers import replace_layers
from msnode.train.recipe import TrainingRecipe, load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "config" / "recipes"
ITERATIONS = 20


def _slices(recipe: TrainingRecipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and labels (1, row, column) of a drawn brain with a few lesions, stripped."""
    rows, columns = recipe.network.patch
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    random = np.random.default_rng(1)
    brain = (y**2 + x**2 < 0.8) * (0.4 + 0.05 * random.standard_normal((rows, columns)))
    labels = np.zeros((1, rows, columns), dtype=np.int16)
    for row, column in random.integers(rows // 3, rows // 2, (4, 2)):
        labels[0, row : row + 6, column : column + 6] = 1
    image = np.clip(brain + 0.2 * labels[0], 0, 1).astype(np.float32)
    return torch.from_numpy(image)[None], torch.from_numpy(labels)


def _loss(outputs: int) -> Callable[..., torch.Tensor]:
    """nnU-Net's Dice and cross-entropy with deep supervision."""
    for part in ("raw", "preprocessed", "results"):
        os.environ.setdefault(f"nnUNet_{part}", os.devnull)
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss  # noqa: PLC0415 - reads the environment
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper  # noqa: PLC0415 - as above
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss  # noqa: PLC0415 - as above

    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([1 / 2**n for n in range(outputs)])
    return DeepSupervisionWrapper(loss, weights / weights.sum())  # type: ignore[no-any-return] # untyped


def _optimiser(recipe: TrainingRecipe, network: torch.nn.Module, *, ours: bool) -> torch.optim.Optimizer:
    table = recipe.training
    settings: dict[str, Any] = {"lr": table.initial_rate, "weight_decay": table.weight_decay}
    settings["fused"] = ours or None
    if table.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=0.99, nesterov=True, **settings)
    return torch.optim.AdamW(network.parameters(), **settings)


class _Training:
    """One network in training."""

    def __init__(self, recipe: TrainingRecipe, *, ours: bool) -> None:
        torch.manual_seed(1)
        stages = len(recipe.network.features)
        arguments = {
            "n_stages": stages,
            "features_per_stage": list(recipe.network.features),
            "kernel_sizes": [[3, 3]] * stages,
            "strides": [[1, 1]] + [[2, 2]] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin_kwargs": {"inplace": True},
        }
        network = plain_conv_unet(arguments, 1, 2).to(memory_format=torch.channels_last)
        network.decoder.deep_supervision = True  # type: ignore[union-attr] # nnU-Net's has a decoder
        if ours:
            replace_layers(network)
        self.network, self.loss = network, _loss(stages - 1)
        self.optimiser = _optimiser(recipe, network, ours=ours)
        scales = [[1 / 2**n] * 2 for n in range(stages - 1)]
        self.transforms = augment.training_transforms(recipe.augmentation, scales)
        self.slices, self.batch = _slices(recipe), recipe.training.batch

    def iterate(self) -> None:
        image, labels = self.slices
        drawn = [self.transforms(image=image.clone(), segmentation=labels.clone()) for _ in range(self.batch)]
        data = torch.stack([one["image"] for one in drawn]).to(memory_format=torch.channels_last)
        targets = [torch.stack(same) for same in zip(*(one["segmentation"] for one in drawn), strict=True)]
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = self.network(data)
        self.loss([output.float() for output in outputs], targets).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimiser.step()


def _row(recipe: TrainingRecipe) -> str:
    trainings = [_Training(recipe, ours=ours) for ours in (False, True)]
    wall: list[list[float]] = [[], []]
    busy: list[list[float]] = [[], []]
    for number in range(ITERATIONS + 2):
        for one, seconds, used in zip(trainings, wall, busy, strict=True):
            np.random.seed(number)  # noqa: NPY002 - the generator that the augmentation draws from
            torch.manual_seed(number)
            begun, begun_busy = time.perf_counter(), time.process_time()
            one.iterate()
            if number > 1:  # the first two are not counted: oneDNN compiles its kernels
                seconds.append(time.perf_counter() - begun)
                used.append(time.process_time() - begun_busy)
    before, now = (statistics.median(seconds) for seconds in wall)
    cpu_before, cpu_now = (statistics.median(seconds) for seconds in busy)
    return (
        f"| {recipe.name} | {recipe.training.batch} | {1 / before:.2f} | {1 / now:.2f} | "
        f"{before / now:.2f} | {cpu_before / cpu_now:.2f} |"
    )


def run() -> str:
    """Iterations a second of each recipe that a CPU trains; a Markdown section."""
    names = ("nnunet2d.toml", "nnunet2d-wide.toml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nnU-Net's own, of unset folders
        rows = [_row(load_recipe(RECIPES / name)) for name in names]
    return "\n".join(
        [
            "### Training",
            "",
            f"{torch.get_num_threads()} threads; median of {ITERATIONS} iterations each, in alternation.",
            "",
            "| recipe | batch | iterations/s as 0.4.0 did | iterations/s | times faster | times less CPU |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
        ]
    )
