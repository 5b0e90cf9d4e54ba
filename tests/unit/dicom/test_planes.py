from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset

from msnode.dicom.planes import frame_count, functional_group, is_enhanced, planes_of
from msnode.errors import NotAVolume
from msnode.series.volume import read_instance
from support.dicom_files import change, enhanced_flair, flair_series


def test_a_classic_image_has_one_plane(tmp_path: Path) -> None:
    path = flair_series(tmp_path, slices=1, spacing=(3.0, 0.8, 0.5))[0]
    instance = read_instance(change(path, RescaleSlope=2, RescaleIntercept=-3))
    (plane,) = planes_of(instance)
    assert not is_enhanced(instance.header)
    assert plane.frame.frame_number == 1
    assert plane.spacing.tolist() == [0.8, 0.5]
    assert plane.position.tolist() == [float(v) for v in instance.header.ImagePositionPatient]
    assert (plane.rescale, plane.rescaled) == ((2.0, -3.0), True)
    assert (plane.thickness_mm, plane.stated_step_mm) == (2.7, 3.0)


def test_what_the_header_does_not_say_is_none(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    change(path, ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)
    (plane,) = planes_of(read_instance(path))
    assert plane.position is plane.orientation is plane.spacing is None
    assert (plane.rescale, plane.rescaled) == ((1.0, 0.0), False)


def test_an_enhanced_image_has_one_plane_a_frame(tmp_path: Path) -> None:
    instance = read_instance(enhanced_flair(tmp_path / "e.dcm", slices=9))
    assert is_enhanced(instance.header)
    assert frame_count(instance.header) == 9
    assert [p.frame.frame_number for p in planes_of(instance)] == list(range(1, 10))
    assert functional_group(instance.header, 0, "PlanePositionSequence") is not None
    assert functional_group(instance.header, 9, "PlanePositionSequence") is None
    assert functional_group(instance.header, 0, "MRDiffusionSequence") is None


def test_several_frames_of_a_classic_image_have_no_place(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    with pytest.raises(NotAVolume, match="only Enhanced MR places each frame"):
        planes_of(read_instance(change(path, NumberOfFrames=2)))


@pytest.mark.parametrize(
    "stated",
    [
        {"RescaleSlope": 2},
        {"RescaleIntercept": 5},
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"RescaleSlope": [1, 2], "RescaleIntercept": 0},
        {"RescaleSlope": 1, "RescaleIntercept": 0, "ModalityLUTSequence": [Dataset()]},
    ],
)
def test_a_rescale_that_cannot_be_applied_is_none(tmp_path: Path, stated: dict[str, object]) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    (plane,) = planes_of(read_instance(change(path, **stated)))
    assert (plane.rescale, plane.rescaled) == (None, True)


@pytest.mark.parametrize(
    "written", [b"1,6000", b"1.6\\2.", b"1.6E+x", b"nan   ", b"\xff\xfe\xff\xfe\xff\xfe"]
)
def test_a_malformed_slope_is_not_taken_for_an_absent_one(tmp_path: Path, written: bytes) -> None:
    (path,) = flair_series(tmp_path, slices=1, RescaleSlope="1.6000", RescaleIntercept=0)
    path.write_bytes(path.read_bytes().replace(b"1.6000", written))
    (plane,) = planes_of(read_instance(path))
    assert (plane.rescale, plane.rescaled) == (None, True)


def test_a_slope_that_was_dropped_as_malformed_still_counts_as_stated(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    instance = replace(read_instance(path), malformed=frozenset({"RescaleSlope"}))
    assert planes_of(instance)[0].rescale is None


def test_an_enhanced_image_may_state_its_rescale_at_the_root(tmp_path: Path) -> None:
    def to_root(ds: Dataset) -> None:
        for group in (*ds.SharedFunctionalGroupsSequence, *ds.PerFrameFunctionalGroupsSequence):
            if "PixelValueTransformationSequence" in group:
                del group.PixelValueTransformationSequence
        ds.RescaleSlope, ds.RescaleIntercept = 3, 1

    path = change(enhanced_flair(tmp_path / "e.dcm", slices=3), to_root)
    assert {plane.rescale for plane in planes_of(read_instance(path))} == {(3.0, 1.0)}


def test_a_mapping_to_real_world_values_is_a_scale_where_no_rescale_is_stated(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    mapping = Dataset()
    mapping.RealWorldValueSlope = 1.6
    (plane,) = planes_of(read_instance(change(path, RealWorldValueMappingSequence=[mapping])))
    assert dict(plane.contrast)["RealWorldValueSlope"] == "1.6"
    (plane,) = planes_of(read_instance(change(path, RescaleSlope=1.6, RescaleIntercept=0)))
    assert dict(plane.contrast)["RealWorldValueSlope"] == ""
