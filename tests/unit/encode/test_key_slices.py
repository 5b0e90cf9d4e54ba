import numpy as np
import pytest

from msnode.domain.imaging import Grid
from msnode.encode.key_slices import choose, draw_key_slices, edge_letters, plane_name
from msnode.encode.picture import grey_levels
from support.dicom_files import flair_series
from support.readings import read


def areas(*values):
    """A stack whose slices have lesions of these areas."""
    labels = np.zeros((len(values), 8, 8), np.int32)
    for k, value in enumerate(values):
        labels[k].reshape(-1)[:value] = 1
    return labels


def grid(along_row, along_column, spacing=(1.0, 1.0, 1.0)):
    affine = np.eye(4)
    normal = np.cross(along_row, along_column)
    for axis, direction in enumerate((normal, along_column, along_row)):
        affine[:3, axis] = np.array(direction) * spacing[axis]
    return Grid((4, 8, 8), affine)


def test_the_largest_areas_are_chosen():
    assert choose(areas(0, 1, 0, 9, 0, 3, 0, 5, 0), 3) == [3, 5, 7]


def test_neighbours_of_a_chosen_slice_give_way_to_others():
    assert choose(areas(0, 8, 9, 8, 0, 0, 3, 4, 3), 2) == [2, 7]


def test_neighbours_are_taken_where_there_is_nothing_else():
    assert choose(areas(0, 8, 9, 8, 0, 0, 0), 6) == [1, 2, 3]


def test_no_more_slices_than_there_is_room_for():
    assert len(choose(areas(*range(1, 41)), 6)) == 6


@pytest.mark.parametrize(("slices", "count"), [(40, 9), (9, 9), (2, 9), (1, 6)])
def test_without_lesions_slices_of_the_middle_are_chosen(slices, count):
    chosen = choose(areas(*[0] * slices), count)
    assert chosen == sorted(set(chosen))
    assert 1 <= len(chosen) <= count
    assert all((slices - 1) // 4 <= k <= -(-3 * (slices - 1) // 4) for k in chosen)


@pytest.mark.parametrize(
    ("along_row", "along_column", "name", "letters"),
    [
        ((1, 0, 0), (0, 1, 0), "axial", ("R", "L", "A", "P")),
        ((-1, 0, 0), (0, 1, 0), "axial", ("L", "R", "A", "P")),
        ((0, 1, 0), (0, 0, -1), "sagittal", ("A", "P", "H", "F")),
        ((1, 0, 0), (0, 0, -1), "coronal", ("R", "L", "H", "F")),
        ((1, 0, 0), (0, 0.866, 0.5), "axial, tilted by 30 degrees", ("R", "L", "A", "P")),
    ],
)
def test_plane_and_sides_are_named(along_row, along_column, name, letters):
    assert plane_name(grid(along_row, along_column)) == name
    assert edge_letters(grid(along_row, along_column)) == letters


@pytest.mark.parametrize("spacing", [(5.0, 0.9, 0.9), (5.0, 0.5, 1.5), (5.0, 1.5, 0.5)])
def test_pixels_are_square_and_pictures_fit_their_room(spacing, tmp_path):
    """The drawn head is an ellipse: as wide and as high in the picture as in mm."""
    reading = read(flair_series(tmp_path / "in", slices=5, rows=60, columns=60, spacing=spacing), 0)
    grey = grey_levels(reading.source.volume.data)
    shown = draw_key_slices(
        reading.lesion_map, {}, [5, 4, 3, 2, 1], chosen=[1, 2, 3], grey=grey, room=(300, 200)
    )
    assert [one.rank for one in shown] == sorted(one.rank for one in shown)
    for one in shown:
        width, height = one.picture.size
        assert width <= 300
        assert height <= 200
        assert width == 300 or height == 200
        assert width / height == pytest.approx(spacing[2] / spacing[1], rel=0.08)
        assert one.lesions == 0


def test_a_key_slice_counts_its_lesions(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=6), 8)
    dashed = dict.fromkeys(range(1, 9), False)
    ranks = list(range(1, 7))
    grey, chosen = grey_levels(reading.source.volume.data), choose(reading.lesion_map.labels, 6)
    for one in draw_key_slices(reading.lesion_map, dashed, ranks, chosen=chosen, grey=grey, room=(300, 300)):
        labels = reading.lesion_map.labels[one.rank - 1]
        assert one.lesions == len(set(labels[labels > 0].tolist()))
