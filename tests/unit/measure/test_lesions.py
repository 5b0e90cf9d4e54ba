import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from msnode.domain.imaging import Grid, Volume
from msnode.measure.lesions import find_lesions, is_uncertain


def grid(shape, spacing=(6.0, 1.0, 0.5)):
    affine = np.diag([0.5, 1.0, 6.0, 1.0])[:, [2, 1, 0, 3]].copy()  # slice → z, row → y, column → x
    affine[:3, :3] *= np.array(spacing) / np.array((6.0, 1.0, 0.5))
    return Grid(shape, affine)


def find(mask, *, min_volume_mm3=0.0):
    mask = np.asarray(mask, dtype=np.float32)
    return find_lesions(Volume(mask, grid(mask.shape)), threshold=0.5, min_volume_mm3=min_volume_mm3)


def test_corner_contact_makes_one_lesion():
    mask = np.zeros((3, 4, 4))
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 1
    assert len(find(mask).lesions) == 1


def test_numbers_of_one_lesion():
    mask = np.zeros((4, 8, 8))
    mask[1, 2:4, 4:8] = 0.75
    (lesion,) = find(mask).lesions
    assert lesion.voxel_count == 8
    assert lesion.volume_mm3 == pytest.approx(8 * 3.0)
    assert lesion.centroid_lps_mm == pytest.approx((5.5 * 0.5, 2.5, 6.0))
    assert lesion.longest_axial_mm == pytest.approx(np.hypot(1.0, 1.5) + 1.0)
    assert lesion.mean_probability == pytest.approx(0.75)


def test_a_line_of_voxels_has_a_length():
    mask = np.zeros((1, 4, 12))
    mask[0, 1, 2:10] = 1
    assert find(mask).lesions[0].longest_axial_mm == pytest.approx(7 * 0.5 + 1.0)


def turned(order, flips):
    """A grid whose array axes run along the patient's axes `order` (0 to 2: x, y, z), some backwards."""
    spacing = (3.0, 0.7, 1.1)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (along, flip) in enumerate(zip(order, flips, strict=True)):
        affine[along, axis] = spacing[axis] * (-1 if flip else 1)
    return affine


def longest_by_all_pairs(mask, affine):
    """The definition, with every pair of voxels."""
    axis = int(np.argmax(np.abs(affine[2, :3])))
    indices = np.argwhere(mask)
    points = indices @ affine[:3, :3].T
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    same_layer = indices[:, None, axis] == indices[None, :, axis]
    widths = np.delete(np.linalg.norm(affine[:3, :3], axis=0), axis)
    return float(apart[same_layer].max() + widths.max())


@given(
    hnp.arrays(np.bool_, st.tuples(*[st.integers(1, 5)] * 3)).filter(np.any),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.booleans()] * 3),
)
def test_the_longest_axial_diameter_is_that_of_all_pairs_in_every_orientation(mask, order, flips):
    affine = turned(order, flips)
    data = Volume(mask.astype(np.float32), Grid(mask.shape, affine))
    for lesion in (found := find_lesions(data, threshold=0.5, min_volume_mm3=0)).lesions:
        expected = longest_by_all_pairs(found.labels == lesion.label, affine)
        assert lesion.longest_axial_mm == pytest.approx(expected)


def test_a_tall_lesion_of_a_sagittal_series_is_as_long_as_it_is_in_the_axial_plane():
    mask = np.zeros((5, 12, 12))
    mask[1:4, 1:11, 6] = 1  # three slices of 1.2 mm to the side, ten rows of 0.9 mm down
    affine = np.array([[1.2, 0, 0, 0], [0, 0, 0.9, 0], [0, -0.9, 0, 0], [0, 0, 0, 1.0]])
    data = Volume(mask.astype(np.float32), Grid(mask.shape, affine))
    (lesion,) = find_lesions(data, threshold=0.5, min_volume_mm3=0).lesions
    assert lesion.longest_axial_mm == pytest.approx(2 * 1.2 + 1.2)


def test_the_threshold_belongs_to_the_lesion():
    mask = np.zeros((1, 2, 2))
    mask[0, 0, 0] = 0.5
    assert len(find(mask).lesions) == 1


def test_a_lesion_of_exactly_the_least_volume_stays():
    mask = np.zeros((1, 4, 4))
    mask[0, 0, 0] = 1
    mask[0, 2, 2:4] = 1
    assert [x.voxel_count for x in find(mask, min_volume_mm3=6.0).lesions] == [2]


def test_labels_fall_with_volume():
    mask = np.zeros((1, 5, 12))
    mask[0, 0, 0] = 1
    mask[0, 2, 0:3] = 1
    mask[0, 4, 0:2] = 1
    found = find(mask)
    assert [x.voxel_count for x in found.lesions] == [3, 2, 1]
    assert [int((found.labels == x.label).sum()) for x in found.lesions] == [3, 2, 1]


def test_the_spread_of_a_lesion_is_the_mean_inside_it():
    mask = np.zeros((3, 6, 6))
    mask[1, 1, 1:3] = mask[2, 4:6, 4] = 1
    mask[2, 5, 4] = 0
    spread = np.full((3, 6, 6), 0.4)
    spread[1, 1, 1], spread[1, 1, 2], spread[2, 4, 4] = 0.1, 0.3, 0.05
    where = grid(mask.shape)
    found = find_lesions(Volume(mask, where), threshold=0.5, min_volume_mm3=0, spread=Volume(spread, where))
    assert [x.spread for x in found.lesions] == pytest.approx([0.2, 0.05])
    assert [x.spread for x in find(mask).lesions] == [0, 0]
    assert [x.confidence for x in found.lesions] == [None, None]


def test_a_spread_on_another_grid_is_refused():
    mask = np.ones((2, 2, 2))
    elsewhere = Volume(mask, grid(mask.shape, (5.0, 1.0, 0.5)))
    with pytest.raises(ValueError, match="different grids"):
        find_lesions(Volume(mask, grid(mask.shape)), threshold=0.5, min_volume_mm3=0, spread=elsewhere)


def test_a_lesion_is_marked_under_the_limit_and_only_where_its_confidence_is_known():
    (lesion,) = find(np.ones((1, 2, 2))).lesions
    assert not is_uncertain(lesion, 1.0)
    assert is_uncertain(replace(lesion, confidence=0.49), 0.5)
    assert not is_uncertain(replace(lesion, confidence=0.5), 0.5)


def test_a_large_volume_takes_little_beyond_its_mask():
    shape = (64, 256, 256)
    data = np.zeros(shape, np.float32)
    data[20:23, 100:140, 100:140] = 1
    volume = Volume(data, grid(shape))
    tracemalloc.start()
    find_lesions(volume, threshold=0.5, min_volume_mm3=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # int32 labels, the mask, and what one bounding box takes
    assert peak < data.size * (4 + 1) * 1.2


@given(hnp.arrays(np.bool_, st.tuples(*[st.integers(1, 6)] * 3)))
def test_every_voxel_over_the_threshold_is_in_exactly_one_lesion(mask):
    found = find(mask)
    assert np.array_equal(found.labels > 0, mask)
    assert sum(x.voxel_count for x in found.lesions) == int(mask.sum())
    assert [x.label for x in found.lesions] == list(range(1, len(found.lesions) + 1))
