from pathlib import Path

import numpy as np
import pytest

from msnode.domain.imaging import Series
from msnode.errors import NotAVolume, NotReadable, Rejected
from msnode.series.volume import group_series, read_instance, to_volume
from support.dicom_files import change, change_all, enhanced_flair, flair_series, head_pixels
from support.environment import shared_data


def series_of(paths: list[Path]) -> Series:
    (series,) = group_series(read_instance(path) for path in paths)
    return series


def refusal(paths: list[Path]) -> str:
    with pytest.raises(NotAVolume) as caught:
        to_volume(series_of(paths))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal"])
def test_every_voxel_lies_where_its_header_puts_it(tmp_path: Path, orientation: str) -> None:
    paths = flair_series(
        tmp_path, slices=7, rows=12, columns=10, spacing=(3.0, 0.8, 0.5), orientation=orientation
    )
    source = to_volume(series_of(list(reversed(paths))))
    grid = source.volume.grid
    assert grid.spacing == pytest.approx((3.0, 0.8, 0.5))
    assert np.array_equal(source.volume.data, head_pixels(7, 12, 10))
    assert source.volume.data.dtype == np.float32
    assert not source.volume.data.flags.writeable
    for k, frame in enumerate(source.frames):
        header = frame.instance.header
        along_row, along_column = np.array(header.ImageOrientationPatient).reshape(2, 3)
        corner = np.array(header.ImagePositionPatient)
        place = corner + 11 * 0.8 * along_column + 9 * 0.5 * along_row
        assert np.allclose(grid.to_lps(np.array([[k, 0, 0], [k, 11, 9]])), [corner, place], atol=1e-3)


def test_oblique_grid_is_exact(tmp_path: Path) -> None:
    angle = np.radians(20)
    along_column = np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.array([0, -np.sin(angle), np.cos(angle)])
    paths = flair_series(tmp_path, slices=5, rows=8, columns=8)
    for k, path in enumerate(paths):
        change(
            path,
            ImageOrientationPatient=[f"{v:.6f}" for v in (1, 0, 0, *along_column)],
            ImagePositionPatient=[f"{v:.4f}" for v in normal * 6 * k],
        )
    grid = to_volume(series_of(paths)).volume.grid
    expected = np.column_stack([normal * 6, along_column * 0.9, [0.9, 0, 0]])
    assert np.allclose(grid.affine[:3, :3], expected, atol=1e-4)


def test_enhanced_geometry_and_rescale_come_from_functional_groups(tmp_path: Path) -> None:
    path = enhanced_flair(tmp_path / "e.dcm", slices=9)

    def reverse_frames(ds) -> None:
        groups = list(ds.PerFrameFunctionalGroupsSequence)
        ds.PerFrameFunctionalGroupsSequence = groups[::-1]

    source = to_volume(series_of([path]))
    assert source.volume.grid.spacing == pytest.approx((1.2, 0.9, 0.9))
    assert np.array_equal(source.volume.data, head_pixels(9, 32, 40) * 2.0 + 5)
    assert [f.frame_number for f in source.frames] == list(range(1, 10))
    turned = to_volume(series_of([change(path, reverse_frames)]))
    assert [f.frame_number for f in turned.frames] == list(range(9, 0, -1))


def test_classic_rescale_is_applied_per_slice(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=4, rows=8, columns=8, RescaleSlope=1, RescaleIntercept=0)
    change(paths[2], RescaleSlope=2, RescaleIntercept=-3)
    data = to_volume(series_of(paths)).volume.data
    assert np.array_equal(data[2], head_pixels(4, 8, 8)[2] * 2.0 - 3)
    assert np.array_equal(data[1], head_pixels(4, 8, 8)[1])


def test_bits_above_bits_stored_are_no_values(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=4, rows=8, columns=8)
    dirty = (head_pixels(4, 8, 8)[1] | 0xA000).astype("<u2").tobytes()
    change(paths[1], PixelData=dirty)
    assert np.array_equal(to_volume(series_of(paths)).volume.data[1], head_pixels(4, 8, 8)[1])


def test_signed_values_stay_signed(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=3, rows=2, columns=2)
    for path in paths:
        values = np.array([-5, 7, -2048, 2047], dtype="<i2") & 0x0FFF
        change(path, PixelRepresentation=1, PixelData=values.tobytes())
    assert to_volume(series_of(paths)).volume.data[0].ravel().tolist() == [-5, 7, -2048, 2047]


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("Modality", "CT", "Modality is CT: MR is needed"),
        ("PhotometricInterpretation", "MONOCHROME1", "MONOCHROME2 is needed"),
        ("PhotometricInterpretation", "RGB", "Photometric Interpretation is RGB"),
        ("SamplesPerPixel", 3, "Samples per Pixel is 3"),
        ("BitsAllocated", 12, "Bits Allocated is 12"),
        ("HighBit", 20, "High Bit 20"),
        ("Rows", None, "Rows is missing"),
        ("Columns", 0, "Columns is 0"),
        ("Rows", 32, "several matrix sizes"),
        ("PixelSpacing", None, "no Pixel Spacing"),
        ("PixelSpacing", [0, 0], "not positive"),
        ("PixelSpacing", [0.9, 1.2], "Pixel Spacing differs"),
        ("ImageOrientationPatient", None, "no Image Orientation (Patient)"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "two perpendicular unit vectors"),
        ("ImageOrientationPatient", [2, 0, 0, 0, 1, 0], "two perpendicular unit vectors"),
        ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], "mixed orientations"),
        ("ImagePositionPatient", None, "no Image Position (Patient)"),
        ("ImagePositionPatient", ["0", "0"], "no Image Position (Patient)"),
        ("FrameOfReferenceUID", None, "no Frame of Reference UID"),
        ("FrameOfReferenceUID", "1.2.3", "2 Frames of Reference"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], "MOSAIC"),
        ("NumberOfFrames", 2, "classic image"),
        ("PixelData", None, "no pixel data"),
        ("PixelData", b"", "no pixel data"),
        ("RescaleSlope", 2, "1 of 5 slices state a rescale that cannot be applied"),
    ],
)
def test_one_wrong_instance_refuses_the_volume(
    tmp_path: Path, attribute: str, value: object, says: str
) -> None:
    paths = flair_series(tmp_path, slices=5, rows=8, columns=8)
    change(paths[2], **{attribute: value})
    assert says in refusal(paths)


def test_values_beyond_floating_point_are_refused(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=3, rows=8, columns=8, RescaleSlope="1e300", RescaleIntercept=0)
    assert "not finite" in refusal(paths)


def test_an_unreadable_number_of_frames_is_not_one_frame(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=3, rows=8, columns=8, NumberOfFrames=12)
    tag, value = b"\x28\x00\x08\x00IS\x02\x00", b"12"
    paths[1].write_bytes(paths[1].read_bytes().replace(tag + value, tag + b"1,"))
    assert "NumberOfFrames cannot be read" in refusal(paths)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices_are_counted(tmp_path: Path, count: int) -> None:
    assert f"{count} slice" in refusal(flair_series(tmp_path, slices=count))


def test_missing_slice_says_where(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=9)
    said = refusal([path for k, path in enumerate(paths) if k != 4])
    assert "a slice is missing: 12.00 mm between slices 4 and 5" in said
    assert "6.00 mm elsewhere" in said


def test_missing_slice_of_four_is_seen(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=4)
    assert "12.00 mm" in refusal([paths[0], paths[1], paths[3]])


def test_uneven_slices_are_refused_and_rounding_is_not(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=6)
    change(paths[3], ImagePositionPatient=["-28.35", "-28.35", "3.05"])
    to_volume(series_of(paths))
    change(paths[3], ImagePositionPatient=["-28.35", "-28.35", "4"])
    assert "unevenly spaced" in refusal(paths)


def test_two_slices_at_one_place_say_what_differs(tmp_path: Path) -> None:
    paths = flair_series(tmp_path / "a", slices=5)
    again = flair_series(tmp_path / "b", slices=5)
    for k, path in enumerate(again):
        change(path, EchoTime=30, SOPInstanceUID=f"1.2.3.{k}")
    said = refusal([*paths, *again])
    assert "two slices at one place (5 times" in said
    assert "differ in EchoTime" in said


def test_sheared_stack_names_the_tilt(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=5)
    for k, path in enumerate(paths):
        change(path, ImagePositionPatient=[0, k * 6 * np.tan(np.radians(10)), k * 6])
    assert "tilt about 10.0 degrees" in refusal(paths)


def test_enhanced_with_two_echoes_is_refused(tmp_path: Path) -> None:
    def second_echo(ds) -> None:
        groups = ds.PerFrameFunctionalGroupsSequence
        for k in range(6):
            groups[6 + k].PlanePositionSequence = groups[k].PlanePositionSequence
            groups[6 + k].FrameContentSequence[0].TemporalPositionIndex = 2

    path = change(enhanced_flair(tmp_path / "e.dcm", slices=12), second_echo)
    assert "TemporalPositionIndex" in refusal([path])


def test_enhanced_needs_a_group_for_each_frame(tmp_path: Path) -> None:
    def lose_groups(ds) -> None:
        ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:5]

    path = change(enhanced_flair(tmp_path / "e.dcm", slices=12), lose_groups)
    assert "5 per-frame functional groups for 12 frames" in refusal([path])


def test_size_is_checked_before_decoding(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=5, rows=4, columns=4)
    change_all(paths, Rows=60000, Columns=60000)
    assert "voxels: at most" in refusal(paths)


def test_not_dicom_is_not_readable(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not an image")
    with pytest.raises(NotReadable, match="not DICOM"):
        read_instance(path)


def test_absent_file_is_not_readable(tmp_path: Path) -> None:
    with pytest.raises(NotReadable, match="cannot be read"):
        read_instance(tmp_path / "gone.dcm")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_truncated_file_is_rejected_wherever_it_ends(tmp_path: Path, share: float) -> None:
    paths = flair_series(tmp_path, slices=4, rows=16, columns=16)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(Rejected):
        to_volume(series_of(paths))


def test_header_without_uids_is_not_readable(tmp_path: Path) -> None:
    (path,) = flair_series(tmp_path, slices=1)
    change(path, SeriesInstanceUID=None)
    with pytest.raises(NotReadable, match="SeriesInstanceUID"):
        read_instance(path)


def test_lossy_sources_are_warned_about(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=4)
    change_all(paths[:3], LossyImageCompression="01", LossyImageCompressionRatio=8)
    (warning,) = to_volume(series_of(paths)).warnings
    assert "lossy compressed (3 of 4, ratio 8)" in warning


def test_series_are_grouped_in_one_order(tmp_path: Path) -> None:
    first = flair_series(tmp_path / "a", slices=3, description="A")
    second = flair_series(tmp_path / "b", slices=3, description="B")
    instances = [read_instance(path) for path in [*first, *second]]
    orders = [
        [(s.series_instance_uid, [i.digest for i in s.instances]) for s in group_series(sequence)]
        for sequence in (instances, instances[::-1], instances[::2] + instances[1::2])
    ]
    assert orders[0] == orders[1] == orders[2]
    assert [len(s) for _, s in orders[0]] == [3, 3]


def claimed_mr_in_a_frame_of_reference(folder: str) -> Series:
    """The shared files carry no Frame of Reference and some are CT: this isolates their geometry."""
    series = series_of(sorted(p for p in shared_data(folder).iterdir() if p.is_file()))
    for instance in series.instances:
        instance.header.Modality = "MR"
        instance.header.FrameOfReferenceUID = "1.2.3"
    return series


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "as_sent", "geometry"),
    [
        ("gantrytilting/001", "Modality is CT", "sheared stack"),
        ("notavolume/001", "Modality is CT", "two slices at one place"),
        ("slicecount/001", "2 slices", "2 slices"),
        ("sliceincrement/001", "Modality is CT", "a slice is missing: 10.00 mm between slices 3 and 4"),
        ("sliceincrement/002", "Modality is CT", "a slice is missing"),
        ("sliceorientation/001", "mixed orientations", "mixed orientations"),
    ],
)
def test_real_failing_folders_are_refused_for_their_reason(folder: str, as_sent: str, geometry: str) -> None:
    files = sorted(shared_data(f"dicom/icometrix/failing/{folder}").iterdir())
    assert as_sent in refusal(files)
    with pytest.raises(NotAVolume, match=geometry):
        to_volume(claimed_mr_in_a_frame_of_reference(f"dicom/icometrix/failing/{folder}"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "shape", "spacing"),
    [
        ("siemens/anatomical/001", (4, 256, 256), (1, 1, 1)),
        ("ge/anatomical/001", (4, 256, 256), (1, 1, 1)),
        ("philips/anatomical/001", (4, 240, 240), (0.6, 1.0417, 1.0417)),
        ("philips/anatomical/001_implicit", (4, 240, 240), (0.6, 1.0417, 1.0417)),
        ("hitachi/anatomical/001", (4, 64, 64), (4, 2.34375, 2.34375)),
        ("hyperfine/anatomical/001", (8, 138, 112), (5, 1.61, 1.59)),
        ("philips_enhanced/anatomical/001", (8, 256, 256), (1.2, 1, 1)),
        ("siemens_multiframe/anatomical/001", (8, 256, 256), (0.9, 0.9375, 0.9375)),
    ],
)
def test_real_vendor_series_become_volumes(folder: str, shape: tuple, spacing: tuple) -> None:
    source = to_volume(claimed_mr_in_a_frame_of_reference(f"dicom/icometrix/{folder}"))
    assert source.volume.data.shape == shape
    assert source.volume.grid.spacing == pytest.approx(spacing, abs=1e-3)
    assert source.volume.data.max() > 0


@pytest.mark.data
def test_real_enhanced_time_series_is_refused() -> None:
    files = sorted(shared_data("dicom/dcm_qa_enh/In/Siemens/XA10").iterdir())
    assert "TemporalPositionIndex" in refusal(files)
