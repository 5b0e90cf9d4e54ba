import re
from dataclasses import replace
from io import BytesIO

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from msnode.domain.findings import Findings, LesionMap
from msnode.domain.imaging import Grid
from msnode.domain.provenance import Output
from msnode.encode import encode_seg, to_bytes
from msnode.encode.codes import lesion_colour
from msnode.encode.kinds import segment_number
from msnode.encode.planes import plane_of
from support.dicom_files import enhanced_flair, flair_series
from support.environment import shared_data
from support.readings import MARK_BELOW, provenance, read
from support.segmentations import segments_of_frames

ICOMETRIX = "dicom/icometrix"
LOADABLE = ["ge", "hitachi", "philips", "siemens", "hyperfine", "philips_enhanced", "siemens_multiframe"]


def written(reading, tmp_path):
    output = encode_seg(reading.source, reading.lesion_map, reading.findings, provenance())
    path = tmp_path / "seg.dcm"
    path.write_bytes(to_bytes(output))
    return path


def labels_from_positions(path, grid):
    """The label map put together from each frame's own position, by pydicom alone."""
    ds = dcmread(path)
    frames = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    size = int(ds.Rows) * int(ds.Columns)
    frames = frames[: int(ds.NumberOfFrames) * size].reshape(-1, ds.Rows, ds.Columns)
    labels = np.zeros(grid.shape, np.int32)
    shared = ds.SharedFunctionalGroupsSequence[0]
    along = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    np.testing.assert_allclose(along[0] * spacing[1], grid.affine[:3, 2], atol=1e-4)
    np.testing.assert_allclose(along[1] * spacing[0], grid.affine[:3, 1], atol=1e-4)
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        index = np.linalg.solve(grid.affine, [*position, 1.0])[:3]
        np.testing.assert_allclose(index[1:], 0, atol=1e-2)
        identification = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        labels[round(index[0])][frame == 1] = identification[0].ReferencedSegmentNumber
    return labels


def check_read_back(reading, tmp_path):
    path = written(reading, tmp_path)
    grid = reading.source.volume.grid
    np.testing.assert_array_equal(labels_from_positions(path, grid), reading.lesion_map.labels)
    seg = highdicom.seg.segread(path)
    uids = [f.instance.sop_instance_uid for f in reading.source.frames]
    stored = dcmread(path)
    named = {
        i.ReferencedSOPInstanceUID for i in stored.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert named == set(uids)
    volume = seg.get_volume(combine_segments=True)
    first = reading.source.volume.grid.affine
    np.testing.assert_allclose(
        np.abs(volume.direction.T @ first[:3, :3]).max(axis=0), grid.spacing, rtol=1e-3
    )
    assert np.bincount(volume.array.ravel())[1:].tolist() == [
        f.lesion.voxel_count for f in reading.findings.lesions
    ]
    return seg


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal"])
@pytest.mark.parametrize("reverse", [False, True])
def test_voxels_come_back_at_their_positions_in_every_orientation(orientation, reverse, tmp_path):
    paths = flair_series(tmp_path / "in", slices=7, rows=20, columns=28, orientation=orientation)
    if reverse:  # instance numbers and files against the stack
        for number, path in enumerate(reversed(paths), start=1):
            ds = dcmread(path)
            ds.InstanceNumber = number
            ds.save_as(path)
        paths.reverse()
    check_read_back(read(paths, 4), tmp_path)


def test_a_mirrored_stack_keeps_left_and_right(tmp_path):
    paths = flair_series(tmp_path / "in", slices=6, rows=20, columns=28)
    for path in paths:
        ds = dcmread(path)
        x, y, z = map(float, ds.ImagePositionPatient)
        ds.ImageOrientationPatient = ["-1", "0", "0", "0", "1", "0"]
        ds.ImagePositionPatient = [str(-x), str(y), str(z)]
        ds.save_as(path)
    reading = read(paths, 4)
    assert reading.source.volume.grid.affine[0, 2] < 0
    check_read_back(reading, tmp_path)


@pytest.mark.parametrize("orientation", ["axial", "sagittal"])
def test_an_enhanced_source_is_referenced_by_frame(orientation, tmp_path):
    reading = read([enhanced_flair(tmp_path / "in.dcm", orientation=orientation)], 3)
    check_read_back(reading, tmp_path)
    ds = dcmread(tmp_path / "seg.dcm")
    assert len(ds.SourceImageSequence) == 1
    for group in ds.PerFrameFunctionalGroupsSequence:
        position = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        (item,) = group.DerivationImageSequence[0].SourceImageSequence
        (frame,) = [f for f in reading.source.frames if f.frame_number == item.ReferencedFrameNumber]
        assert list(plane_of(frame).position) == position
        assert item.ReferencedSOPClassUID == frame.instance.sop_class_uid


def test_each_frame_names_the_classic_instance_at_its_position(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=6, rows=20, columns=20), 3)
    ds = dcmread(written(reading, tmp_path))
    by_uid = {f.instance.sop_instance_uid: f.instance.header for f in reading.source.frames}
    for group in ds.PerFrameFunctionalGroupsSequence:
        (item,) = group.DerivationImageSequence[0].SourceImageSequence
        source = by_uid[item.ReferencedSOPInstanceUID]
        assert group.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        assert "ReferencedFrameNumber" not in item


@pytest.mark.data
@pytest.mark.parametrize("vendor", LOADABLE)
def test_real_vendor_headers(vendor, tmp_path):
    paths = []
    for source in sorted(shared_data(f"{ICOMETRIX}/{vendor}/anatomical/001").glob("*")):
        ds = dcmread(source)
        ds.FrameOfReferenceUID = "2.25.4711"  # taken out when these files were made anonymous
        paths.append(tmp_path / source.name)
        ds.save_as(paths[-1])
    reading = read(paths, 2)
    check_read_back(reading, tmp_path)
    header = reading.source.frames[0].instance.header
    for output in reading.outputs():
        again = dcmread(BytesIO(to_bytes(output)))
        assert again.PatientID == header.PatientID
        assert again.StudyInstanceUID == header.StudyInstanceUID


def test_each_lesion_is_a_described_segment(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=24, columns=24), 3)
    ds = dcmread(written(reading, tmp_path))
    assert ds.SegmentationType == "BINARY"
    assert ds.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert ds.SeriesDescription == "MS AI SEG"
    assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == reading.source.series.series_instance_uid
    for segment, finding in zip(ds.SegmentSequence, reading.findings.lesions, strict=True):
        assert segment.SegmentNumber == finding.lesion.label
        millilitres = finding.lesion.volume_mm3 / 1000
        assert segment.SegmentLabel == f"{finding.tracking_id}, {millilitres:.3f} ml"
        assert segment.TrackingID == finding.tracking_id
        assert segment.TrackingUID == finding.tracking_uid
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "301766008"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("flair-unet", "1.2.3")
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert f"{finding.lesion.volume_mm3:.1f} mm3" in segment.SegmentDescription
        shown = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
        np.testing.assert_allclose(shown, lesion_colour(finding.lesion.label), atol=3)


def test_a_segment_says_how_sure_it_is_and_marks_low_confidence(tmp_path):
    paths = flair_series(tmp_path / "in", slices=5, rows=24, columns=24)
    reading = read(paths, 3, confidences=[0.812, 0.3])
    output = encode_seg(
        reading.source, reading.lesion_map, reading.findings, provenance(), mark_below=MARK_BELOW
    )
    sure, unsure, unrated = output.dataset.SegmentSequence
    assert re.fullmatch(r"Lesion 1, 0\.\d+ ml, 81 %", sure.SegmentLabel)
    assert sure.SegmentDescription.endswith(" mm3, confidence 0.81")
    assert re.fullmatch(r"Lesion 2, 0\.\d+ ml, 30 %, low confidence", unsure.SegmentLabel)
    assert unsure.TrackingID == "Lesion 2"
    assert unsure.SegmentDescription.endswith(" mm3, confidence 0.30, low confidence")
    assert re.fullmatch(r"Lesion 3, 0\.\d+ ml", unrated.SegmentLabel)
    assert unrated.SegmentDescription.endswith(" mm3")


def test_a_label_has_64_characters_and_keeps_its_numbers(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=24, columns=24), 1, confidences=[0.3])
    (finding,) = reading.findings.lesions
    large = replace(finding.lesion, volume_mm3=12345.6)
    findings = Findings((replace(finding, lesion=large, tracking_id="x" * 100),))
    ds = encode_seg(reading.source, reading.lesion_map, findings, provenance(), mark_below=MARK_BELOW).dataset
    label = ds.SegmentSequence[0].SegmentLabel
    assert len(label) == 64
    assert label.endswith("x, 12.35 ml, 30 %, low confidence")
    assert ds.SegmentSequence[0].TrackingID == "x" * 100


def test_one_segment_holds_all_lesions_and_says_how_many(tmp_path):
    paths = flair_series(tmp_path / "in", slices=5, rows=24, columns=24)
    reading = read(paths, 3, confidences=[0.812, 0.3])
    output = encode_seg(
        reading.source, reading.lesion_map, reading.findings, provenance(), form="single",
        mark_below=MARK_BELOW,
    )  # fmt: skip
    ds = output.dataset
    (segment,) = ds.SegmentSequence
    assert ds.SegmentationType == "BINARY"
    assert segment.SegmentLabel == "MS lesions (3)"
    total = reading.findings.total_volume_mm3
    assert segment.SegmentDescription == (
        f"3 lesions, total volume {total:.1f} mm3 ({total / 1000:.2f} ml), 1 of low confidence"
    )
    assert segment.TrackingID == "MS lesions"
    assert segment.TrackingUID not in {f.tracking_uid for f in reading.findings.lesions}
    assert segments_of_frames(ds) == [1] * 5


def test_all_lesions_of_a_series_keep_their_tracking_uid_in_a_later_revision(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=24, columns=24), 2)
    other = read(flair_series(tmp_path / "other", slices=5, rows=24, columns=24, study="2"), 2)

    def tracking_uid(of, made_by):
        return encode_seg(
            of.source, of.lesion_map, of.findings, made_by, form="single"
        ).dataset.SegmentSequence[0].TrackingUID  # fmt: skip

    assert tracking_uid(reading, provenance()) == tracking_uid(reading, provenance(revision=1))
    assert tracking_uid(reading, provenance()) != tracking_uid(other, provenance())


def label_map_of(reading):
    return encode_seg(
        reading.source, reading.lesion_map, reading.findings, provenance(), form="labelmap"
    ).dataset


def test_a_label_map_describes_each_value_that_it_holds(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=64, columns=64), 3)
    ds = label_map_of(reading)
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert ds.SegmentationType == "LABELMAP"
    assert ds.BitsAllocated == 8
    assert [s.SegmentNumber for s in ds.SegmentSequence] == [0, 1, 2, 3]
    assert ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Background"
    assert [s.TrackingUID for s in ds.SegmentSequence[1:]] == [
        f.tracking_uid for f in reading.findings.lesions
    ]
    assert "SegmentIdentificationSequence" not in ds.PerFrameFunctionalGroupsSequence[0]


def test_a_label_map_is_compressed_without_loss(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=64, columns=64), 3)
    ds = dcmread(BytesIO(to_bytes(Output("seg", label_map_of(reading)))))
    assert ds.file_meta.TransferSyntaxUID == RLELossless
    assert len(ds.PixelData) < 5 * 64 * 64
    np.testing.assert_array_equal(in_slice_order(ds, reading), reading.lesion_map.labels)


def test_more_than_255_lesions_take_two_bytes_in_a_label_map(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=20, rows=128, columns=128), 256)
    ds = dcmread(BytesIO(to_bytes(Output("seg", label_map_of(reading)))))
    assert ds.BitsAllocated == 16
    np.testing.assert_array_equal(in_slice_order(ds, reading), reading.lesion_map.labels)


def in_slice_order(ds, reading):
    """Frames as they lie in the source, (slice, row, column); one for each slice."""
    order = [f.instance.sop_instance_uid for f in reading.source.frames]
    found = [
        order.index(g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        for g in ds.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(found) == list(range(len(order)))
    return ds.pixel_array[np.argsort(found)]


@pytest.mark.parametrize(("form", "every_plane"), [("single", True), ("labelmap", True), ("lesions", False)])
def test_only_segments_of_lesions_skip_planes(form, every_plane, tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=9, rows=24, columns=24), 2)
    ds = encode_seg(reading.source, reading.lesion_map, reading.findings, provenance(), form=form).dataset
    touched = [np.count_nonzero(reading.lesion_map.labels.any(axis=(1, 2)))]
    touched += [np.count_nonzero((reading.lesion_map.labels == n).any(axis=(1, 2))) for n in (1, 2)]
    assert touched[0] < 9
    assert ds.NumberOfFrames == (9 if every_plane else sum(touched[1:]))
    assert ds.get("DimensionOrganizationType") == ("3D" if every_plane else None)


@pytest.mark.parametrize("size", [8, 9])
def test_pixel_data_is_padded_with_zeros(size, tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=size, columns=size), 1)
    ds = encode_seg(
        reading.source, reading.lesion_map, reading.findings, provenance(), form="single"
    ).dataset  # fmt: skip
    assert len(ds.PixelData) == -(-5 * size * size // 16) * 2
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    assert bits.sum() == np.count_nonzero(reading.lesion_map.labels)


@pytest.mark.parametrize("form", ["lesions", "single", "labelmap"])
def test_reports_find_each_lesion_in_the_segment_that_is_named(form, tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=24, columns=24), 3)
    ds = encode_seg(reading.source, reading.lesion_map, reading.findings, provenance(), form=form).dataset
    described = {s.SegmentNumber for s in ds.SegmentSequence}
    assert {segment_number(form, f.lesion.label) for f in reading.findings.lesions} == described - {0}


def test_no_segmentation_without_a_lesion(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=4, rows=16, columns=16), 0)
    with pytest.raises(ValueError, match="at least one lesion"):
        encode_seg(reading.source, reading.lesion_map, Findings(()), provenance())
    assert "seg" not in {o.kind for o in reading.outputs()}


def test_a_map_on_another_grid_is_refused(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=4, rows=16, columns=16), 1)
    affine = reading.source.volume.grid.affine.copy()
    affine[0, 3] += 1
    moved = LesionMap(
        reading.lesion_map.labels, Grid(reading.lesion_map.grid.shape, affine), reading.lesion_map.lesions
    )
    with pytest.raises(ValueError, match="grid"):
        encode_seg(reading.source, moved, reading.findings, provenance())


@pytest.mark.parametrize("thickness", [None, "inf", "0"])
def test_a_slice_thickness_that_says_nothing_does_not_matter(tmp_path, thickness):
    paths = flair_series(tmp_path / "in", slices=5, rows=20, columns=20, SliceThickness=thickness)
    seg = check_read_back(read(paths, 2), tmp_path)
    assert float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == 6.0


def test_lossy_compression_of_the_source_stays_marked(tmp_path):
    lossy = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "12.5",
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    reading = read(flair_series(tmp_path / "in", slices=4, rows=16, columns=16, **lossy), 1)
    for output in reading.outputs():
        if output.kind != "sr":
            assert output.dataset.LossyImageCompression == "01"
            assert float(output.dataset.LossyImageCompressionRatio) == 12.5


@pytest.mark.parametrize("form", ["lesions", "single", "labelmap"])
def test_the_same_reading_gives_the_same_bytes(form, tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=64, columns=64), 3)
    made = [
        to_bytes(encode_seg(reading.source, reading.lesion_map, reading.findings, provenance(), form=form))
        for _ in range(2)
    ]
    assert made[0] == made[1]
