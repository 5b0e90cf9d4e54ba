"""The same pixels at the same place are one image."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from msnode.domain.imaging import FLAIR, Series
from msnode.errors import AmbiguousSelection
from msnode.series.copies import same_volume, without_copies
from msnode.series.select import select
from msnode.series.volume import group_series, read_instance
from support.dicom_files import change, flair_series

SIZE = {"slices": 10, "rows": 8, "columns": 8}


def series(folder: Path, **changes: object) -> Series:
    (one,) = group_series(map(read_instance, flair_series(folder, **SIZE, **changes)))
    return one


def copy(folder: Path, **attributes: object) -> Series:
    """The series under new UIDs, Frame of Reference included."""
    paths = flair_series(folder, **SIZE)
    for k, path in enumerate(paths):
        change(path, SOPInstanceUID=f"1.2.9.{k}", SeriesInstanceUID="1.2.9", FrameOfReferenceUID="1.2.8")
        change(path, **{"SeriesNumber": 1001} | attributes)
    (one,) = group_series(map(read_instance, paths))
    return one


def test_a_copy_under_other_uids_is_named(tmp_path: Path) -> None:
    original, second = series(tmp_path / "a"), copy(tmp_path / "b")
    selection = select([second, original], same_volume=same_volume)
    assert selection.series[FLAIR] is original
    (passed,) = selection.passed_over
    assert passed.series_instance_uid == "1.2.9"
    assert f"the same image as series {original.series_instance_uid}" in passed.reason


def test_a_copy_in_another_transfer_syntax_or_rescale_is_one(tmp_path: Path) -> None:
    original, second = series(tmp_path / "a"), copy(tmp_path / "b")
    for instance in second.instances:
        ds = dcmread(instance.path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(instance.path, enforce_file_format=True)
    assert same_volume(original, second)


@pytest.mark.parametrize(
    "changed",
    [
        {"pixels": np.full((10, 8, 8), 7, np.uint16)},
        {"spacing": (6.0, 0.9, 0.95)},
        {"RescaleIntercept": "1", "RescaleSlope": "2"},
    ],
)
def test_other_pixels_or_places_are_another_image(tmp_path: Path, changed: dict) -> None:
    original, second = series(tmp_path / "a"), series(tmp_path / "b", series_number=77, **changed)
    assert not same_volume(original, second)


def test_a_repeated_scan_is_still_ambiguous(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 900, (10, 8, 8)).astype(np.uint16)
    second = series(tmp_path / "b", pixels=noise, series_number=77)
    selection = select([series(tmp_path / "a"), copy(tmp_path / "c"), second], same_volume=same_volume)
    assert isinstance(selection.refusal, AmbiguousSelection)
    assert len(selection.passed_over) == 3


def test_copies_in_one_series_are_left_out(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, **SIZE)
    for k, path in enumerate(paths[:4]):
        twin = tmp_path / f"twin{k}.dcm"
        twin.write_bytes(path.read_bytes())
        paths.append(change(twin, SOPInstanceUID=f"1.2.9.{k}", InstanceCreationTime="101112"))
    (whole,) = group_series(map(read_instance, paths))
    kept, said = without_copies(whole)
    assert len(kept.instances) == 10
    assert said == ("4 of 14 images of the series have the pixels and the place of another one",)
    assert without_copies(kept) == (kept, ())


def test_other_pixels_at_one_place_stay(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, **SIZE)
    twin = tmp_path / "twin.dcm"
    twin.write_bytes(paths[0].read_bytes())
    ds = dcmread(change(twin, SOPInstanceUID="1.2.9"))
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(twin)
    (whole,) = group_series(map(read_instance, [*paths, twin]))
    assert without_copies(whole) == (whole, ())
