"""What is filed in a series and is no slice of its stack."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from msnode.domain.imaging import FLAIR, Series
from msnode.series.aside import without_strangers
from msnode.series.select import select
from msnode.series.volume import group_series, read_instance
from support.dicom_files import change, enhanced_flair, flair_series

SAGITTAL = [0, 1, 0, 0, 0, -1]


def with_strangers(folder: Path, *strangers: dict) -> tuple[Series, set[str]]:
    """A stack of 10 slices and images filed with it; the Series, and the UIDs of the slices."""
    paths = flair_series(folder, slices=10, rows=8, columns=8)
    slices = {read_instance(path).sop_instance_uid for path in paths}
    for k, attributes in enumerate(strangers):
        extra = folder / f"x{k}.dcm"
        extra.write_bytes(paths[5].read_bytes())
        change(extra, **{"SOPInstanceUID": f"1.2.3.{k}"} | attributes)
        paths.append(extra)
    (series,) = group_series(read_instance(path) for path in paths)
    return series, slices


@pytest.mark.parametrize("uid", ["1.2.3.99", "9.2.3.99"])
@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        (
            {"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER"], "ImageOrientationPatient": SAGITTAL},
            "Image Type LOC",
        ),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "Image Type LOCALIZER"),
        ({"ImageOrientationPatient": SAGITTAL}, "another orientation or matrix"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "Image Type MPR"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "Image Type SECONDARY"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R_IR", "R"]}, "Image Type R"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}, "Secondary Capture Image Storage"),
    ],
)
def test_one_stranger_is_put_aside_and_named(tmp_path: Path, attributes: dict, says: str, uid: str) -> None:
    series, slices = with_strangers(tmp_path, {"SOPInstanceUID": uid} | attributes)
    selection = select([series])
    assert {i.sop_instance_uid for i in selection.series[FLAIR].instances} == slices
    (remark,) = selection.remarks
    assert remark.startswith(f"1 of 11 images of the series are put aside as no slices of it: {says}")


def test_a_stack_of_its_own_kind_stays_whole(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=10, rows=8, columns=8)
    for path in paths:
        change(path, ImageType=["DERIVED", "SECONDARY", "MPR"])
    (series,) = group_series(map(read_instance, paths))
    assert without_strangers(series) == (series, ())
    assert "derived images" in select([series]).reason


def test_more_reformats_than_slices_are_put_aside(tmp_path: Path) -> None:
    mpr = {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "ImageOrientationPatient": SAGITTAL}
    series, slices = with_strangers(tmp_path, *[mpr] * 15)
    kept, _ = without_strangers(series)
    assert {i.sop_instance_uid for i in kept.instances} == slices


def test_a_second_stack_is_not_put_aside(tmp_path: Path) -> None:
    series, _ = with_strangers(tmp_path, *[{"ImageOrientationPatient": SAGITTAL}] * 4)
    assert without_strangers(series) == (series, ())
    assert "2 orientations in one series" in select([series]).reason


def test_a_slice_that_only_lacks_a_place_stays(tmp_path: Path) -> None:
    series, _ = with_strangers(tmp_path, {"ImagePositionPatient": None})
    assert without_strangers(series) == (series, ())


def test_a_scout_beside_a_multi_frame_image_is_put_aside(tmp_path: Path) -> None:
    whole = read_instance(enhanced_flair(tmp_path / "e.dcm", slices=40, rows=8, columns=8))
    scout = tmp_path / "scout.dcm"
    scout.write_bytes(flair_series(tmp_path / "s", slices=1, rows=8, columns=8)[0].read_bytes())
    change(scout, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SOPClassUID=MRImageStorage)
    (series,) = group_series([whole])
    mixed = replace(series, instances=(read_instance(scout), whole))
    kept, remarks = without_strangers(mixed)
    assert (kept.instances, len(remarks)) == ((whole,), 1)
