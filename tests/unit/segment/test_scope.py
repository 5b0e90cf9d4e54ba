import re

import numpy as np
import pytest
from pydicom import Dataset
from scipy.stats import wasserstein_distance

from msnode.domain.imaging import Grid, Prepared
from msnode.errors import OutsideModelScope
from msnode.segment.bundle import IntensityHistogram, Scope
from msnode.segment.scope import (
    ScopeVerdict,
    acquisition_plane,
    brain_histogram,
    brain_volume_ml,
    histogram_distance,
    judge_scope,
)

EDGES = tuple(np.linspace(0, 1, 65).tolist())
SCOPE = Scope(
    plane="axial", slice_distance_mm=(2.5, 9.0), field_strength_t=(1.5,), manufacturers=("TOSHIBA",)
)


def grid(distance=6.0, axis=2):
    affine = np.zeros((4, 4))
    others = [a for a in range(3) if a != axis]
    affine[axis, 0], affine[others[1], 1], affine[others[0], 2], affine[3, 3] = distance, 0.9, 0.9, 1
    return Grid((20, 256, 256), affine)


def header(**values):
    dataset = Dataset()
    dataset.Manufacturer, dataset.MagneticFieldStrength = "Toshiba Medical", 1.5
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def prepared(values=None, share=None):
    """A stack of 4 x 5 x 5 mm voxels; the brain fills `share` of each slice (None: not stripped)."""
    shape = (10, 40, 40)
    data = np.full(shape, 0.4, np.float32) if values is None else values.reshape(shape).astype(np.float32)
    brain = None
    if share is not None:
        brain = np.zeros(shape, np.uint8)
        for one, filled in zip(brain, share, strict=True):
            one[: round(40 * filled)] = 1
        brain[5, 0, 0] = 2  # ventricles are brain
    return Prepared(data[np.newaxis], Grid(shape, np.diag([4.0, 5.0, 5.0, 1.0])), grid(), "any", brain)


PLAIN = prepared()
WHOLE = (0, 0.2, 0.5, 0.8, 1, 1, 0.8, 0.5, 0.2, 0)
WHOLE_ML = sum(WHOLE) * 40 * 40 * 100 / 1000
CUT = (1, 1, 1, 0.8, 0.5, 0.2, 0, 0, 0, 0)


def test_what_was_seen_in_training_is_in_scope():
    assert judge_scope(SCOPE, grid(), header(), PLAIN) == ScopeVerdict("in scope", ())


@pytest.mark.parametrize(
    ("where", "what", "says"),
    [
        (grid(axis=0), {}, "sagittal"),
        (grid(axis=1), {}, "coronal"),
        (grid(distance=1.0), {}, r"slice distance 1\.0 mm"),
        (grid(), {"MagneticFieldStrength": 3}, "3 T"),
        (grid(), {"Manufacturer": "SIEMENS"}, "manufacturer"),
        (
            grid(),
            {"PatientAge": "009M"},
            "patient aged 9 months; the model was trained on ages from 18 years",
        ),
        (grid(), {"PatientAge": "017Y"}, "aged 17 years"),
        (grid(), {"PatientAge": "040W"}, "aged 9 months"),
        (grid(), {"PatientAge": "", "PatientBirthDate": "20150301", "StudyDate": "20240601"}, "aged 9 years"),
        (
            grid(),
            {"PatientAge": "000Y", "PatientBirthDate": "20231201", "StudyDate": "20240601"},
            "aged 6 months",
        ),
    ],
)
def test_an_acquisition_that_was_not_seen_is_a_warning(where, what, says):
    verdict = judge_scope(SCOPE, where, header(**what), PLAIN)
    assert verdict.kind == "warning"
    (sentence,) = verdict.sentences
    assert re.fullmatch(r"Outside the model's scope: .*\.", sentence)
    assert re.search(says, sentence)
    verdict.raise_refusal()


def test_a_missing_attribute_says_nothing():
    assert judge_scope(SCOPE, grid(), Dataset(), PLAIN).kind == "in scope"
    unknown = header(MagneticFieldStrength=None, Manufacturer="", PatientAge="", PatientBirthDate="")
    assert judge_scope(SCOPE, grid(), unknown, PLAIN).kind == "in scope"


@pytest.mark.parametrize(
    "what",
    [
        {"MagneticFieldStrength": 0},
        {"PatientAge": "042Y", "PatientBirthDate": "20240101", "StudyDate": "20240601"},
        {"PatientAge": "018Y"},
        {"PatientAge": "000Y"},
        {"PatientAge": "999Y"},
        {"PatientAge": "old"},
        {"PatientBirthDate": "20240601", "StudyDate": "20240601"},
        {"PatientBirthDate": "20250601", "StudyDate": "20240601"},
        {"PatientBirthDate": "19000101", "StudyDate": "20240601"},
        {"PatientBirthDate": "00000000", "StudyDate": "20240601"},
        {"PatientBirthDate": "20200101"},
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_an_adult_and_what_no_header_means_say_nothing(what):
    assert judge_scope(SCOPE, grid(), header(**what), PLAIN).kind == "in scope"


def test_the_plane_of_a_tilted_stack_is_the_nearest():
    tilted = grid()
    affine = tilted.affine.copy()
    affine[:3, 0] = [0, 2.0, 5.6]
    assert acquisition_plane(Grid(tilted.shape, affine)) == "axial"


def test_the_brain_volume_is_that_of_brain_and_ventricles():
    assert brain_volume_ml(prepared(share=WHOLE)) == pytest.approx(WHOLE_ML)
    assert brain_volume_ml(PLAIN) is None


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0.9, 1.1, "in scope"),
        (1.1, 1.5, "warning"),
        (0.6, 0.9, "warning"),
        (2.9, 4.0, "warning"),
        (3.1, 4.0, "refusal"),
        (0.3, 0.51, "warning"),
        (0.3, 0.49, "refusal"),
    ],
)
def test_a_brain_is_compared_with_those_of_training(low, high, kind):
    scope = SCOPE.model_copy(update={"brain_volume_ml": (low * WHOLE_ML, high * WHOLE_ML)})
    verdict = judge_scope(scope, grid(), header(), prepared(share=WHOLE))
    assert verdict.kind == kind
    assert all(f"brain volume {WHOLE_ML:.0f} ml" in s for s in verdict.sentences)


@pytest.mark.parametrize("share", [CUT, CUT[::-1]], ids=["below", "above"])
def test_a_brain_that_is_cut_off_is_never_too_small(share):
    part = brain_volume_ml(prepared(share=share))
    small = SCOPE.model_copy(update={"brain_volume_ml": (10 * part, 20 * part)})
    assert judge_scope(small, grid(), header(), prepared(share=share)).kind == "in scope"
    large = SCOPE.model_copy(update={"brain_volume_ml": (0.1 * part, 0.2 * part)})
    assert judge_scope(large, grid(), header(), prepared(share=share)).kind == "refusal"


def test_what_a_bundle_does_not_state_is_not_judged():
    scope = SCOPE.model_copy(update={"brain_volume_ml": (1.0, 2.0)})
    assert judge_scope(scope, grid(), header(), PLAIN).kind == "in scope"
    assert judge_scope(SCOPE, grid(), header(), prepared(share=WHOLE)).kind == "in scope"


def intensities(centre=0.4, spread=0.1, seed=0):
    return np.clip(np.random.default_rng(seed).normal(centre, spread, 16_000), 0.001, 1)


def test_the_histogram_is_that_of_the_brain_alone():
    values = intensities().reshape(10, 40, 40)
    share = (0.5,) * 10
    values[:, 20:] = 0.99
    density = np.array(brain_histogram(prepared(values, share), EDGES))
    expected, _ = np.histogram(values[:, :20], EDGES, density=True)
    np.testing.assert_allclose(density, expected)
    assert density @ np.diff(EDGES) == pytest.approx(1)


def test_without_a_brain_mask_every_voxel_above_zero_counts():
    values = intensities().reshape(10, 40, 40)
    values[:, 20:] = 0
    expected, _ = np.histogram(values[:, :20], EDGES, density=True)
    np.testing.assert_allclose(brain_histogram(prepared(values), EDGES), expected)


def test_values_beyond_the_edges_count_in_the_outermost_bins():
    values = np.full(16_000, -3.0)
    values[:4_000] = 3.0
    assert brain_histogram(prepared(values, (1.0,) * 10), (0, 0.5, 1)) == pytest.approx((1.5, 0.5))


def test_no_voxel_gives_a_histogram_of_zeros():
    assert brain_histogram(prepared(np.zeros(16_000)), (0, 0.5, 1)) == (0, 0)


def test_the_distance_is_the_earth_movers():
    a, b = intensities(), intensities(0.5, 0.05, seed=1)
    densities = [np.histogram(v, EDGES, density=True)[0] for v in (a, b)]
    assert histogram_distance(EDGES, *densities) == pytest.approx(wasserstein_distance(a, b), abs=0.002)
    assert histogram_distance(EDGES, densities[0], densities[0]) == 0


def test_mass_moves_from_the_lower_edge_of_its_bin():
    assert histogram_distance((0, 0.1, 0.4, 1.0), (10, 0, 0), (0, 0, 1 / 0.6)) == pytest.approx(0.4)
    assert histogram_distance((0, 0.2, 0.6, 1.0), (5, 0, 0), (0, 2.5, 0)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("shift", "kind", "says"),
    [
        (0.0, "in scope", ""),
        (0.05, "warning", r"intensities differ from those of training \(histogram distance 0\.05"),
        (0.09, "refusal", r"not those of a FLAIR \(histogram distance 0\.09"),
    ],
)
def test_intensities_are_compared_with_those_of_training(shift, kind, says):
    density = tuple(np.histogram(intensities(), EDGES, density=True)[0].tolist())
    seen = IntensityHistogram(edges=EDGES, density=density, largest_distance=0.03, refuse_distance=0.07)
    scope = SCOPE.model_copy(update={"intensity_histogram": seen})
    verdict = judge_scope(scope, grid(), header(), prepared(intensities(0.4 + shift), (1.0,) * 10))
    assert verdict.kind == kind
    assert all(re.search(says, s) for s in verdict.sentences)


def test_a_refusal_says_its_reasons_alone_and_raises():
    scope = SCOPE.model_copy(update={"brain_volume_ml": (0.1 * WHOLE_ML, 0.2 * WHOLE_ML)})
    verdict = judge_scope(scope, grid(axis=0), header(MagneticFieldStrength=3), prepared(share=WHOLE))
    assert verdict.kind == "refusal"
    assert len(verdict.sentences) == 1
    with pytest.raises(OutsideModelScope, match="brain volume"):
        verdict.raise_refusal()


def test_a_series_whose_fluid_is_bright_is_refused_whatever_the_bundle_states():
    values = np.full((10, 40, 40), 0.38)
    brain = np.ones((10, 40, 40), np.uint8)
    brain[:, 18:22, 18:22] = 2
    values[brain == 2] = 0.9
    grid_of = Grid((10, 40, 40), np.diag([4.0, 5.0, 5.0, 1.0]))
    seen = Prepared(values[np.newaxis].astype(np.float32), grid_of, grid(), "any", brain)
    verdict = judge_scope(SCOPE, grid(), header(), seen)
    assert verdict.kind == "refusal"
    assert re.fullmatch(r"Outside the model's scope: the ventricles .* no FLAIR .*\.", verdict.sentences[0])
