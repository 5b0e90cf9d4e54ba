"""The study as files: readable headers, a series to pass over, geometry that agrees with the truth."""

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MRImageStorage

from msnode.demo.patient import study_uid, write_series
from msnode.demo.phantom import SLICE_THICKNESS_MM, Phantom, PlantedLesion
from msnode.domain.imaging import Grid, Volume


@pytest.fixture(scope="module")
def phantom():
    rng = np.random.default_rng(0)
    affine = np.array([[0, 0, 0.9, -8.0], [-1.0, 0.896, 0, -9.0], [6.93, 0.09, 0, 2.0], [0, 0, 0, 1]])
    grid = Grid((4, 12, 10), affine)
    lesion = PlantedLesion(1, "deep", (0.0, 0.0, 0.0), 100.0, 5.76)
    data = np.rint(rng.uniform(0, 2000, grid.shape)).astype(np.float32)
    return Phantom(3, Volume(data, grid), np.zeros(grid.shape, np.int32), (lesion,))


@pytest.fixture(scope="module")
def datasets(phantom, tmp_path_factory):
    return [dcmread(path) for path in write_series(phantom, tmp_path_factory.mktemp("study"))]


def of_series(datasets, number):
    return [d for d in datasets if d.SeriesNumber == number]


def test_a_study_holds_a_localiser_and_a_flair(datasets, phantom):
    assert {d.StudyInstanceUID for d in datasets} == {study_uid(phantom)}
    assert {d.SOPClassUID for d in datasets} == {MRImageStorage}
    assert len({d.SOPInstanceUID for d in datasets}) == len(datasets)
    localiser, flair = of_series(datasets, 1), of_series(datasets, 2)
    assert len(localiser) == 3
    assert len(flair) == 4
    assert "LOCALIZER" in localiser[0].ImageType
    assert len({d.SeriesInstanceUID for d in datasets}) == 2


def test_the_flair_says_that_it_is_one(datasets):
    first = of_series(datasets, 2)[0]
    assert (first.RepetitionTime, first.EchoTime, first.InversionTime) == (9000, 120, 2500)
    assert "FLAIR" in first.SeriesDescription
    assert first.SliceThickness == SLICE_THICKNESS_MM


def test_positions_and_pixels_are_those_of_the_volume(datasets, phantom):
    grid = phantom.volume.grid
    for index, image in enumerate(of_series(datasets, 2)):
        assert np.array_equal(image.pixel_array, phantom.volume.data[index])
        orientation = np.array(image.ImageOrientationPatient, dtype=float)
        row_mm, column_mm = map(float, image.PixelSpacing)
        corner = (
            np.array(image.ImagePositionPatient, dtype=float)
            + 9 * column_mm * orientation[:3]
            + 11 * row_mm * orientation[3:]
        )
        assert corner == pytest.approx(grid.to_lps(np.array([[index, 11, 9]]))[0], abs=1e-4)


def test_localiser_planes_are_orthogonal_and_lie_in_the_head(datasets, phantom):
    normals = []
    for image in of_series(datasets, 1):
        orientation = np.array(image.ImageOrientationPatient, dtype=float)
        normals.append(np.cross(orientation[:3], orientation[3:]))
        assert image.pixel_array.max() > 0
    assert np.abs(np.array(normals) @ np.array(normals).T - np.eye(3)).max() < 0.1
    coronal = of_series(datasets, 1)[1]
    top = phantom.volume.grid.to_lps(np.array([[3, 6, 0]]))[0]
    assert np.array(coronal.ImagePositionPatient, dtype=float) == pytest.approx(top, abs=1e-4)


def test_a_seed_always_writes_the_same_bytes(phantom, tmp_path):
    one, other = (write_series(phantom, tmp_path / name) for name in ("one", "other"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]
