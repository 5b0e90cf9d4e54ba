"""A SEG read back by its own positions, and matched with the truth."""

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from msnode.demo.found import compare, read_seg
from msnode.demo.phantom import Phantom, PlantedLesion
from msnode.domain.imaging import Grid, Volume
from msnode.errors import NotAVolume

SHAPE = (5, 16, 16)
SPACING = (7.0, 0.9, 0.8)


def grid():
    affine = np.zeros((4, 4))
    affine[:3, 0] = [0, -SPACING[0] * np.sin(0.1), SPACING[0] * np.cos(0.1)]
    affine[:3, 1] = [0, SPACING[1] * np.cos(0.1), SPACING[1] * np.sin(0.1)]
    affine[0, 2] = SPACING[2]
    affine[:, 3] = [-20, 30, 5, 1]
    return Grid(SHAPE, affine)


def sequence_item(**values):
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def write_seg(path, labels, *, shared_segment=False):
    """A BINARY SEG with one frame for each segment and slice that has voxels, last slice first."""
    g = grid()
    directions = [*(g.affine[:3, 2] / SPACING[2]), *(g.affine[:3, 1] / SPACING[1])]
    frames, groups = [], []
    for number in np.unique(labels[labels > 0]):
        for k in reversed(range(SHAPE[0])):
            mask = labels[k] == number
            if not mask.any():
                continue
            frames.append(mask)
            position = g.affine[:3, 3] + k * g.affine[:3, 0]
            group = sequence_item(
                PlanePositionSequence=[sequence_item(ImagePositionPatient=[f"{v:.6f}" for v in position])]
            )
            if not shared_segment:
                segment = sequence_item(ReferencedSegmentNumber=int(number))
                group.SegmentIdentificationSequence = [segment]
            groups.append(group)
    shared = sequence_item(
        PixelMeasuresSequence=[
            sequence_item(PixelSpacing=[0.9, 0.8], SliceThickness=5.5, SpacingBetweenSlices=7.0)
        ],
        PlaneOrientationSequence=[sequence_item(ImageOrientationPatient=[f"{v:.9f}" for v in directions])],
    )
    if shared_segment:
        shared.SegmentIdentificationSequence = [sequence_item(ReferencedSegmentNumber=1)]
    seg = Dataset()
    seg.file_meta = FileMetaDataset()
    seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    seg.SOPClassUID, seg.SOPInstanceUID = SegmentationStorage, "2.25.1"
    seg.Rows, seg.Columns, seg.NumberOfFrames = SHAPE[1], SHAPE[2], len(frames)
    seg.SamplesPerPixel, seg.PhotometricInterpretation = 1, "MONOCHROME2"
    seg.BitsAllocated = seg.BitsStored = 1
    seg.HighBit = seg.PixelRepresentation = 0
    seg.SharedFunctionalGroupsSequence = [shared]
    seg.PerFrameFunctionalGroupsSequence = groups
    seg.PixelData = np.packbits(np.array(frames, dtype=np.uint8).ravel(), bitorder="little").tobytes()
    seg.save_as(path, enforce_file_format=True)
    return path


def phantom(labels):
    lesions = tuple(
        PlantedLesion(int(n), "deep", (0.0, 0.0, 0.0), 300.0, 4.0 if n == 3 else 8.3)
        for n in np.unique(labels[labels > 0])
    )
    return Phantom(0, Volume(np.zeros(SHAPE, np.float32), grid()), labels.astype(np.int32), lesions)


@pytest.fixture
def truth():
    labels = np.zeros(SHAPE, dtype=int)
    labels[1, 3:6, 3:6] = 1
    labels[3, 9:12, 9:12] = 2
    labels[4, 1, 14] = 3
    return labels


def test_positions_and_volumes_come_from_the_frames(tmp_path, truth):
    found = read_seg(write_seg(tmp_path / "seg.dcm", truth))
    assert [f.number for f in found] == [1, 2, 3]
    expected = grid().to_lps(np.argwhere(truth == 2))
    order = np.lexsort(found[1].points.T)
    assert found[1].points[order] == pytest.approx(expected[np.lexsort(expected.T)], abs=1e-4)
    assert found[0].volume_mm3 == pytest.approx(9 * 7.0 * 0.9 * 0.8)
    assert found[0].centroid_lps_mm == pytest.approx(grid().to_lps(np.array([[1, 4, 4]]))[0], abs=1e-4)


def test_one_segment_may_be_named_in_the_shared_groups(tmp_path, truth):
    labels = np.where(truth == 1, 1, 0)
    (found,) = read_seg(write_seg(tmp_path / "seg.dcm", labels, shared_segment=True))
    assert found.number == 1


def test_the_truth_itself_is_found_completely(tmp_path, truth):
    comparison = compare(phantom(truth), read_seg(write_seg(tmp_path / "seg.dcm", truth)))
    assert [[f.number for f in m.found] for m in comparison.matches] == [[1], [2], [3]]
    assert comparison.extra == ()
    assert comparison.share_found == 1


def test_missed_extra_and_small_lesions_count_as_such(tmp_path, truth):
    answer = np.zeros(SHAPE, dtype=int)
    answer[1, 6, 6] = 1  # beside planted lesion 1, diagonally
    answer[0, 12:14, 2] = 2  # nobody planted this
    comparison = compare(phantom(truth), read_seg(write_seg(tmp_path / "seg.dcm", answer)))
    assert [[f.number for f in m.found] for m in comparison.matches] == [[1], [], []]
    assert [f.number for f in comparison.extra] == [2]
    assert len(comparison.counted) == 2, "the lesion of 4 mm does not count"
    assert comparison.share_found == 0.5


def test_one_segment_may_cover_two_planted_lesions(tmp_path, truth):
    answer = np.where(np.isin(truth, (1, 2)), 1, 0)
    comparison = compare(phantom(truth), read_seg(write_seg(tmp_path / "seg.dcm", answer)))
    assert comparison.share_found == 1


def test_a_segment_outside_the_volume_is_an_error(tmp_path, truth):
    (one, *_) = read_seg(write_seg(tmp_path / "seg.dcm", truth))
    moved = type(one)(one.number, one.points + np.array([[0, 0, 500]]), one.volume_mm3, one.levels)
    with pytest.raises(NotAVolume, match="outside"):
        compare(phantom(truth), [moved])
