from pathlib import Path

import pytest

from msnode.series.describe import describe
from msnode.series.volume import group_series, read_instance
from support.dicom_files import change_all, enhanced_flair, flair_series


def described(paths: list[Path]):
    (series,) = group_series(read_instance(path) for path in paths)
    return describe(series)


def test_a_series_in_the_terms_of_the_rules(tmp_path: Path) -> None:
    found = described(flair_series(tmp_path, slices=12, spacing=(4.0, 0.8, 0.5)))
    assert (found.is_mr_image, found.own, found.flair_word) == (True, False, "flair")
    assert (found.slice_count, found.slice_distance_mm, found.coverage_mm) == (
        12,
        pytest.approx(4),
        pytest.approx(48),
    )
    assert (found.plane, found.tilt_deg, found.orientation_count) == ("axial", pytest.approx(0), 1)
    assert found.pixel_mm == 0.8


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal"])
def test_the_nearest_plane_is_named(tmp_path: Path, orientation: str) -> None:
    assert described(flair_series(tmp_path, slices=5, orientation=orientation)).plane == orientation


def test_slices_without_a_place_have_no_extent(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=5)
    change_all(paths, ImagePositionPatient=None)
    found = described(paths)
    assert (found.plane, found.slice_count) == ("unplaced", 5)
    assert found.coverage_mm is found.slice_distance_mm is None


def test_times_of_an_enhanced_image_come_from_functional_groups(tmp_path: Path) -> None:
    found = described([enhanced_flair(tmp_path / "e.dcm", slices=12)])
    assert found.is_mr_image
    assert found.slice_count == 12
    assert None not in (found.inversion_time_ms, found.echo_time_ms, found.repetition_time_ms)
