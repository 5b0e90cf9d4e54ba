"""Preparing and restoring, in every orientation."""

from itertools import permutations, product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from msnode.domain.imaging import Grid, Prepared, Volume
from msnode.errors import NotAVolume, OutsideModelScope, RecipeMismatch
from msnode.preprocess import recipes, steps

RECIPE = recipes.get("flair2d-head-v1")
MOVES = [step.step for step in RECIPE.steps if isinstance(step, recipes.Move)]


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
        for step in MOVES:
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
        for step in MOVES:
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
    assert steps.through_plane(few, thickness_mm=1.0) is few
    assert steps.through_plane(few, thickness_mm=0.4) is few


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
    prepared = RECIPE.apply(source)
    mask = RECIPE.apply_to_mask(Volume(data, source.grid), prepared)
    assert mask.grid is prepared.grid
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


def ball(volume):
    """An extractor: a brain of 30 mm radius around the middle, ventricles of 8 mm in it."""
    where = volume.grid.to_lps(np.argwhere(np.ones(volume.grid.shape)))
    radius = np.linalg.norm(where - where.mean(axis=0), axis=1).reshape(volume.grid.shape)
    return Volume(np.select([radius < 8, radius < 30], [2, 1], 0).astype(np.uint8), volume.grid)


@pytest.mark.parametrize("name", ["flair2d-brain-v1", "flair2d-brain-v2", "paper-a-v1"])
def test_a_recipe_that_strips_needs_to_know_the_brain(name):
    recipe = recipes.get(name)
    source = volume((14, 90, 88), (7.0, 0.9, 0.9))
    assert recipe.strips_skull
    with pytest.raises(RecipeMismatch, match="strips the skull"):
        recipe.apply(source)
    with pytest.raises(OutsideModelScope, match="no brain"):
        recipe.apply(source, lambda v: Volume(np.zeros(v.grid.shape, np.uint8), v.grid))


def test_the_built_in_recipe_shows_the_brain_alone_and_comes_back_from_its_crop():
    recipe = recipes.get("flair2d-brain-v1")
    for directions in orientations():
        source = volume((16, 130, 120), (6.0, 0.9, 0.9), directions)
        prepared = recipe.apply(source, ball)
        assert set(np.unique(prepared.brain)) == {0, 1, 2}
        assert not prepared.data[0][prepared.brain == 0].any()
        assert prepared.data.max() <= 1
        assert max(prepared.grid.shape[1:]) < 100
        assert prepared.warnings  # 0.1 l is no adult's brain
        inside = recipes.restore((prepared.brain > 0).astype(np.float32), prepared).data >= 0.5
        truth = ball(source).data > 0
        assert 2 * (inside & truth).sum() / (inside.sum() + truth.sum()) > 0.97


def test_the_second_recipe_reads_thin_slices_one_by_one_and_averages_what_was_found_in_them():
    recipe = recipes.get("flair2d-brain-v2")
    for directions in (np.eye(3)[:, ::-1], np.eye(3)):  # axial, sagittal
        source = volume((70, 72, 74), (1.0, 1.0, 1.0), directions)
        prepared = recipe.apply(source, ball)
        assert prepared.grid.spacing[0] == 1
        spot = np.zeros(prepared.grid.shape, dtype=np.float32)
        spot[35] = 1  # a plane through the middle
        found = recipes.restore(spot, prepared).data
        across = int(np.argmax(np.abs(source.grid.affine[2, :3])))  # the axis that runs upwards
        profile = np.moveaxis(found, across, 0)[:, 36, 36]
        assert profile.sum() == pytest.approx(1, abs=1e-4)
        places = np.arange(len(profile))
        spread = np.sqrt((profile * (places - (profile * places).sum()) ** 2).sum())
        assert spread == pytest.approx(1.0, abs=0.02)


def test_the_second_recipe_reads_thick_slices_as_the_first_does():
    source = volume((14, 130, 120), (6.0, 0.9, 0.9))
    first, second = (recipes.get(f"flair2d-brain-v{n}").apply(source, ball) for n in (1, 2))
    assert_array_equal(first.data, second.data)
    values = np.random.default_rng(1).random(first.grid.shape, dtype=np.float32)
    assert_array_equal(recipes.restore(values, first).data, recipes.restore(values, second).data)


def test_what_was_cropped_away_comes_back_as_zero():
    recipe = recipes.get("flair2d-brain-v1")
    source = volume((14, 200, 200), (7.0, 0.898, 0.898))
    prepared = recipe.apply(source, ball)
    restored = recipes.restore(np.ones(prepared.grid.shape, dtype=np.float32), prepared)
    corner = np.linalg.inv(source.grid.affine) @ prepared.grid.affine[:, 3]
    first = round(corner[1])
    assert first > 20
    assert restored.data[:, first:, :].any()
    assert not restored.data[:, : first - 1].any()


def test_a_mask_is_cut_to_the_crop_of_its_image():
    recipe = recipes.get("flair2d-brain-v1")
    source = volume((14, 150, 140), (7.0, 0.45, 0.45))
    prepared = recipe.apply(source, ball)
    truth = Volume((ball(source).data == 2).astype(np.float32), source.grid)
    moved = recipe.apply_to_mask(truth, prepared)
    both = (moved.data > 0) & (prepared.brain == 2)
    assert 2 * both.sum() / (moved.data.sum() + (prepared.brain == 2).sum()) > 0.9


def test_system_a_gives_512_by_512_in_the_unit_range_and_comes_back():
    recipe = recipes.get("paper-a-v1")
    source = volume((14, 100, 110), (6.0, 0.9, 0.8))
    prepared = recipe.apply(source, ball)
    assert prepared.data.shape == (1, 14, 512, 512)
    assert (prepared.data.min(), round(float(prepared.data.max()), 2)) == (0, 1) or prepared.data.max() > 0.9
    back = recipes.restore((prepared.brain > 0).astype(np.float32), prepared)
    truth = ball(source).data > 0
    assert 2 * ((back.data >= 0.5) & truth).sum() / ((back.data >= 0.5).sum() + truth.sum()) > 0.98


def test_minimum_and_maximum_are_those_of_the_brain():
    source = volume((10, 60, 60), (7.0, 0.9, 0.9))
    brain = ball(source)
    scaled = steps.min_max(steps.strip(source, brain), brain)
    inside = scaled.data[brain.data > 0]
    assert (inside.min(), inside.max()) == (0, 1)
    assert not scaled.data[brain.data == 0].any()
    assert not steps.min_max(Volume(np.full((2, 3, 4), 7.0), Grid((2, 3, 4), np.eye(4))), None).data.any()
