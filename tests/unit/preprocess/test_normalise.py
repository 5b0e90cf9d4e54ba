"""Intensities: by the brain's own median, and the options of document E."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from msnode.domain.imaging import Grid, Volume
from msnode.errors import ConfigurationError, NotAVolume
from msnode.preprocess import normalise

SHAPE, SPACING = (10, 48, 44), (6.0, 4.0, 4.0)
GRID = Grid(SHAPE, np.diag([*SPACING, 1.0])[[2, 1, 0, 3]])
REFERENCE = tuple(float(v) for v in (80, 200, 260, 300, 330, 350, 370, 390, 420, 470, 800))


def image(values):
    return Volume(np.asarray(values, dtype=np.float32), GRID)


def brain_mask():
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1:-1, 8:-8, 8:-8] = 1
    mask[4:6, 20:26, 18:24] = 2
    return Volume(mask, GRID)


def head(seed=0):
    """Brain about 300 in noise of 40, scalp 900 around it."""
    values = np.random.default_rng(seed).normal(300, 40, SHAPE)
    return image(np.where(brain_mask().data > 0, values, 900))


EVERY_STEP = {
    "brain_unit_range": normalise.brain_unit_range,
    "z_score": normalise.z_score,
    "n4": normalise.n4,
    "match_histogram": partial(normalise.match_histogram, reference=REFERENCE),
}


def test_the_brains_median_comes_to_its_place_and_ratios_to_it_stay():
    found = normalise.brain_unit_range(head(), brain_mask())
    inside = brain_mask().data > 0
    assert found.data.dtype == np.float32
    assert np.median(found.data[inside]) == pytest.approx(0.4, abs=1e-4)
    ratio = head().data[inside] / np.median(head().data[inside])
    assert_allclose(found.data[inside], np.clip(0.4 * ratio, 0, 1), rtol=1e-4)
    assert not found.data[~inside].any()


def test_the_unit_range_is_clipped_and_deaf_to_what_is_outside():
    source = head().data.copy()
    source[5, 10, 10], source[5, 10, 11] = 5000, -5000
    found = normalise.brain_unit_range(image(source), brain_mask()).data
    assert found[5, 10, 10] == 1
    assert found[5, 10, 11] == 0
    other = np.where(brain_mask().data > 0, source, -1e4)
    assert_array_equal(normalise.brain_unit_range(image(other), brain_mask()).data, found)


@pytest.mark.parametrize("scale", [40.0, 1e-4])
@pytest.mark.parametrize("step", [normalise.brain_unit_range, normalise.z_score])
def test_scale_does_not_matter(step, scale):
    found = step(image(head().data * np.float32(scale)), brain_mask()).data
    assert_allclose(found, step(head(), brain_mask()).data, atol=2e-3)


def test_the_z_score_knows_no_offset():
    found = normalise.z_score(image(head().data - 3000), brain_mask()).data
    assert_allclose(found, normalise.z_score(head(), brain_mask()).data, atol=2e-3)


def test_negative_intensities_still_give_an_image():
    found = normalise.brain_unit_range(image(head().data - 3000), brain_mask()).data
    inside = brain_mask().data > 0
    assert np.median(found[inside]) == pytest.approx(0.4, abs=1e-3)
    assert 0.05 < found[inside].std() < 0.5


def test_without_a_brain_every_voxel_counts():
    everything = Volume(np.ones(SHAPE, dtype=np.uint8), GRID)
    for step in EVERY_STEP.values():
        if step is not normalise.n4:  # it looks for the head itself
            assert_array_equal(step(head(), None).data, step(head(), everything).data)


@pytest.mark.parametrize("name", ["brain_unit_range", "z_score", "match_histogram"])
def test_a_constant_image_and_an_empty_mask_become_zeros(name):
    constant = image(np.full(SHAPE, 812.0))
    empty = Volume(np.zeros(SHAPE, dtype=np.uint8), GRID)
    assert not EVERY_STEP[name](constant, brain_mask()).data.any()
    assert not EVERY_STEP[name](head(), empty).data.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", list(EVERY_STEP))
def test_values_that_are_no_numbers_are_refused(name, value):
    source = head().data.copy()
    source[0, 0, 0] = value  # also outside the brain
    with pytest.raises(NotAVolume, match="not finite"):
        EVERY_STEP[name](image(source), brain_mask())


def test_z_score_is_that_of_the_brain():
    found = normalise.z_score(head(), brain_mask()).data
    inside = brain_mask().data > 0
    assert found[inside].mean() == pytest.approx(0, abs=1e-4)
    assert found[inside].std() == pytest.approx(1, abs=1e-4)
    assert not found[~inside].any()


def biased(values):
    rows = np.linspace(-1, 1, SHAPE[1])[None, :, None]
    return values * np.exp(0.5 * rows)


@pytest.mark.parametrize("offset", [0.0, -2000.0])
def test_n4_takes_most_of_a_bias_field_away(offset):
    source = biased(np.where(brain_mask().data > 0, 300 + head().data % 7, 20))
    source = np.where(np.arange(SHAPE[2]) < 3, 0, source)  # air, so that the shift finds it
    found = normalise.n4(image(source + offset), brain_mask()).data - offset
    inside = brain_mask().data > 0

    def slope(data):
        anterior, posterior = data[:, 10:14][inside[:, 10:14]], data[:, -14:-10][inside[:, -14:-10]]
        return abs(np.log(posterior.mean() / anterior.mean()))

    assert slope(source) > 0.5
    assert slope(found) < 0.1


def test_n4_works_on_small_numbers_as_on_large_ones():
    source = biased(np.where(brain_mask().data > 0, 300 + head().data % 7, 20))
    large = normalise.n4(image(source), brain_mask()).data
    small = normalise.n4(image(source / 4096), brain_mask()).data
    assert_allclose(small * 4096, large, rtol=0.02)


def test_n4_leaves_an_image_alone_that_tells_it_nothing():
    constant = image(np.full(SHAPE, 812.0))
    empty = Volume(np.zeros(SHAPE, dtype=np.uint8), GRID)
    assert_array_equal(normalise.n4(constant, brain_mask()).data, constant.data)
    assert_array_equal(normalise.n4(head(), empty).data, head().data)


def test_a_matched_histogram_has_the_references_landmarks():
    source = image(head().data ** 1.7)
    found = normalise.match_histogram(source, brain_mask(), reference=REFERENCE)
    assert_allclose(normalise.histogram_landmarks(found, brain_mask()), REFERENCE, rtol=0.01)
    inside = brain_mask().data > 0
    assert not found.data[~inside].any()
    order = np.argsort(source.data[inside], kind="stable")
    assert (np.diff(found.data[inside][order]) >= 0).all()


def test_matching_goes_on_beyond_the_last_landmark():
    source = head().data.copy()
    source[5, 10, 10] = 10 * source.max()
    found = normalise.match_histogram(image(source), brain_mask(), reference=REFERENCE).data
    assert found[5, 10, 10] > 2 * REFERENCE[-1]


def test_matching_an_image_to_its_own_landmarks_changes_nothing():
    own = normalise.histogram_landmarks(head(), brain_mask())
    found = normalise.match_histogram(head(), brain_mask(), reference=own).data
    inside = brain_mask().data > 0
    assert_allclose(found[inside], head().data[inside], rtol=1e-4)


@pytest.mark.parametrize("reference", [REFERENCE[:-1], REFERENCE[::-1], (*REFERENCE[:-1], np.nan)])
def test_a_reference_that_is_none_is_refused(reference):
    with pytest.raises(ConfigurationError, match="11 rising numbers"):
        normalise.match_histogram(head(), brain_mask(), reference=reference)


def test_landmarks_of_no_brain_are_refused():
    with pytest.raises(NotAVolume, match="mask is empty"):
        normalise.histogram_landmarks(head(), Volume(np.zeros(SHAPE, np.uint8), GRID))


def test_the_median_takes_a_single_voxel_out_of_its_slice_alone():
    source = np.full(SHAPE, 100.0)
    source[4, 20, 20] = 900
    source[6] = 300
    found = normalise.median_3x3(image(source), None).data
    assert found[4, 20, 20] == 100
    assert (found[6] == 300).all()


def test_the_blur_reaches_as_many_mm_along_every_axis():
    source = np.zeros(SHAPE)
    source[5, 24, 22] = 1e4
    found = normalise.gaussian_blur(image(source), None, sigma_mm=8.0).data
    assert found.sum() == pytest.approx(1e4, rel=1e-3)
    where = np.argwhere(found >= 0) - (5, 24, 22)
    spread = np.sqrt((found.ravel()[:, None] * (where * SPACING) ** 2).sum(0) / found.sum())
    assert_allclose(spread, 8.0, rtol=0.05)
