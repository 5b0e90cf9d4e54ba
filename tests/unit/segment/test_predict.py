"""The predictor against nnU-Net's own, between its two engines, and what it imports."""

import os
import subprocess
import sys
import textwrap
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from msnode.domain import Grid, Prepared
from msnode.errors import ConfigurationError, RecipeMismatch
from msnode.preprocess import recipes
from msnode.runtime import TorchRuntime
from msnode.segment import predict
from msnode.segment.bundle import load_bundle
from msnode.segment.nnunet import build_network
from msnode.segment.predict import Predictor, tile_starts, tile_weight


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle, recipes.names())


def prepared(shape, recipe="flair2d-head-v1", seed=0):
    data = np.random.default_rng(seed).random((1, *shape), dtype=np.float32)
    grid = Grid(shape, np.eye(4))
    return Prepared(data=data, grid=grid, source=grid, recipe=recipe)


def nnunet_logits(folder, values):
    """Logits of nnU-Net's predictor, which reads the folder as one of its own."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - 4 s, for one test

    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=(0,))
    return predictor.predict_sliding_window_return_logits(torch.from_numpy(values.copy())).float().numpy()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("size", [(32, 32), (20, 27), (50, 71)], ids=["one tile", "padded", "many tiles"])
def test_agrees_with_nnunets_predictor(bundle, size, monkeypatch):
    """Warnings: nnU-Net's imports and its unset folders, none of them ours."""
    for part in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", os.devnull)
    given = prepared((5, *size))
    ours = Predictor(bundle, "cpu", threads=1).predict(given)
    theirs = torch.softmax(torch.from_numpy(nnunet_logits(bundle.path, given.data)), 0).numpy()
    assert ours.shape == (2, 5, *size)
    assert_allclose(ours.sum(axis=0), 1, atol=1e-5)
    assert_allclose(ours, theirs, atol=0.01)  # nnU-Net adds up in half precision
    assert theirs[1].std() > 0.05  # else agreement would say nothing


def test_both_engines_give_one_answer(bundle, monkeypatch):
    given = prepared((6, 40, 36))
    on_cpu = Predictor(bundle, "cpu", threads=1).predict(given)

    def torch_on_cpu(device, model, module, threads):
        return TorchRuntime(module(), "cpu")

    monkeypatch.setattr(predict, "open_runtime", torch_on_cpu)
    in_torch = Predictor(bundle, "cuda")
    assert in_torch.runtime_name == "torch-cpu-bf16"
    assert_allclose(in_torch.predict(given), on_cpu, atol=0.05)


def test_the_weights_survive_the_way_into_the_bundle(bundle):
    given = prepared((3, 32, 32))
    with torch.inference_mode():
        batch = torch.from_numpy(np.moveaxis(given.data, 0, 1).copy())
        network = build_network(bundle.path, "fold_0", 1, 2)
        logits = (network(batch) + network(batch.flip(3)).flip(3)) / 2
    expected = np.moveaxis(torch.softmax(logits, 1).numpy(), 1, 0)
    assert_allclose(Predictor(bundle, "cpu", threads=1).predict(given), expected, atol=1e-3)


def test_the_cpu_path_loads_neither_torch_nor_nnunet(tiny_bundle):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import numpy as np
        from msnode.domain import Grid, Volume
        from msnode.lesions import find_lesions
        from msnode.preprocess import recipes
        from msnode.segment.bundle import load_bundle
        from msnode.segment.predict import Predictor

        bundle = load_bundle(Path(sys.argv[1]), recipes.names())
        grid = Grid((4, 40, 40), np.eye(4))
        volume = Volume(np.random.default_rng(0).random(grid.shape, dtype=np.float32), grid)
        prepared = recipes.get(bundle.manifest.recipe).apply(volume)
        probability = recipes.restore(Predictor(bundle, "cpu").predict(prepared)[1], prepared)
        find_lesions(probability, threshold=0.5, min_volume_mm3=3)
        heavy = {"torch", "nnunetv2", "dynamic_network_architectures"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_another_recipes_slices_are_refused(bundle):
    with pytest.raises(RecipeMismatch, match="not 'other-v1'"):
        Predictor(bundle, "cpu", threads=1).predict(prepared((2, 32, 32), recipe="other-v1"))


def test_cuda_where_there_is_none_is_refused(bundle, monkeypatch):
    monkeypatch.setattr("msnode.runtime.cuda_device_count", lambda: 0)
    with pytest.raises(ConfigurationError, match="no CUDA device"):
        Predictor(bundle, "cuda")


def test_tiles_cover_every_pixel_at_most_half_a_patch_apart():
    for size in range(32, 130):
        starts = tile_starts(size, 32)
        assert starts[0] == 0
        assert starts[-1] == size - 32
        assert all(0 < b - a <= 17 for a, b in pairwise(starts))


def test_the_tile_weight_is_a_gaussian_without_zeros():
    weight = tile_weight((64, 32))
    assert weight.shape == (64, 32)
    assert weight.max() == 1
    assert weight.min() > 0
    assert weight[32, 16 + 4] == pytest.approx(np.exp(-0.5), rel=0.02)
