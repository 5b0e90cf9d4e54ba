from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pydicom.filereader import read_dataset

from msnode.receive.elements import part_of_header
from support.dicom_files import encoded, enhanced_flair, flair_series

STUDY, PATIENT, SEQUENCE, PIXELS = 0x0020000D, 0x00100020, 0x00081140, 0x7FE00008


def nested(depth: int, *, undefined: bool) -> Dataset:
    """Sequences in sequences, each with two items and an element after it."""
    ds = Dataset()
    ds.ReferencedSOPInstanceUID = f"1.2.{depth}"
    if depth:
        ds.ReferencedImageSequence = Sequence([nested(depth - 1, undefined=undefined), Dataset()])
        ds["ReferencedImageSequence"].is_undefined_length = undefined
        for item in ds.ReferencedImageSequence:
            item.is_undefined_length_sequence_item = undefined
    ds.TextValue = "after"
    return ds


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
def test_elements_are_found_behind_sequences(*, implicit: bool, undefined: bool) -> None:
    ds = nested(3, undefined=undefined)
    ds.StudyInstanceUID, ds.PatientID, ds.PixelData = "1.2.3", "P", b"\1\0" * 8
    ds["PixelData"].VR = "OW"
    data = encoded(ds, implicit=implicit)
    part = part_of_header(data, {STUDY, PATIENT, SEQUENCE}, PIXELS, implicit=implicit)
    found = read_dataset(BytesIO(part.wanted), implicit, is_little_endian=True)
    assert (found.StudyInstanceUID, found.PatientID) == ("1.2.3", "P")
    assert found.ReferencedImageSequence == ds.ReferencedImageSequence
    assert len(found) == 3
    assert data[part.end : part.end + 4] == b"\xe0\x7f\x10\x00"


@pytest.mark.parametrize("implicit", [False, True])
def test_end_is_where_pydicom_stops(tmp_path: Path, *, implicit: bool) -> None:
    for path in (*flair_series(tmp_path / "in", slices=1), enhanced_flair(tmp_path / "e.dcm")):
        data = encoded(dcmread(path), implicit=implicit)
        stream = BytesIO(data)
        read_dataset(
            stream, implicit, is_little_endian=True, stop_when=lambda tag, _vr, _length: tag >= PIXELS
        )
        part = part_of_header(data, {STUDY}, PIXELS, implicit=implicit)
        assert part.end == stream.tell()
        assert all(part_of_header(data[:cut], {STUDY}, PIXELS, implicit=implicit) is None for cut in (7, 301))


def test_private_value_without_a_representation_is_left_to_pydicom() -> None:
    assert part_of_header(b"\x09\x00\x10\x10??\x02\x00ab", {STUDY}, PIXELS, implicit=False) is None


def test_endless_nesting_ends() -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"
    assert part_of_header((sequence + item) * 5000, {STUDY}, PIXELS, implicit=False) is None


@given(noise=st.binary(max_size=200), implicit=st.booleans())
def test_noise_is_taken_or_left(*, noise: bytes, implicit: bool) -> None:
    part = part_of_header(noise, {STUDY}, PIXELS, implicit=implicit)
    assert part is None or part.end <= len(noise)
