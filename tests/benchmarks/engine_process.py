"""One engine in a process of its own, so that its memory and its start can be measured.

python -m benchmarks.engine_process TASK.json writes what it found into the task's "out" folder:
result.json, and for each input the lesion probability as NAME.npy.

A task has: engine ("msnode", "nnunet" or "whole"), model (bundle or model folder), preset, precision or null,
cache (folder or null), inputs (.npz with data, brain and source's affine), repeats, out.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from msnode.domain.imaging import Grid, Prepared, Volume
from msnode.preprocess import recipes
from msnode.reading.networks import open_networks
from msnode.reading.segment_volume import LesionRules, segment_volume
from msnode.segment import runtime
from msnode.segment.bundle import load_bundle
from msnode.segment.predict import Predictor


def _msnode(task: dict[str, Any]) -> Callable[[Any], np.ndarray]:
    """Our predictor: prepared image → lesion probability."""
    if task["precision"]:
        runtime.OpenVinoRuntime = partial(runtime.OpenVinoRuntime, precision=task["precision"])
    cache = Path(task["cache"]) if task["cache"] else None
    bundle = load_bundle(Path(task["model"]), recipes.names())
    predictor = Predictor(bundle, "cpu", preset=task["preset"], cache_dir=cache)

    def predict(given: Any) -> np.ndarray:
        grid = Grid(given["data"].shape[1:], given["affine"])
        prepared = Prepared(given["data"], grid, grid, bundle.manifest.recipe, given["brain"])
        return predictor.predict(prepared).probability[-1]

    return predict


def _nnunet(task: dict[str, Any]) -> Callable[[Any], np.ndarray]:
    """nnU-Net's predictor, kept in memory: prepared image → lesion probability."""
    import torch  # noqa: PLC0415 - not in the process that is measured without it
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - same

    predictor = nnUNetPredictor(
        device=torch.device("cpu"),
        perform_everything_on_device=False,
        use_mirroring=task["preset"] == "best",
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(task["model"], use_folds=None)

    def predict(given: Any) -> np.ndarray:
        spacing = np.linalg.norm(given["affine"][:3, :3], axis=0).tolist()
        _, probability = predictor.predict_single_npy_array(
            given["data"], {"spacing": spacing}, None, None, save_or_return_probabilities=True
        )
        return probability[1]

    return predict


def _whole(task: dict[str, Any]) -> Callable[[Any], np.ndarray]:
    """From a volume to its lesion list, by the path that the node takes: labels of the lesions."""
    cache = Path(task["cache"]) if task["cache"] else None
    bundle = load_bundle(Path(task["model"]), recipes.names())
    networks = open_networks(bundle, partial(Predictor, device="cpu", preset=task["preset"], cache_dir=cache))
    rules = LesionRules.of(bundle.manifest)

    def predict(given: Any) -> np.ndarray:
        volume = Volume(given["data"], Grid(given["data"].shape, given["affine"]))
        return segment_volume(volume, networks, rules).lesion_map.labels

    return predict


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    predict = {"msnode": _msnode, "nnunet": _nnunet, "whole": _whole}[task["engine"]](task)
    seconds: dict[str, list[float]] = {}
    for path in map(Path, task["inputs"]):
        given = dict(np.load(path))
        given.setdefault("brain", None)
        for _ in range(task["repeats"]):
            begun = time.perf_counter()
            probability = predict(given)
            seconds.setdefault(path.stem, []).append(time.perf_counter() - begun)
        np.save(Path(task["out"]) / f"{path.stem}.npy", probability)
    (Path(task["out"]) / "result.json").write_text(json.dumps({"seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main()
