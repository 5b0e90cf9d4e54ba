"""The predictor against nnU-Net's own, between its two engines, and what it imports."""

import os
import subprocess
import sys
import textwrap
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from msnode.domain.imaging import Grid, Prepared
from msnode.errors import ConfigurationError, RecipeMismatch
from msnode.preprocess import recipes
from msnode.segment import predict
from msnode.segment.bundle import load_bundle
from msnode.segment.nnunet import build_network
from msnode.segment.predict import Predictor, tile_starts, tile_weight
from msnode.segment.runtime import OpenVinoRuntime, TorchRuntime
from msnode.train.export import export_nnunet


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle, recipes.names())


def prepared(shape, recipe="flair2d-head-v1", seed=0, brain=None):
    data = np.random.default_rng(seed).random((1, *shape), dtype=np.float32)
    grid = Grid(shape, np.eye(4))
    return Prepared(data=data, grid=grid, source=grid, recipe=recipe, brain=brain)


def member_logits(bundle, fold, data, axes):
    """(class, slice, row, column) by torch, without tiles: `data` is of the patch's size."""
    network = build_network(bundle.path, fold, 1, 2)
    slices = np.flip(np.moveaxis(data, 0, 1), axes).copy()
    with torch.inference_mode():
        logits = network(torch.from_numpy(slices)).numpy()
    return np.moveaxis(np.flip(logits, axes), 1, 0)


def in_float32(monkeypatch):
    """Half precision hides small errors; the tests of the arithmetic do without."""
    runtime = partial(OpenVinoRuntime, precision="f32")
    monkeypatch.setattr("msnode.segment.runtime.OpenVinoRuntime", runtime)


def nnunet_logits(bundle, folder, values, *, mirrored):
    """Mean logits of nnU-Net's predictor over all folds, from the exported model folder."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - 4 s, for one test

    predictor = nnUNetPredictor(
        device=torch.device("cpu"),
        perform_everything_on_device=False,
        allow_tqdm=False,
        use_mirroring=mirrored,
    )
    predictor.initialize_from_trained_model_folder(str(export_nnunet(bundle.path, folder)), use_folds=None)
    return predictor.predict_logits_from_preprocessed_data(torch.from_numpy(values.copy())).float()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("size", "preset"),
    [((32, 32), "best"), ((20, 27), "standard"), ((50, 71), "best")],
    ids=["one tile", "padded", "many tiles"],
)
def test_agrees_with_nnunets_predictor(bundle, size, preset, monkeypatch, tmp_path):
    """Warnings: nnU-Net's imports and its unset folders, none of them ours."""
    for part in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", os.devnull)
    in_float32(monkeypatch)
    given = prepared((5, *size))
    ours = Predictor(bundle, "cpu", threads=1, preset=preset).predict(given).probability
    logits = nnunet_logits(bundle, tmp_path / "model", given.data, mirrored=preset == "best")
    theirs = torch.softmax(logits, 0).numpy()
    assert ours.shape == (2, 5, *size)
    assert_allclose(ours.sum(axis=0), 1, atol=1e-5)
    assert_allclose(ours, theirs, atol=0.01)  # nnU-Net adds up in half precision
    assert theirs[1].std() > 0.05  # else agreement would say nothing


def test_both_engines_give_one_answer(bundle, monkeypatch):
    given = prepared((6, 40, 36))
    in_float32(monkeypatch)
    on_cpu = Predictor(bundle, "cpu", threads=1).predict(given)

    def torch_on_cpu(device, model, modules, threads, cache_dir):
        return TorchRuntime(modules(), "cpu")

    monkeypatch.setattr(predict, "open_runtime", torch_on_cpu)
    in_torch = Predictor(bundle, "cuda")
    assert in_torch.runtime_name == "torch-cpu-bf16"
    found = in_torch.predict(given)
    assert_allclose(found.probability, on_cpu.probability, atol=0.05)
    assert_allclose(found.spread, on_cpu.spread, atol=0.05)


@pytest.mark.parametrize(
    ("preset", "folds", "members"),
    [
        ("fast", None, [("fold_0", ())]),
        ("fast", ("fold_1",), [("fold_1", ())]),
        ("standard", None, [("fold_0", ()), ("fold_1", ())]),
        ("standard", ("fold_1",), [("fold_1", ())]),
        ("best", None, [("fold_0", ()), ("fold_1", ()), ("fold_0", (3,)), ("fold_1", (3,))]),
    ],
)
def test_mean_and_spread_are_those_of_the_members(bundle, monkeypatch, preset, folds, members):
    in_float32(monkeypatch)
    given = prepared((3, 32, 32))
    found = Predictor(bundle, "cpu", threads=1, preset=preset, folds=folds).predict(given)
    logits = np.array([member_logits(bundle, fold, given.data, axes) for fold, axes in members])
    each = torch.softmax(torch.from_numpy(logits), 1).numpy()[:, 1]
    mean = torch.softmax(torch.from_numpy(logits.mean(axis=0)), 0).numpy()
    assert_allclose(found.probability, mean, atol=2e-5)
    assert_allclose(found.spread, each.std(axis=0), atol=2e-5)
    assert (found.spread.max() > 0.05) == (len(members) > 1)


def test_slabs_do_not_change_the_answer(bundle, monkeypatch):
    in_float32(monkeypatch)
    given = prepared((7, 50, 40))
    whole = Predictor(bundle, "cpu", threads=2, preset="best").predict(given)
    monkeypatch.setattr(predict, "_SLAB_BYTES", 1)
    by_slice = Predictor(bundle, "cpu", threads=2, preset="best").predict(given)
    assert_allclose(by_slice.probability, whole.probability, atol=1e-6)
    assert_allclose(by_slice.spread, whole.spread, atol=1e-6)


def test_slices_without_brain_are_background_and_not_computed(bundle, monkeypatch):
    brain = np.zeros((6, 32, 32), dtype=np.uint8)
    brain[2, 5, 5], brain[4, 7, 7] = 1, 2
    given = prepared((6, 32, 32), brain=brain)
    predictor = Predictor(bundle, "cpu", threads=1)
    seen = []
    run = predictor._runtime.run
    monkeypatch.setattr(predictor._runtime, "run", lambda slices: (seen.append(len(slices)), run(slices))[1])
    found = predictor.predict(given)
    assert sum(seen) == 2
    empty = [0, 1, 3, 5]
    assert (found.probability[0, empty] == 1).all()
    assert (found.probability[1, empty] == 0).all()
    assert (found.spread[empty] == 0).all()
    everything = predictor.predict(prepared((6, 32, 32)))
    assert_allclose(found.probability[:, [2, 4]], everything.probability[:, [2, 4]], atol=1e-6)


def test_the_volume_is_cut_to_what_is_not_zero_as_nnunet_cuts_it(bundle, monkeypatch):
    in_float32(monkeypatch)
    inner = prepared((3, 21, 25))
    data = np.zeros((1, 6, 40, 36), dtype=np.float32)
    place = (slice(1, 4), slice(3, 24), slice(10, 35))
    data[:, *place] = inner.data
    grid = Grid((6, 40, 36), np.eye(4))
    predictor = Predictor(bundle, "cpu", threads=1)
    found = predictor.predict(Prepared(data, grid, grid, inner.recipe))
    expected = predictor.predict(inner)
    assert_array_equal(found.probability[:, *place], expected.probability)
    assert_array_equal(found.spread[place], expected.spread)
    outside = np.ones(grid.shape, dtype=bool)
    outside[place] = False
    assert (found.probability[0][outside] == 1).all()
    assert (found.spread[outside] == 0).all()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 50, 40)])
def test_a_volume_of_zeros_is_background(bundle, shape):
    grid = Grid(shape, np.eye(4))
    given = Prepared(np.zeros((1, *shape), dtype=np.float32), grid, grid, "flair2d-head-v1")
    found = Predictor(bundle, "cpu", threads=1).predict(given)
    assert (found.probability[0] == 1).all()
    assert (found.spread == 0).all()


def test_a_volume_without_any_brain_is_background(bundle):
    given = prepared((3, 32, 32), brain=np.zeros((3, 32, 32), dtype=np.uint8))
    found = Predictor(bundle, "cpu", threads=1).predict(given)
    assert (found.probability[1] == 0).all()


def test_three_classes(tiny_brain, monkeypatch):
    in_float32(monkeypatch)
    bundle = load_bundle(tiny_brain, recipes.names())
    given = prepared((2, 32, 32), recipe="brain2d-v1")
    found = Predictor(bundle, "cpu", threads=1, preset="best").predict(given)
    assert found.probability.shape == (3, 2, 32, 32)
    assert_allclose(found.probability.sum(axis=0), 1, atol=1e-5)
    assert found.spread.max() > 0.01


@pytest.mark.parametrize(("folds", "text"), [(("fold_7",), "asked for: fold_7"), ((), "asked for: none")])
def test_folds_that_the_bundle_lacks_are_refused(bundle, folds, text):
    with pytest.raises(ConfigurationError, match=f"has the folds fold_0, fold_1; {text}"):
        Predictor(bundle, "cpu", folds=folds)


def test_an_unknown_preset_is_refused(bundle):
    with pytest.raises(ConfigurationError, match="fast, standard, best"):
        Predictor(bundle, "cpu", preset="fastest")


def test_compiled_networks_are_kept_where_asked(bundle, tmp_path):
    given = prepared((2, 32, 32))
    first = Predictor(bundle, "cpu", threads=1, cache_dir=tmp_path).predict(given)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.blob")}
    assert kept
    second = Predictor(bundle, "cpu", threads=1, cache_dir=tmp_path).predict(given)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.blob")} == kept
    assert_array_equal(first.probability, second.probability)


def test_the_cpu_path_loads_neither_torch_nor_nnunet(tiny_bundle):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import numpy as np
        from msnode.domain.imaging import Grid, Volume
        from msnode.measure.lesions import find_lesions
        from msnode.preprocess import recipes
        from msnode.segment.bundle import load_bundle
        from msnode.segment.predict import Predictor

        bundle = load_bundle(Path(sys.argv[1]), recipes.names())
        grid = Grid((4, 40, 40), np.eye(4))
        volume = Volume(np.random.default_rng(0).random(grid.shape, dtype=np.float32), grid)
        prepared = recipes.get(bundle.manifest.recipe).apply(volume)
        probability = recipes.restore(Predictor(bundle, "cpu").predict(prepared).probability[1], prepared)
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
    monkeypatch.setattr("msnode.segment.runtime.cuda_device_count", lambda: 0)
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
