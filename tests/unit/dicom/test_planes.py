from pathlib import Path

import pytest

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
    assert (plane.slope, plane.intercept) == (2.0, -3.0)


def test_what_the_header_does_not_say_is_none(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    change(path, ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)
    (plane,) = planes_of(read_instance(path))
    assert plane.position is plane.orientation is plane.spacing is None
    assert (plane.slope, plane.intercept) == (1.0, 0.0)


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
