"""Surface distances against hand-made cases and SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
from scipy import ndimage

from msnode.domain.imaging import Grid
from msnode.evaluate.surface import surface_distances

SPACING = (6.5, 0.9, 1.1)
SHAPE = (8, 24, 28)
GRID = Grid(SHAPE, np.diag([*SPACING, 1.0]))


def mask(*boxes, shape=SHAPE):
    data = np.zeros(shape, dtype=bool)
    for box in boxes:
        data[box] = True
    return data


def blob(seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), (0.7, 2, 2))
    data = noise > np.quantile(noise, 0.93)
    data[[0, -1]] = data[:, [0, -1]] = data[:, :, [0, -1]] = False
    return data


def reference(a, b):
    """Distances of the contour of `a` to that of `b`, by ITK."""
    images = []
    for data in (a, b):
        image = sitk.GetImageFromArray(data.astype(np.uint8))
        image.SetSpacing(SPACING[::-1])
        images.append(sitk.LabelContour(image, fullyConnected=False))
    far = sitk.SignedMaurerDistanceMap(images[1], squaredDistance=False, useImageSpacing=True)
    return np.abs(sitk.GetArrayFromImage(far))[sitk.GetArrayFromImage(images[0]) > 0]


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_simpleitk_on_an_anisotropic_grid(seed):
    a, b = blob(seed), blob(seed + 100)
    forth, back = reference(a, b), reference(b, a)
    hd95, average = surface_distances(a, b, GRID)
    assert hd95 == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)), rel=1e-5)
    assert average == pytest.approx(np.concatenate([forth, back]).mean(), rel=1e-5)


@pytest.mark.parametrize(("axis", "step"), list(enumerate(SPACING)))
def test_a_voxel_moved_by_one_is_one_spacing_away(axis, step):
    moved = [3, 3, 3]
    moved[axis] += 1
    assert surface_distances(mask((3, 3, 3)), mask(tuple(moved)), GRID) == pytest.approx((step, step))


def test_equal_masks_are_at_no_distance_also_at_the_edge_of_the_grid():
    full = np.ones(SHAPE, dtype=bool)
    assert surface_distances(full, full, GRID) == (0, 0)
    hd95, average = surface_distances(full, mask(np.s_[1:, :, :]), GRID)
    assert 0 < average < hd95 <= SPACING[0]


def test_the_inside_of_a_mask_is_no_surface():
    solid = mask(np.s_[1:7, 2:20, 2:20])
    hollow = solid & ~mask(np.s_[3:5, 8:12, 8:12])
    solid_to_hollow, _ = surface_distances(solid, hollow, GRID)
    assert solid_to_hollow > 0  # the hole's wall is a surface that the solid mask does not have
    assert surface_distances(solid, solid.copy(), GRID) == (0, 0)


def test_a_sheared_grid_measures_in_the_patient():
    affine = np.diag([*SPACING, 1.0])
    affine[1, 0] = 3.0  # each slice lies 3 mm further along the rows' axis
    one, other = mask((3, 3, 3)), mask((4, 3, 3))
    assert surface_distances(one, other, Grid(SHAPE, affine))[0] == pytest.approx(np.hypot(SPACING[0], 3.0))


def test_an_empty_mask_has_no_distance():
    empty, dot = mask(), mask((3, 3, 3))
    for a, b in ((empty, dot), (dot, empty), (empty, empty)):
        assert surface_distances(a, b, GRID) is None
