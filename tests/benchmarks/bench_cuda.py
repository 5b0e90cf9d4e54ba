"""The CUDA path: its masks against the CPU's, and slices a second against the card's limit in half precision.

Needs a CUDA device, torch and the shared ms3seg scans. The bundle is the built-in one, or the folder that
MSNODE_BENCH_BUNDLE names.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msnode.domain.imaging import Prepared
from msnode.preprocess import recipes
from msnode.segment.bundle import Bundle, builtin_folder, find_bundle, load_bundle
from msnode.segment.nnunet import build_network
from msnode.segment.predict import Predictor
from msnode.segment.runtime import Runtime, TorchRuntime, cuda_device_count
from msnode.train.cases import read_nifti
from msnode.train.reading import CaseReader
from support.environment import data_root

SLICES = 480
SIDE = 8192
"""Rows and columns of the matrix product that says what the card can do."""


def _seconds(work: object, device: str) -> float:
    """The fastest of five runs of `work`, a function without arguments, after two that are not counted."""
    import torch  # noqa: PLC0415 - half a gigabyte, here only with a GPU

    runs = []
    for _ in range(7):
        begun = time.perf_counter()
        work()  # type: ignore[operator] # it is one
        if device == "cuda":
            torch.cuda.synchronize()
        runs.append(time.perf_counter() - begun)
    return min(runs[2:])


def agreement(bundle: Bundle, scans: Sequence[Prepared], device: str) -> list[str]:
    """Masks on the prepared grid, by the CPU and by the device."""
    predictors = [Predictor(bundle, "cpu"), Predictor(bundle, device)]
    pairs = [[p.predict(scan).probability[-1] >= 0.5 for p in predictors] for scan in scans]
    dice = [2 * (a & b).sum() / max(1, a.sum() + b.sum()) for a, b in pairs]
    a, b = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    pooled = 2 * (a & b).sum() / (a.sum() + b.sum())
    return [
        "| scans | pooled Dice | lowest Dice | target |",
        "|---:|---:|---:|---|",
        f"| {len(scans)} | {pooled:.4f} | {min(dice):.4f} | >= 0.995 |",
    ]


def speed(bundle: Bundle, runtime: Runtime, device: str) -> list[str]:
    """Slices a second of the whole ensemble, transfers included, and the share of the card's limit."""
    import torch  # noqa: PLC0415 - as above
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - as above

    manifest = bundle.manifest
    slices = np.random.default_rng(1).random((SLICES, 1, *manifest.patch), dtype=np.float32)
    seconds = _seconds(lambda: runtime.run(slices), device)
    network = build_network(bundle.path, manifest.folds[0], len(manifest.channels), len(manifest.classes))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.from_numpy(slices[:1]))
    work = counter.get_total_flops() * len(manifest.folds) * SLICES
    half = torch.randn((SIDE, SIDE), device=device, dtype=torch.bfloat16)
    limit = 2 * SIDE**3 / _seconds(lambda: half @ half, device)
    done = work / seconds
    figures = f"{SLICES / seconds:.0f} | {done / 1e12:.1f} | {limit / 1e12:.0f} | {done / limit:.1%}"
    return [
        "| networks | slices/s | TFLOP/s | bf16 matrix product, TFLOP/s | share |",
        "|---:|---:|---:|---:|---:|",
        f"| {len(manifest.folds)} | {figures} |",
    ]


def run() -> str:
    """Agreement and speed; a Markdown section."""
    if not cuda_device_count():
        return "### CUDA\n\nThis machine has no CUDA device."
    configured = os.environ.get("MSNODE_BENCH_BUNDLE")
    path = Path(configured) if configured else find_bundle("msnode-flair2d", [builtin_folder()])
    bundle, reader = load_bundle(path, recipes.names()), CaseReader(path)
    images = sorted(data_root().glob("ms3seg/*/FLAIR.nii.gz"))
    scans = [reader.prepare(read_nifti(image), None) for image in images]
    channels, classes = len(bundle.manifest.channels), len(bundle.manifest.classes)
    modules = [build_network(path, fold, channels, classes) for fold in bundle.manifest.folds]
    sections = [speed(bundle, TorchRuntime(modules, "cuda"), "cuda")]
    if scans:
        sections.append(agreement(bundle, scans, "cuda"))
    about = f"Bundle {path.name}, standard preset."
    return "\n\n".join(["### CUDA", about, *("\n".join(lines) for lines in sections)])
