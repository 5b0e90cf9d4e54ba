from pathlib import Path

import pytest
from pydicom import Dataset

from msnode.domain.imaging import Series
from msnode.errors import NotAVolume
from msnode.series.volume import group_series, read_instance, to_volume
from support.dicom_files import change, change_all, enhanced_flair, flair_series

SIZE = {"rows": 16, "columns": 16}


def series_of(paths: list[Path]) -> Series:
    (series,) = group_series(read_instance(path) for path in paths)
    return series


def warnings(paths: list[Path]) -> tuple[str, ...]:
    return to_volume(series_of(paths)).warnings


@pytest.mark.parametrize("every", [2, 3])
def test_an_even_stack_that_lacks_slices_is_refused(tmp_path: Path, every: int) -> None:
    paths = flair_series(tmp_path, slices=12, SliceThickness=6, **SIZE)
    said = rf"slices are missing: {6 * every}.00 mm .* Spacing Between Slices \(0018,0088\) says 6.00 mm"
    with pytest.raises(NotAVolume, match=said):
        to_volume(series_of(paths[::every]))


def test_an_enhanced_stack_keeps_its_promises_too(tmp_path: Path) -> None:
    def closer(ds: Dataset) -> None:
        measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SliceThickness, measures.SpacingBetweenSlices = 0.6, 0.6

    path = change(enhanced_flair(tmp_path / "e.dcm", slices=9), closer)
    with pytest.raises(NotAVolume, match=r"slices are missing: 1.20 mm .* says 0.60 mm"):
        to_volume(series_of([path]))


@pytest.mark.parametrize(
    ("thickness", "spacing", "said"),
    [
        (6, 6, ""),
        (5, 6, ""),
        (5, 6.2, ""),
        (5, 1, ""),  # the gap instead of the distance of centres
        (6, -6, ""),  # some systems sign it
        (5, 0, ""),
        (5, None, ""),
        (5, 4, "6.00 mm apart, Spacing Between Slices (0018,0088) says 4.00 mm"),
        (5, 3, "6.00 mm apart, Spacing Between Slices (0018,0088) says 3.00 mm"),  # slices that overlap
        (3, None, "6.00 mm apart, Slice Thickness (0018,0050) is 3.00 mm"),
    ],
)
def test_what_the_step_promises(tmp_path: Path, thickness: float, spacing: float | None, said: str) -> None:
    paths = flair_series(tmp_path, slices=6, SliceThickness=thickness, SpacingBetweenSlices=spacing, **SIZE)
    found = warnings(paths)
    assert [w for w in found if said not in w] == []
    assert len(found) == bool(said)


@pytest.mark.parametrize("keyword", ["ImagesInAcquisition", "NumberOfSlices"])
def test_fewer_slices_than_promised_are_said(tmp_path: Path, keyword: str) -> None:
    paths = flair_series(tmp_path, slices=8, **SIZE, **{keyword: 8})
    assert warnings(paths) == ()
    assert warnings(paths[2:]) == (
        f"6 slices came where {keyword} says 8: a part of the brain may be missing",
    )


def concatenated(folder: Path, *, offsets: bool = True, total: int | None = 3) -> list[Path]:
    """Three parts of a stack of 12 frames."""
    paths = []
    for part in range(3):

        def keep(ds: Dataset, part: int = part) -> None:
            frame = len(ds.PixelData) // 12
            ds.PixelData = ds.PixelData[4 * part * frame : 4 * (part + 1) * frame]
            ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[4 * part : 4 * part + 4]
            ds.NumberOfFrames, ds.SOPInstanceUID = 4, f"{ds.SOPInstanceUID[:30]}.{part + 1}"
            ds.ConcatenationUID, ds.InConcatenationNumber = "1.2.3", part + 1
            if offsets:
                ds.ConcatenationFrameOffsetNumber = 4 * part
            if total is not None:
                ds.InConcatenationTotalNumber = total

        paths.append(change(enhanced_flair(folder / f"{part}.dcm", slices=12), keep))
    return paths


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_concatenation_without_a_part_is_refused(tmp_path: Path, missing: int) -> None:
    paths = concatenated(tmp_path)
    assert to_volume(series_of(paths)).volume.data.shape[0] == 12
    with pytest.raises(NotAVolume, match=r"a slice is missing|2 of 3 parts of a concatenation"):
        to_volume(series_of([p for k, p in enumerate(paths) if k != missing]))


def test_a_first_part_that_lacks_is_seen_without_a_total(tmp_path: Path) -> None:
    paths = concatenated(tmp_path, offsets=False, total=None)
    with pytest.raises(NotAVolume, match="2 of 3 parts of a concatenation"):
        to_volume(series_of(paths[1:]))


def test_frames_that_lack_within_a_part_are_seen(tmp_path: Path) -> None:
    paths = concatenated(tmp_path)
    change_all(paths[1:], ConcatenationFrameOffsetNumber=6)
    with pytest.raises(NotAVolume, match="begins at frame 7, where frame 5 is next"):
        to_volume(series_of(paths))


def split(folder: Path, *, between: bool, **other: object) -> list[Series]:
    paths = flair_series(folder, slices=12, SpacingBetweenSlices=None, **SIZE)
    apart = paths[1::2] if between else paths[8:]
    change_all(apart, SeriesInstanceUID="1.2.3", SeriesNumber=302, **other)
    return list(group_series(read_instance(path) for path in paths))


@pytest.mark.parametrize("between", [False, True])
def test_a_series_that_continues_the_stack_is_named(tmp_path: Path, *, between: bool) -> None:
    study = split(tmp_path, between=between)
    larger = max(study, key=lambda s: (len(s.instances), s.series_instance_uid != "1.2.3"))
    with pytest.raises(NotAVolume, match=r"of 12 slices of one stack: series 1\.2\.3 has the others"):
        to_volume(larger, study)


@pytest.mark.parametrize("other", [{"EchoTime": 30}, {"FrameOfReferenceUID": "1.2.4"}, {"Modality": "CT"}])
def test_another_contrast_or_place_continues_nothing(tmp_path: Path, other: dict[str, object]) -> None:
    study = split(tmp_path, between=False, **other)
    larger = max(study, key=lambda s: len(s.instances))
    assert to_volume(larger, study).volume.data.shape[0] == 8


def test_the_same_stack_again_continues_nothing(tmp_path: Path) -> None:
    one, again = flair_series(tmp_path / "a", **SIZE), flair_series(tmp_path / "b", series_number=302, **SIZE)
    study = group_series(read_instance(path) for path in [*one, *again])
    assert to_volume(study[0], study).warnings == ()


def test_the_same_contrast_again_half_a_step_aside_continues_nothing(tmp_path: Path) -> None:
    one = flair_series(tmp_path / "a", slices=12, **SIZE)
    aside = flair_series(tmp_path / "b", slices=13, series_number=302, **SIZE)
    study = group_series(read_instance(path) for path in [*one, *aside])
    assert [to_volume(series, study).warnings for series in study] == [(), ()]
