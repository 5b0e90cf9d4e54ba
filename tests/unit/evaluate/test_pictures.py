"""Which slices are shown, and which way up."""

import numpy as np
import pytest

from msnode.domain.findings import LesionMap
from msnode.domain.imaging import Grid, Volume
from msnode.evaluate.pictures import choose_pictures

SHAPE = (12, 30, 40)
AXIAL = np.array([[0, 0, 0.8], [0, 0.9, 0], [6.0, 0, 0]])  # columns: slice, row, column axis in LPS


def scene(directions, *, truth=(), found=(), shape=SHAPE):
    affine = np.eye(4)
    affine[:3, :3] = directions
    grid = Grid(shape, affine)
    image = np.full(shape, 100, dtype=np.float32)
    expert, labels = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.int32)
    for at in truth:
        expert[at] = 1
    for at in found:
        labels[at] = 1
    return Volume(image, grid), Volume(expert, grid), LesionMap(labels, grid, ())


def lesion_at(x, y, z, directions):
    """The picture of a single voxel at the far left, back or top of the patient: (row, column) share."""
    shape = (20, 20, 20)
    image, truth, lesions = scene(directions, shape=shape)
    corner = np.array(np.meshgrid(*[range(n) for n in shape], indexing="ij")).reshape(3, -1).T
    best = corner[np.argmax(image.grid.to_lps(corner) @ np.array([x, y, z]))]
    data = truth.data.copy()
    data[tuple(best)] = 1
    (picture,) = choose_pictures(image, Volume(data, image.grid), lesions)
    row, column = np.argwhere(picture.truth)[0]
    return row / (picture.truth.shape[0] - 1), column / (picture.truth.shape[1] - 1)


def axes(slice_axis, row, column):
    return np.stack([slice_axis, row, column], axis=1).astype(float)


X, Y, Z = np.eye(3)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("normal", "down", "right"), [(Z, Y, X), (Y, -Z, X), (X, -Z, Y)], ids=["axial", "coronal", "sagittal"]
)
def test_every_plane_is_shown_as_a_radiologist_sees_it(normal, down, right, swap, signs):
    stored = (right, down) if swap else (down, right)
    directions = axes(signs[0] * normal, signs[1] * stored[0], signs[2] * stored[1])
    # the last in index order wins among equals, so a small weight decides on the far corner
    bottom_right = down + right
    assert lesion_at(*bottom_right, directions) == (1, 1)
    assert lesion_at(*(right - down), directions) == (0, 1)


def test_the_slices_with_most_lesion_but_not_neighbours():
    big, next_to_it, other = np.s_[4, :9, :9], np.s_[5, :8, :8], np.s_[9, :2, :2]
    pictures = choose_pictures(*scene(AXIAL, truth=(big, next_to_it), found=(other,)))
    assert [p.number for p in pictures] == [5, 10]  # slices are 6 mm apart, pictures at least 12
    assert pictures[0].truth.sum() == 81
    assert pictures[1].predicted.sum() == 4


def test_without_an_expert_the_whole_stack_with_findings_is_shown():
    image, _, lesions = scene(AXIAL, found=(np.s_[2, 3, 3], np.s_[9, 3, 3]))
    pictures = choose_pictures(image, None, lesions)
    assert [p.number for p in pictures] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert all(p.truth is None for p in pictures)


def test_nothing_found_shows_the_middle_of_the_stack():
    image, truth, lesions = scene(AXIAL)
    assert len(choose_pictures(image, None, lesions)) == 8
    assert 1 <= len(choose_pictures(image, truth, lesions)) <= 3


def test_the_head_is_cropped_and_the_aspect_kept():
    image, _, lesions = scene(AXIAL)
    data = np.zeros(SHAPE, dtype=np.float32)
    data[:, 10:20, 10:30] = 300
    (picture, *_) = choose_pictures(Volume(data, image.grid), None, lesions)
    assert picture.image.shape == (18, 28)  # four voxels of margin
    assert picture.aspect == pytest.approx(0.9 / 0.8)
    assert (picture.image.min(), picture.image.max()) == (0, 255)


@pytest.mark.parametrize("value", [0.0, -5.0, np.nan, 7.0])
def test_images_without_contrast_can_be_shown(value):
    image, truth, lesions = scene(AXIAL, truth=(np.s_[3, 3, 3],))
    flat = Volume(np.full(SHAPE, value, dtype=np.float32), image.grid)
    assert choose_pictures(flat, truth, lesions)[0].image.dtype == np.uint8
