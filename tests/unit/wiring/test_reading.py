import gc
import weakref
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from msnode.domain.imaging import Grid, Prediction, Volume
from msnode.errors import BundleMissing
from msnode.preprocess import recipes
from msnode.reading import networks as opening
from msnode.reading.networks import open_networks
from msnode.reading.read_job import read_folder
from msnode.settings import ModelSettings, NodeSettings, Settings, with_preset
from msnode.wiring import reading
from msnode.wiring.reading import make_reader, make_readers
from support.dicom_files import flair_series


def bundle(path, recipe, **more):
    return SimpleNamespace(path=Path(path), manifest=SimpleNamespace(recipe=recipe, **more), identity=None)


@dataclass
class FakePredictor:
    """Certain of the last class but one in the middle of each slice; remembers what it saw."""

    bundle: object
    options: dict = field(default_factory=dict)
    runtime_name: str = "fake"
    seen: list = field(default_factory=list)

    def predict(self, prepared):
        self.seen.append(prepared)
        classes = np.zeros((3, *prepared.grid.shape), np.float32)
        classes[0] = 1
        middle = (slice(None), slice(None), slice(10, 30), slice(10, 30))
        classes[middle] = np.array([0, 1, 0], np.float32)[:, None, None, None]
        return Prediction(classes, np.zeros(prepared.grid.shape, np.float32))


@pytest.fixture
def opened(monkeypatch):
    """Every predictor that is opened, by the path of its bundle."""
    found = {}

    def open_predictor(which, **options):
        found[which.path] = FakePredictor(which, options)
        return found[which.path]

    monkeypatch.setattr(reading, "Predictor", open_predictor)
    monkeypatch.setattr(opening, "load_bundle", lambda path, _: bundle(path, "brain2d-v1"))
    return found


def read_with(folder, preset, tmp_path):
    flair_series(tmp_path / "in", slices=12, rows=40, columns=40)
    out = tmp_path / "out"
    out.mkdir()
    model = ModelSettings(
        bundle=str(folder), preset=preset, device="cpu", threads=1, cache_dir=tmp_path / "cache"
    )
    return read_folder(tmp_path / "in", out, partial(make_reader, Settings(model=model)))


@pytest.mark.parametrize(("preset", "differ"), [("fast", False), ("standard", True), ("best", True)])
def test_a_real_bundle_reads_a_folder(preset, differ, tiny_bundle, tmp_path):
    result = read_with(tiny_bundle, preset, tmp_path)
    assert result["status"] == "completed"
    assert result["lesions"]
    assert any(lesion["spread"] > 0 for lesion in result["lesions"]) == differ
    assert any((tmp_path / "cache").iterdir())
    assert result["brain_volume_ml"] is None


def test_a_real_bundle_finds_the_brain_first(stripping_bundle, tmp_path):
    result = read_with(stripping_bundle, "standard", tmp_path)
    assert result["status"] == "completed"
    assert result["brain_volume_ml"] > 0  # untrained, it finds something somewhere


def test_a_recipe_that_strips_nothing_needs_one_network(opened):
    network = open_networks(bundle("/b", "flair2d-head-v1"), reading.Predictor)
    assert network.extract is None
    assert network.runtime_name == "fake"
    assert list(opened) == [Path("/b")]


def test_a_recipe_that_strips_the_skull_uses_the_bundle_within(opened):
    network = open_networks(bundle("/b", "flair2d-brain-v1"), reading.Predictor)
    assert set(opened) == {Path("/b"), Path("/b/brain")}
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 5.0, 1.8, 1.8, 1
    head = Volume(np.random.default_rng(0).random((6, 40, 40), np.float32), Grid((6, 40, 40), affine))
    brain = network.extract(head)
    assert opened[Path("/b/brain")].seen[0].recipe == "brain2d-v1"
    assert opened[Path("/b")].seen == []
    assert brain.data[:, 10:30, 10:30].all()
    assert np.count_nonzero(brain.data) == 6 * 20 * 20
    prepared = recipes.get("flair2d-brain-v1").apply(head, network.extract)
    assert network.predict(prepared).probability.shape == (3, *prepared.grid.shape)
    assert opened[Path("/b")].seen == [prepared]


def test_a_bundle_without_its_brain_is_refused(tmp_path):
    with pytest.raises(BundleMissing, match="brain"):
        open_networks(bundle(tmp_path, "flair2d-brain-v1"), FakePredictor)


def test_the_reader_opens_networks_as_the_settings_say_and_once(opened, monkeypatch, tmp_path):
    manifest = {"scope": None, "threshold": 0.5, "min_volume_mm3": 3, "calibration": None}
    configured = bundle("/b", "flair2d-brain-v1", **manifest)
    monkeypatch.setattr(reading, "load_bundle", lambda *_: configured)
    model = ModelSettings(bundle="/b", preset="best", threads=3, device="cpu")
    settings = Settings(model=model, node=NodeSettings(data_dir=tmp_path / "data"))
    one = make_reader(settings)
    assert opened == {}
    assert one.networks() is one.networks()
    expected = {"device": "cpu", "threads": 3, "preset": "best", "cache_dir": tmp_path / "data" / "cache"}
    assert {path: p.options for path, p in opened.items()} == {
        Path("/b"): expected,
        Path("/b/brain"): expected,
    }
    make_reader(settings, cache=tmp_path / "mine").networks()
    assert opened[Path("/b")].options["cache_dir"] == tmp_path / "mine"


@pytest.fixture
def any_bundle(opened, monkeypatch):
    """Every folder is a bundle that strips no skull; gives the predictors that are opened."""
    manifest = {"scope": None, "threshold": 0.5, "min_volume_mm3": 3, "calibration": None}
    monkeypatch.setattr(reading, "load_bundle", lambda path, _: bundle(path, "flair2d-head-v1", **manifest))
    return opened


def test_readers_keep_the_two_used_last_each_under_its_own_settings(any_bundle, tmp_path):
    model = ModelSettings(bundle="/usual", preset="standard")
    settings = Settings(model=model, node=NodeSettings(data_dir=tmp_path))
    readers = make_readers(settings, tmp_path)
    usual = readers()
    assert readers("/usual") is usual
    assert readers(None, "standard") is usual
    fast, best = readers(None, "fast"), readers("/other", "best")
    assert (fast.bundle.path, best.bundle.path) == (Path("/usual"), Path("/other"))
    assert readers(None, "fast") is fast
    assert readers() is not usual
    best.networks()
    assert any_bundle[Path("/other")].options["preset"] == "best"
    assert fast._settings_digest == with_preset(settings, "fast").results_digest
    assert fast._settings_digest != usual._settings_digest


def test_the_networks_of_a_reader_that_is_dropped_are_freed(any_bundle, tmp_path):
    readers = make_readers(Settings(node=NodeSettings(data_dir=tmp_path)), tmp_path)
    networks = []
    for preset in ("fast", "standard", "best"):
        networks.append(weakref.ref(readers("/b", preset).networks()))
        any_bundle.clear()
    gc.collect()
    assert [network() is None for network in networks] == [True, False, False]
