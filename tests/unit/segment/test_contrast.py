"""Drawn brains of known contrast, and real scans of three contrasts read as if each were a FLAIR."""

from functools import partial

import numpy as np
import pytest

from msnode.domain.imaging import Grid, Prepared
from msnode.preprocess import recipes
from msnode.reading.networks import open_networks
from msnode.segment.bundle import builtin_folder, find_bundle, load_bundle
from msnode.segment.contrast import ContrastRatios, contrast_ratios, not_a_flair
from msnode.segment.predict import Predictor
from msnode.settings import ModelSettings
from msnode.train.cases import read_nifti
from support.environment import shared_data

SIZE, SPACING = 160, 0.9
GRID = Grid((6, SIZE, SIZE), np.array([[0, 0, 0.9, 0], [0, 0.9, 0, 0], [6, 0, 0, 0], [0, 0, 0, 1.0]]))
RADIUS = np.hypot(*np.meshgrid(*(np.arange(SIZE) - (SIZE - 1) / 2,) * 2, indexing="ij")) * SPACING


def drawn(*, fluid=0.15, cortex=0.42, white=0.38, ventricle_mm=9.0, noise=0.0, shading=0.0):
    """A disc of white matter with cortex around it and a ventricle in it, values in [0, 1]."""
    labels = np.where(ventricle_mm > RADIUS, 2, np.where(RADIUS < 65, 1, 0)).astype(np.uint8)
    values = np.where(labels == 2, fluid, np.where(RADIUS > 60, cortex, white)) * (labels > 0)
    stack = np.stack([values * np.linspace(1 - shading, 1 + shading, SIZE)] * 6)
    stack = stack + np.random.default_rng(0).normal(0, noise, stack.shape) * (labels > 0)
    return Prepared(stack[np.newaxis].astype(np.float32), GRID, GRID, "any", np.stack([labels] * 6))


def test_the_ratios_are_those_that_were_drawn():
    found = contrast_ratios(drawn(fluid=0.19, cortex=0.418, white=0.38))
    assert found.fluid_to_brain == pytest.approx(0.5, abs=0.01)
    assert found.cortex_to_white == pytest.approx(1.1, abs=0.05)


@pytest.mark.parametrize(
    "changes", [{}, {"noise": 0.04}, {"shading": 0.3}, {"cortex": 0.38}, {"fluid": 0.22}]
)
def test_a_flair_may_be_one(changes):
    assert not_a_flair(drawn(**changes)) is None


@pytest.mark.parametrize("noise", [0.0, 0.04])
def test_bright_fluid_is_no_flair(noise):
    assert "as in a T2 image; this is no FLAIR" in not_a_flair(drawn(fluid=0.9, noise=noise))


@pytest.mark.parametrize("changes", [{}, {"noise": 0.04}, {"shading": 0.3}, {"fluid": 0.1}])
def test_dark_cortex_is_no_flair(changes):
    assert "as in a T1 image; this is no FLAIR" in not_a_flair(
        drawn(**{"cortex": 0.3, "white": 0.4} | changes)
    )


def test_without_ventricles_nothing_can_be_told():
    for unseen in (drawn(fluid=0.9, ventricle_mm=0), drawn(fluid=0.9, ventricle_mm=3)):
        assert contrast_ratios(unseen) == ContrastRatios(None, None)
        assert not_a_flair(unseen) is None


def test_without_a_brain_or_a_zero_nothing_can_be_told():
    seen = drawn(fluid=0.9)
    assert not_a_flair(Prepared(seen.data, GRID, GRID, "any")) is None
    assert not_a_flair(Prepared(seen.data - 1, GRID, GRID, "any", seen.brain)) is None


def test_where_fluid_fills_the_brain_the_cortex_is_not_judged():
    assert contrast_ratios(drawn(ventricle_mm=60)).cortex_to_white is None


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    bundle = load_bundle(find_bundle(ModelSettings().bundle, (builtin_folder(),)), recipes.names())
    cache = tmp_path_factory.mktemp("networks")
    network = open_networks(
        bundle, partial(Predictor, device="cpu", threads=2, preset="fast", cache_dir=cache)
    )
    recipe = recipes.get(bundle.manifest.recipe)
    return lambda path: recipe.apply(read_nifti(path), network.extract)


@pytest.mark.data
@pytest.mark.parametrize(
    ("scan", "says"),
    [
        ("ms3seg/case10/FLAIR", None),  # 28 ml of lesions
        ("ms3seg/case10/T2", "as in a T2 image"),
        ("ms3seg/case01/T1", "as in a T1 image"),
    ],
)
def test_real_scans(prepare, scan, says):
    reason = not_a_flair(prepare(shared_data(f"{scan}.nii.gz")))
    assert reason is None if says is None else says in reason
