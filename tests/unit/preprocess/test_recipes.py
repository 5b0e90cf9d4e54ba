"""Preparing and restoring, in every orientation."""

from itertools import permutations, product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from msnode.domain import Grid, Prepared, Volume
from msnode.errors import NotAVolume, RecipeMismatch
from msnode.preprocess import recipes, steps

RECIPE = recipes.get("flair2d-head-v1")


def volume(shape, spacing, directions=None, seed=0):
    """A smooth random volume; `directions` columns are the LPS directions of slice, row and column axis."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3)[:, ::-1] if directions is None else directions) * np.array(spacing)
    affine[:3, 3] = (-80.0, -95.0, -60.0)
    values = np.random.default_rng(seed).normal(500, 200, shape).astype(np.float32)
    return Volume(values, Grid(shape, affine))


def orientations():
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            yield np.eye(3)[:, order] * np.array(signs)


def oblique(degrees, directions):
    angle = np.deg2rad(degrees)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return rotation @ directions


def test_to_axial_puts_every_orientation_in_one_order_and_moves_no_voxel():
    for directions in orientations():
        source = volume((5, 6, 7), (1.0, 2.0, 3.0), directions)
        axial = steps.to_axial(source)
        unit = axial.grid.affine[:3, :3] / np.array(axial.grid.spacing)
        assert_allclose(unit, np.eye(3)[:, ::-1], atol=1e-12)
        index = np.argwhere(source.data == source.data.max())
        moved = np.argwhere(axial.data == source.data.max())
        assert_allclose(source.grid.to_lps(index), axial.grid.to_lps(moved), atol=1e-9)


def test_to_axial_keeps_an_oblique_acquisition_in_its_own_planes():
    source = volume((5, 6, 7), (7.0, 0.9, 0.9), oblique(35, np.eye(3)[:, ::-1]))
    axial = steps.to_axial(source)
    assert_array_equal(axial.data, source.data)
    assert axial.grid.same_as(source.grid)


@pytest.mark.parametrize("tilt", [0, 25])
def test_restore_returns_the_very_values_where_voxels_only_moved(tilt):
    for directions in orientations():
        source = volume((24, 20, 22), (230 / 256,) * 3, oblique(tilt, directions))
        axial = steps.to_axial(source)
        prepared = Prepared(axial.data[np.newaxis], axial.grid, source.grid, RECIPE.name)
        restored = recipes.restore(axial.data, prepared)
        assert restored.grid is source.grid
        assert_array_equal(restored.data, source.data)


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        ((7.2, 0.898, 0.898), (20, 64, 60)),
        ((5.5, 0.45, 0.45), (12, 130, 128)),
        ((3.0, 0.72, 0.6), (20, 70, 90)),
        ((1.0, 1.0, 1.0), (40, 50, 60)),
        ((6.5, 1.3, 1.3), (15, 45, 44)),
    ],
    ids=["training grid", "fine pixels", "unequal pixels", "thin slices", "coarse pixels"],
)
def test_a_restored_field_lies_where_it_was(spacing, shape):
    """A field that is linear in space survives preparation and return: any shift or flip would show."""
    for directions in orientations():
        source = volume(shape, spacing, oblique(12, directions))
        where = source.grid.to_lps(np.argwhere(np.ones(shape)))
        field = Volume(where.sum(axis=1).reshape(shape).astype(np.float32), source.grid)
        moved = field
        for step in RECIPE.geometry:
            moved = step(moved)
        prepared = Prepared(moved.data[np.newaxis], moved.grid, source.grid, RECIPE.name)
        restored = recipes.restore(moved.data, prepared)
        margin = [int(16 / s) + 1 for s in spacing]  # within 16 mm of the border slabs and triangles are cut
        inner = tuple(slice(m, n - m) for m, n in zip(margin, shape, strict=True))
        assert_allclose(restored.data[inner], field.data[inner], atol=0.2)  # mm


def test_a_single_bright_voxel_stays_on_its_side():
    for directions in orientations():
        source = volume((16, 18, 17), (4.0, 3.1, 3.6), directions)
        data = np.zeros(source.grid.shape, dtype=np.float32)
        data[11, 4, 13] = 1
        moved = Volume(data, source.grid)
        for step in RECIPE.geometry:
            moved = step(moved)
        prepared = Prepared(moved.data[np.newaxis], moved.grid, source.grid, RECIPE.name)
        restored = recipes.restore(moved.data, prepared)
        assert np.unravel_index(restored.data.argmax(), restored.data.shape) == (11, 4, 13)


def test_prepared_pixels_have_the_recipes_spacing_and_the_whole_field_of_view():
    source = volume((10, 512, 400), (6.0, 0.55, 0.7))
    prepared = RECIPE.apply(source)
    assert prepared.data.shape[0] == 1
    assert prepared.data.dtype == np.float32
    assert_allclose(prepared.grid.spacing, (6.0, 230 / 256, 230 / 256), rtol=1e-9)
    for axis in (1, 2):
        assert (
            prepared.grid.shape[axis] * 230 / 256
            >= source.grid.shape[axis] * source.grid.spacing[axis] - 0.45  # half a pixel
        )
    centre = (np.array([prepared.grid.shape]) - 1) / 2
    assert_allclose(
        prepared.grid.to_lps(centre), source.grid.to_lps((np.array([source.grid.shape]) - 1) / 2), atol=1e-9
    )


def test_the_training_grid_keeps_its_own_pixels():
    source = volume((6, 64, 64), (7.2, 0.8984, 0.8984))
    assert RECIPE.apply(source).grid.same_as(source.grid)


def test_thin_slices_become_slabs_that_average_them():
    source = volume((60, 16, 16), (1.0, 0.9, 0.9))
    slabs = steps.through_plane(source, thickness_mm=6.0)
    assert slabs.grid.shape == (10, 16, 16)
    assert slabs.grid.spacing[0] == pytest.approx(6.0)
    assert_allclose(slabs.data[3], source.data[18:24].mean(axis=0), rtol=1e-5)
    assert_allclose(
        slabs.grid.to_lps(np.zeros((1, 3))), source.grid.to_lps(np.array([[2.5, 0, 0]])), atol=1e-9
    )


def test_thick_or_few_slices_are_left_alone():
    thick = volume((20, 16, 16), (3.0, 0.9, 0.9))
    few = volume((7, 16, 16), (1.0, 0.9, 0.9))
    assert steps.through_plane(thick, thickness_mm=6.0) is thick
    assert steps.through_plane(few, thickness_mm=6.0) is few


def test_intensities_fill_the_unit_range_whatever_their_offset_and_scale():
    source = volume((8, 32, 32), (7.0, 0.9, 0.9))
    expected = steps.unit_range(source).data
    assert expected.min() == 0
    assert expected.max() == 1
    for scale, offset in ((40.0, -9000.0), (1e-4, 0.0), (1.0, -4000.0)):
        other = Volume(source.data * np.float32(scale) + np.float32(offset), source.grid)
        assert_allclose(steps.unit_range(other).data, expected, atol=2e-3)


def test_a_constant_image_becomes_zeros():
    source = volume((4, 8, 8), (7.0, 0.9, 0.9))
    constant = Volume(np.full(source.grid.shape, 812.0, dtype=np.float32), source.grid)
    assert not RECIPE.apply(constant).data.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value):
    source = volume((4, 8, 8), (7.0, 0.9, 0.9))
    data = source.data.copy()
    data[1, 2, 3] = value
    with pytest.raises(NotAVolume, match="not finite"):
        RECIPE.apply(Volume(data, source.grid))


def test_a_mask_takes_the_same_way_as_its_image():
    source = volume((12, 60, 60), (6.0, 0.5, 0.5))
    data = np.zeros(source.grid.shape, dtype=np.float32)
    data[4:6, 20:40, 10:30] = 255
    mask = RECIPE.apply_to_mask(Volume(data, source.grid))
    assert mask.grid.same_as(RECIPE.apply(source).grid)
    assert set(np.unique(mask.data)) == {0, 1}
    volume_mm3 = mask.data.sum() * mask.grid.voxel_volume_mm3
    assert volume_mm3 == pytest.approx((data > 0).sum() * source.grid.voxel_volume_mm3, rel=0.1)


def test_the_entropy_of_a_mask_says_how_empty_a_slice_is():
    data = np.zeros((3, 32, 32), dtype=np.uint8)
    data[1, :16] = 1
    data[2, 0, 0] = 1
    entropy = steps.slice_entropy(Volume(data, Grid((3, 32, 32), np.eye(4))))
    p = 1 / 1024
    assert_allclose(entropy, [0, 1, -p * np.log2(p) - (1 - p) * np.log2(1 - p)], atol=1e-9)


def test_an_unknown_recipe_is_a_mismatch_that_names_what_there_is():
    with pytest.raises(RecipeMismatch, match="flair2d-head-v1"):
        recipes.get("flair2d-head-v99")
