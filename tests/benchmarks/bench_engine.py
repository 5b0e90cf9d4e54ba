"""Our engine against nnU-Net's: same weights, prepared input, folds and mirrors, on one machine in one run.

The bundle is exported to a model folder of plain nnunetv2, which is run as its command
(`nnUNetv2_predict_from_modelfolder`) and as its predictor kept in memory; ours, as a whole process and kept
in memory. Input are the prepared slices of the shared ms3seg scans; without these, a drawn brain. The bundle
is the built-in one, or the folder that MSNODE_BENCH_BUNDLE names.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from benchmarks.memory import peaks_below
from msnode.domain.imaging import Grid, Prepared, Volume
from msnode.preprocess import recipes
from msnode.reading.networks import open_brain
from msnode.segment.bundle import BRAIN, builtin_folder, find_bundle, load_bundle
from msnode.segment.predict import Predictor
from msnode.train.cases import read_nifti
from msnode.train.export import export_nnunet
from support.environment import data_root

ROOT = Path(__file__).resolve().parents[2]
CURVE = (10, 20, 50, 100, 200, 400)
REPEATS = 5
LARGE = (192, 512, 512)
_BINARY = Path(sys.executable).parent


@dataclass
class Bench:
    """Folders, and the inputs as files: `prepared` (data, brain, affine), `volumes` (data, affine)."""

    folder: Path
    bundle: Path
    exported: Path
    prepared: list[Path] = field(default_factory=list)
    volumes: list[Path] = field(default_factory=list)

    def process(self, engine: str, inputs: Sequence[Path], **changes: Any) -> dict[str, Any]:
        """Run `engine_process`; its result with wall_s, peak_mib and the folder of its output."""
        out = Path(tempfile.mkdtemp(dir=self.folder))
        model = self.exported if engine == "nnunet" else self.bundle
        task = {"engine": engine, "model": str(model), "preset": "standard", "precision": None, "cache": None}
        task |= {"repeats": 1, "inputs": [str(path) for path in inputs], "out": str(out)} | changes
        (out / "task.json").write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.engine_process", str(out / "task.json")]
        seconds, peak = _measured(command, out / "log")
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        return result | {"wall_s": seconds, "peak_mib": peak, "out": out}

    def command(self, source: Path, preset: str) -> dict[str, Any]:
        """Run nnU-Net's own command on a folder of NIfTI images."""
        out = Path(tempfile.mkdtemp(dir=self.folder))
        command = [str(_BINARY / "nnUNetv2_predict_from_modelfolder"), "-i", str(source), "-o", str(out)]
        command += ["-m", str(self.exported), "-f", *_fold_numbers(self.exported)]
        command += ["-device", "cpu", "-npp", "1", "-nps", "1"]
        command += [] if preset == "best" else ["--disable_tta"]
        seconds, peak = _measured(command, out / "log")
        return {"wall_s": seconds, "peak_mib": peak, "out": out}


def _measured(command: Sequence[str], log: Path) -> tuple[float, float]:
    """Wall-clock seconds of a process, and the peak memory of the largest of it and those below it, MiB."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    peak, begun = 0.0, time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        while True:
            try:
                process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                # not the rusage of the ended process: that counts what its parent held when it was started
                peak = max(peak, _largest(process.pid))
    seconds = time.perf_counter() - begun
    assert process.returncode == 0, log.read_text(errors="replace")[-2000:]
    return seconds, peak


def _largest(pid: int) -> float:
    try:
        return max(peaks_below(pid, "it").values())
    except (psutil.Error, OSError):  # one of them has just ended
        return 0.0


def _fold_numbers(exported: Path) -> list[str]:
    return [path.name.removeprefix("fold_") for path in sorted(exported.glob("fold_*"))]


def _ellipsoid(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """A noisy head: a bright ellipsoid that fills most of the grid."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    inside = sum(axis**2 for axis in axes) < 0.8
    noise = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return np.where(inside, 0.4 + 0.3 * noise, 0).astype(np.float32)


def _scans() -> Iterator[tuple[str, Volume]]:
    """The shared scans; without them a drawn one."""
    found = sorted(data_root().glob("ms3seg/*/FLAIR.nii.gz"))
    for path in found:
        yield path.parent.name, read_nifti(path)
    if not found:
        shape = (20, 256, 256)
        yield "drawn", Volume(_ellipsoid(shape, 0) * 1000, Grid(shape, np.diag([7.2, 0.9, 0.9, 1])))


def _write_inputs(bench: Bench) -> Path:
    """Every scan prepared, as .npz and as the NIfTI folder of the first one; the scans themselves too."""
    bundle = load_bundle(bench.bundle, recipes.names())
    extract = open_brain(bench.bundle / BRAIN, partial(Predictor, device="cpu"))
    nifti = bench.folder / "nifti"
    nifti.mkdir()
    for name, volume in _scans():
        prepared = recipes.get(bundle.manifest.recipe).apply(volume, extract)
        assert prepared.brain is not None, "the built-in recipe strips the skull"
        path = bench.folder / f"{name}.npz"
        np.savez(path, data=prepared.data, brain=prepared.brain, affine=prepared.grid.affine)
        bench.prepared.append(path)
        source = bench.folder / f"{name}-source.npz"
        np.savez(source, data=volume.data, affine=volume.grid.affine)
        bench.volumes.append(source)
        if not any(nifti.iterdir()):
            _write_nifti(prepared, nifti / f"{name}_0000.nii.gz")
    return nifti


def _write_nifti(prepared: Prepared, path: Path) -> None:
    image: Any = sitk.GetImageFromArray(prepared.data[0])
    image.SetSpacing(prepared.grid.spacing[::-1])
    sitk.WriteImage(image, str(path))


def _speed(bench: Bench, nifti: Path) -> list[str]:
    """Whole processes and predictors kept in memory, seconds for one series, and how many times faster."""
    first, cache = bench.prepared[:1], str(bench.folder / "cache")
    bench.process("msnode", first, cache=cache)  # compiles once: what follows finds it
    lines = [
        "| | nnU-Net, s | msnode, s | times faster | target |",
        "|---|---:|---:|---:|---:|",
    ]
    memory = {}
    for preset in ("standard", "best"):
        command = bench.command(nifti, preset)
        whole = bench.process("msnode", first, preset=preset, cache=cache)
        theirs = bench.process("nnunet", first, preset=preset, repeats=REPEATS)
        ours = bench.process("msnode", first, preset=preset, repeats=REPEATS, cache=cache)
        name = first[0].stem
        kept = [statistics.median(result["seconds"][name][1:]) for result in (theirs, ours)]
        lines += [
            _ratio(f"{preset}: its command, our predictor in memory", command["wall_s"], kept[1], 10),
            _ratio(f"{preset}: its command, our whole process", command["wall_s"], whole["wall_s"], None),
            _ratio(f"{preset}: both in memory", *kept, 3),
        ]
        memory |= {f"nnU-Net's command, {preset}": command, f"msnode, {preset}": ours}
    lines += ["", "| process | peak memory, MiB |", "|---|---:|"]
    return lines + [f"| {name} | {result['peak_mib']:.0f} |" for name, result in memory.items()]


def _ratio(what: str, theirs: float, ours: float, target: float | None) -> str:
    return (
        f"| {what} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f} | {f'>= {target:g}' if target else ''} |"
    )


def _agreement(bench: Bench) -> list[str]:
    """Masks on the prepared grid against nnU-Net's own."""
    theirs = bench.process("nnunet", bench.prepared)
    lines = [
        "| precision | pooled Dice | lowest Dice | largest difference of a probability | target |",
        "|---|---:|---:|---:|---|",
    ]
    targets = {"f32": ">= 0.999", "bf16": ">= 0.995 pooled, >= 0.98 each"}
    for precision, target in targets.items():
        ours = bench.process("msnode", bench.prepared, precision=precision)
        pairs = [_probabilities(bench, path, theirs, ours) for path in bench.prepared]
        masks = [(a >= 0.5, b >= 0.5) for a, b in pairs]
        pooled = _dice(*(np.concatenate([m[i].ravel() for m in masks]) for i in (0, 1)))
        largest = max(float(np.abs(a - b).max()) for a, b in pairs)
        lowest = min(_dice(*mask) for mask in masks)
        lines.append(f"| {precision} | {pooled:.4f} | {lowest:.4f} | {largest:.3f} | {target} |")
    voxels = sum(int(np.count_nonzero(m[0])) for m in masks)
    return [*lines, "", f"{len(bench.prepared)} scans, {voxels} lesion voxels by nnU-Net."]


def _probabilities(bench: Bench, path: Path, *results: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Of each engine, in the slices that hold brain; the others are left out by ours."""
    brain = np.load(path)["brain"].any(axis=(1, 2))
    first, second = (np.load(result["out"] / f"{path.stem}.npy")[brain] for result in results)
    return first, second


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def _curve(bench: Bench) -> list[str]:
    """Seconds by the number of slices, and the peak of a process that read them all."""
    given = np.load(bench.prepared[0])
    wanted = np.flatnonzero(given["brain"].any(axis=(1, 2)))
    inputs = []
    for count in CURVE:
        taken = np.resize(wanted, count)
        path = bench.folder / f"{count}.npz"
        np.savez(path, data=given["data"][:, taken], brain=given["brain"][taken], affine=given["affine"])
        inputs.append(path)
    result = bench.process("msnode", inputs, repeats=2)
    lines = ["| slices with brain | seconds | ms a slice |", "|---:|---:|---:|"]
    for count in CURVE:
        seconds = min(result["seconds"][str(count)])
        lines.append(f"| {count} | {seconds:.2f} | {1000 * seconds / count:.0f} |")
    return [*lines, "", f"Peak memory of the process: {result['peak_mib']:.0f} MiB."]


def _whole(bench: Bench) -> list[str]:
    """From a volume to the lesion list: one clinical series, and a large sagittal one."""
    cache = str(bench.folder / "cache")
    lines = ["| from volume to lesion list | seconds | peak memory, MiB | target |", "|---|---:|---:|---|"]
    for preset in ("fast", "standard", "best"):
        result = bench.process("whole", bench.volumes[:1], preset=preset, repeats=REPEATS, cache=cache)
        seconds = statistics.median(result["seconds"][bench.volumes[0].stem][1:])
        target = "< 5 s" if preset == "standard" else ""
        lines.append(f"| {preset}, 20 slices | {seconds:.2f} | {result['peak_mib']:.0f} | {target} |")
    sagittal = np.eye(4)
    sagittal[:3, :3] = np.array([[1, 0, 0], [0, 0, 0.45], [0, -0.45, 0]])  # slices along x, rows down
    path, size = bench.folder / "large.npz", " x ".join(map(str, LARGE))
    np.savez(path, data=_ellipsoid(LARGE, 1) * 1000, affine=sagittal)
    result = bench.process("whole", [path], cache=cache)
    seconds, peak = result["seconds"]["large"][0], result["peak_mib"]
    lines.append(f"| standard, {size} sagittal | {seconds:.1f} | {peak:.0f} | < 3072 MiB |")
    return [*lines, *_large_prepared(bench, size)]


def _large_prepared(bench: Bench, size: str) -> list[str]:
    """As large a prepared grid, tiled; brain in few slices: memory is that of all, time is not."""
    brain = np.zeros(LARGE, dtype=np.uint8)
    brain[:: LARGE[0] // 8] = 1
    path = bench.folder / "tiled.npz"
    np.savez(path, data=_ellipsoid(LARGE, 2)[np.newaxis], brain=brain, affine=np.eye(4))
    result = bench.process("msnode", [path], preset="best")
    return [f"| best, prepared grid of {size} in tiles | | {result['peak_mib']:.0f} | < 3072 MiB |"]


def run() -> str:
    """Speed, agreement, cost curve and memory; Markdown tables."""
    configured = os.environ.get("MSNODE_BENCH_BUNDLE")
    bundle = Path(configured) if configured else find_bundle("msnode-flair2d", [builtin_folder()])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder, bundle, export_nnunet(bundle, folder / "exported"))
        nifti = _write_inputs(bench)
        shape = " x ".join(map(str, np.load(bench.prepared[0])["data"].shape[1:]))
        series = f"{bench.prepared[0].stem}, prepared grid {shape}"
        about = (
            f"Bundle {bundle.name}, {len(_fold_numbers(bench.exported))} folds; {series}. Seconds for one "
            f"series; in memory: median of {REPEATS - 1} after one that is not counted."
        )
        sections = [
            _speed(bench, nifti),
            ["Masks on the prepared grid against nnU-Net's, standard preset:", "", *_agreement(bench)],
            ["Cost by number of slices, standard preset:", "", *_curve(bench)],
            _whole(bench),
        ]
    return "\n\n".join([about, *("\n".join(lines) for lines in sections)])
