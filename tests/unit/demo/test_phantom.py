"""The made-up patient: deterministic, of known truth, with the contrasts of clinical FLAIR."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from msnode.demo.phantom import make_patient

WHITE = 900


@pytest.fixture(scope="module")
def phantom():
    return make_patient(5)


def ring(mask):
    """Tissue around lesions, a few pixels away in plane."""
    plane = np.ones((1, 3, 3), dtype=bool)
    near = ndimage.binary_dilation(mask, plane, iterations=2)
    return ndimage.binary_dilation(mask, plane, iterations=4) & ~near


def test_a_seed_always_makes_the_same_patient(phantom):
    again = make_patient(5)
    assert np.array_equal(again.volume.data, phantom.volume.data)
    assert np.array_equal(again.labels, phantom.labels)
    assert again.lesions == phantom.lesions


def test_shape_is_that_of_a_clinical_axial_2d_flair(phantom):
    grid = phantom.volume.grid
    assert phantom.volume.data.shape == grid.shape == phantom.labels.shape == (20, 256, 256)
    assert grid.spacing == pytest.approx((7.0, 0.9, 0.9), abs=1e-4)
    assert np.array_equal(phantom.volume.data, np.rint(phantom.volume.data))
    assert phantom.volume.data.min() >= 0
    assert phantom.volume.data.max() < 4096


def test_slices_run_up_rows_back_and_columns_left(phantom):
    slice_step, row_step, column_step = phantom.volume.grid.affine[:3, :3].T
    assert slice_step[2] > 6.8
    assert row_step[1] > 0.88
    assert column_step[0] == pytest.approx(0.9)
    assert row_step[2] != 0, "a nodding head makes the slices oblique"


def test_lesions_are_many_and_of_all_regions_and_sizes(phantom):
    assert 12 <= len(phantom.lesions) <= 16
    assert {lesion.region for lesion in phantom.lesions} == {"periventricular", "juxtacortical", "deep"}
    diameters = [lesion.diameter_mm for lesion in phantom.lesions]
    assert 3.5 < min(diameters) < 5.5
    assert 12 < max(diameters) < 17


def test_truth_says_where_each_lesion_is(phantom):
    grid = phantom.volume.grid
    for lesion in phantom.lesions:
        indices = np.argwhere(phantom.labels == lesion.label)
        offset = grid.to_lps(indices).mean(axis=0) - lesion.centroid_lps_mm
        assert np.linalg.norm(offset) < 4, lesion  # within half of a thick slice
        volume = np.pi / 6 * lesion.diameter_mm**3
        assert lesion.volume_mm3 == pytest.approx(volume)


def test_planted_lesions_stay_apart(phantom):
    _, count = ndimage.label(phantom.labels > 0, structure=np.ones((3, 3, 3)))
    assert count == len(phantom.lesions)


def test_lesions_are_as_bright_as_real_ones(phantom):
    around = np.median(phantom.volume.data[ring(phantom.labels > 0)])
    contrast = np.array(
        [phantom.volume.data[phantom.labels == lesion.label].mean() / around for lesion in phantom.lesions]
    )
    assert contrast.min() > 1.15
    assert 1.25 < np.median(contrast) < 1.5
    assert contrast.max() < 1.75


def test_contrasts_of_tissues_are_those_of_flair_without_fat_saturation(phantom):
    data = phantom.volume.data / WHITE
    assert data[:, :15, :15].mean() < 0.05  # air
    assert 0.25 < (data > 0.25).mean() < 0.45  # share of the image that is head
    head = data[data > 0.25]
    assert 0.9 < np.median(head) < 1.15
    assert 1.7 < np.percentile(head, 97) < 2.6  # scalp fat


def test_seeds_differ_in_anatomy_and_lesions(phantom):
    other = make_patient(6)
    assert np.abs(other.volume.data - phantom.volume.data).mean() > 0.05 * WHITE
    assert {x.centroid_lps_mm for x in other.lesions}.isdisjoint(x.centroid_lps_mm for x in phantom.lesions)


def test_truth_is_read_only(phantom):
    with pytest.raises(ValueError, match="read-only"):
        phantom.labels[0, 0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        phantom.lesions[0].label = 2
