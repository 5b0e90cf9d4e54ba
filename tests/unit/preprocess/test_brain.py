"""The learned brain's clean-up, and how images that are stripped already are told from heads."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage

from msnode.domain.imaging import Grid, Prediction, Prepared, Volume
from msnode.preprocess import steps
from msnode.preprocess.brain import LearnedBrain, clean, stripped_brain
from msnode.train.cases import read_nifti
from support.environment import shared_data

SPACING = (5.0, 2.0, 2.0)


def grid(shape, spacing=SPACING):
    affine = np.diag([*spacing, 1.0])[[2, 1, 0, 3]]
    return Grid(shape, affine)


def learned(probability, volume):
    """An extractor whose network answers `probability` (class, slice, row, column) to anything."""

    def prepare(given):
        assert given is volume
        return Prepared(given.data[np.newaxis].astype(np.float32), given.grid, given.grid, "brain2d-v1")

    def predict(prepared):
        values = np.asarray(probability, dtype=np.float32)
        return Prediction(values, np.zeros(values.shape[1:], np.float32))

    return LearnedBrain(prepare, predict, lambda values, prepared: Volume(values, prepared.source))(volume)


def noisy(shape):
    return Volume(np.random.default_rng(3).normal(100, 20, shape).astype(np.float32), grid(shape))


def classes(brain, ventricles):
    return np.stack([1 - brain - ventricles, brain, ventricles])


def test_brain_and_ventricles_count_together_and_the_larger_one_names_the_voxel():
    brain, ventricles = np.zeros((3, 9, 9)), np.zeros((3, 9, 9))
    brain[:, 2:7, 2:7] = 0.9
    brain[1, 7, 4], ventricles[1, 7, 4] = 0.2, 0.35  # together more than one half, neither alone
    brain[1, 7, 5], ventricles[1, 7, 5] = 0.35, 0.2
    brain[1, 7, 6], ventricles[1, 7, 6] = 0.2, 0.25
    labels = learned(classes(brain, ventricles), noisy(brain.shape)).data
    assert labels.dtype == np.uint8
    assert labels[1, 7, 4:7].tolist() == [2, 1, 0]
    assert (labels > 0).sum() == 77


def test_only_the_largest_component_stays_and_its_slices_have_no_holes():
    brain = np.zeros((4, 12, 12))
    brain[1:3, 2:8, 2:8] = 1
    brain[1, 4, 4] = 0  # a hole in one slice, closed in no other way
    brain[3, 8, 8] = 1  # touches by a corner: 26-connected
    brain[0, 11, 11] = 1  # an eye
    labels = learned(classes(brain, np.zeros_like(brain)), noisy(brain.shape)).data
    assert labels[1, 4, 4] == 1
    assert labels[3, 8, 8] == 1
    assert labels[0, 11, 11] == 0
    assert labels.sum() == 73


def test_ventricles_outside_the_brain_are_none():
    brain, ventricles = np.zeros((3, 9, 9)), np.zeros((3, 9, 9))
    brain[:, 1:5, 1:5] = 1
    ventricles[1, 8, 8] = 1
    labels = learned(classes(brain, ventricles), noisy(brain.shape)).data
    assert set(np.unique(labels)) == {0, 1}


def test_no_brain_at_all_is_zeros():
    nothing = np.zeros((3, 9, 9))
    assert not learned(classes(nothing, nothing), noisy(nothing.shape)).data.any()
    assert not clean(np.zeros((2, 3, 3), dtype=bool)).any()


def phantom(size=1.0, spacing=SPACING):
    """A head and its brain: scalp 6 mm, dark bone 8 mm, brain with dark ventricles; air 0.

    Returns:
        head volume, brain mask, ventricle mask.
    """
    shape = tuple(round(length / step) for length, step in zip((180, 220, 190), spacing, strict=True))
    where = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*where, indexing="ij")

    def ellipsoid(less):
        axes = [size * length - less for length in (82, 98, 82)]
        return (z / axes[0]) ** 2 + (y / axes[1]) ** 2 + (x / axes[2]) ** 2 < 1

    head, skull, brain, ventricles = (ellipsoid(less) for less in (0, 6, 14, 62))
    noise = np.random.default_rng(5).normal(0, 15, shape)
    values = np.select([ventricles, brain, skull, head], [60, 400, 40, 500], 0)
    values = np.where(head, np.maximum(values + noise, 1), 0)
    return Volume(values.astype(np.float32), grid(shape, spacing)), brain, ventricles


def with_data(volume, data):
    return Volume(np.asarray(data, dtype=np.float32), volume.grid)


def test_a_stripped_brain_is_recognised_whatever_its_background_and_scale():
    head, brain, _ = phantom()
    z_scored = np.where(brain, (head.data - head.data[brain].mean()) / head.data[brain].std(), 0)
    for data in (
        np.where(brain, head.data, 0),
        np.where(brain, head.data - 500, -1000),
        z_scored,
        np.where(brain, head.data / 4096, 0),
    ):
        found = stripped_brain(with_data(head, data))
        assert found is not None
        assert (found != brain).sum() <= 1  # a voxel of the surface may have the background's very value


def test_a_resampled_stripped_brain_with_a_negative_background_is_recognised():
    head, brain, _ = phantom(spacing=(1.5, 1.8, 1.8))
    volume = with_data(head, np.where(brain, head.data - 500, -1000.3))
    prepared = steps.in_plane(steps.through_plane(volume, thickness_mm=3.0), spacing_mm=230 / 256)
    found = stripped_brain(prepared)
    assert found is not None
    ml = found.sum() * prepared.grid.voxel_volume_mm3 / 1000
    assert ml == pytest.approx(brain.sum() * head.grid.voxel_volume_mm3 / 1000, rel=0.06)


def test_a_tightly_cropped_stripped_brain_is_recognised():
    head, brain, _ = phantom()
    stripped = with_data(head, np.where(brain, head.data, 0))
    places = np.argwhere(brain)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
    assert_array_equal(stripped_brain(steps.crop(stripped, box)), brain[box])


@pytest.mark.parametrize("size", [1.0, 0.85])
@pytest.mark.parametrize("part", [slice(None), slice(18, None), slice(10, 26)])
def test_a_head_with_zero_air_is_no_stripped_brain(size, part):
    head, brain, _ = phantom(size)
    part_of_head = steps.crop(head, (slice(*part.indices(36)[:2]), slice(0, 110), slice(0, 95)))
    assert stripped_brain(part_of_head) is None
    ml = (part_of_head.data > 0).sum() * head.grid.voxel_volume_mm3 / 1000
    if size < 1 or part != slice(None):
        assert ml < 2300  # so that its size does not give it away
    assert brain.any()


def test_neither_noise_nor_a_constant_image_is_a_stripped_brain():
    head, brain, _ = phantom()
    noise = np.random.default_rng(0).normal(0, 5, brain.shape)
    assert stripped_brain(with_data(head, np.where(brain, head.data, noise))) is None
    assert stripped_brain(with_data(head, np.zeros(brain.shape))) is None
    assert stripped_brain(with_data(head, np.full(brain.shape, 7.0))) is None


def test_in_a_stripped_image_nothing_outside_of_what_was_left_is_brain():
    head, brain, ventricles = phantom()
    stripped = with_data(head, np.where(brain, head.data, 0))
    too_wide = ndimage.binary_dilation(brain, iterations=3)
    found = learned(classes(too_wide & ~ventricles, ventricles), stripped).data
    assert_array_equal(found > 0, brain)
    assert_array_equal(found == 2, ventricles)


def test_in_a_stripped_image_the_network_may_take_brain_away_but_not_most_of_it():
    head, brain, _ = phantom()
    stripped = with_data(head, np.where(brain, head.data, 0))
    inner = ndimage.binary_erosion(brain, iterations=2)
    assert 0.6 < inner.sum() / brain.sum() < 0.95
    nothing = np.zeros(brain.shape)
    assert_array_equal(learned(classes(inner, nothing), stripped).data > 0, inner)
    half = brain.copy()
    half[: len(half) // 2] = False
    assert_array_equal(learned(classes(half, nothing), stripped).data > 0, brain)


def test_in_a_head_the_network_alone_decides():
    head, brain, _ = phantom()
    half = brain.copy()
    half[: len(half) // 2] = False
    assert_array_equal(learned(classes(half, np.zeros(brain.shape)), head).data > 0, half)


def axial(relative):
    return steps.to_axial(read_nifti(shared_data() / relative))


@pytest.mark.data
def test_a_real_stripped_scan_is_recognised():
    scan = axial("ljubljana/cross_sectional_mni/patient07/FLAIR.nii.gz")
    found = stripped_brain(scan)
    assert found is not None
    assert found.sum() / 1e6 == pytest.approx(1.13, abs=0.03)


@pytest.mark.data
@pytest.mark.parametrize(
    "relative", ["ljubljana/longitudinal/patient20/study2_FLAIR.nii.gz", "ms3seg/case10/FLAIR.nii.gz"]
)
def test_real_heads_are_none_not_even_with_zero_air_or_in_part(relative):
    scan = axial(relative)
    assert stripped_brain(scan) is None
    low, high = np.percentile(scan.data, [2, 98])
    tissue = ndimage.gaussian_filter(scan.data, (0, 1.5, 1.5)) > low + 0.06 * (high - low)
    head = with_data(scan, np.where(tissue, scan.data, 0))
    assert stripped_brain(head) is None
    count, rows, columns = head.grid.shape
    upper = steps.crop(head, (slice(2 * count // 3, count), slice(0, rows), slice(0, columns)))
    assert stripped_brain(upper) is None


@pytest.mark.data
def test_a_real_scan_with_its_skull_removed_is_recognised():
    scan, mask = (axial(f"ms3seg/case08/{name}.nii.gz") for name in ("FLAIR", "brain_mask"))
    found = stripped_brain(with_data(scan, np.where(mask.data > 0, scan.data, 0)))
    assert found is not None
    assert found.sum() == pytest.approx((mask.data > 0).sum(), rel=0.01)
