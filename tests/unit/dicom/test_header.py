from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from msnode.dicom.header import (
    drop_malformed,
    integer,
    is_valid_uid,
    items,
    number,
    numbers,
    patient_key,
    text,
    texts,
    value,
)
from msnode.domain.imaging import FLAIR
from msnode.series.select import select
from msnode.series.volume import group_series, read_instance
from support.dicom_files import enhanced_flair, flair_series


def write_raw(path: Path, keyword: str, vr: str, value: bytes) -> Path:
    """Put an element of these very bytes into a file."""
    ds = dcmread(path)
    tag = Tag(keyword)
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)
    dcmwrite(path, ds)
    return path


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("EchoTime", "DS", b"abc "),
        ("EchoTime", "US", b"abcd"),  # no text, which is another thing than no number
        ("SmallestImagePixelValue", "US", b"ab\0c"),
        ("MagneticFieldStrength", "FD", b"1.5 "),  # four bytes, where eight are one number
        ("ReferencedImageSequence", "SQ", b"no sequence!"),
        ("ReferencedImageSequence", "LO", b"no sequence!"),
        ("ContributingEquipmentSequence", "LO", b"msnode"),
    ],
)
def test_what_is_malformed_counts_as_absent_and_nothing_looks_at_it(tmp_path, keyword, vr, value):
    paths = flair_series(tmp_path, slices=12, rows=16, columns=16)
    write_raw(paths[0], keyword, vr, value)
    header = read_instance(paths[0]).header
    for element in header.iterall():
        assert element.value is None or str(element.value) is not None
    (series,) = group_series([read_instance(p) for p in paths])
    assert select([series]).series[FLAIR] is series


@pytest.mark.parametrize("keyword", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_functional_groups_that_are_text_are_none(tmp_path, keyword):
    path = write_raw(enhanced_flair(tmp_path / "e.dcm", slices=12), keyword, "LO", b"no sequence!")
    instance = read_instance(path)
    assert keyword not in instance.header
    (series,) = group_series([instance])
    selection = select([series])
    assert bool(selection.series) != bool(selection.refusal)


def test_what_can_be_read_stays(tmp_path):
    (path,) = flair_series(tmp_path, slices=1)
    written = dcmread(path, stop_before_pixels=True)
    assert read_instance(path).header == written


def raw(keyword: str, vr: str, content: bytes) -> Dataset:
    """A header with one element of these very bytes, not converted yet."""
    ds, tag = Dataset(), Tag(keyword)
    ds[tag] = RawDataElement(tag, vr, len(content), content, 0, is_implicit_VR=False, is_little_endian=True)
    return ds


@pytest.mark.parametrize(
    ("vr", "content"),
    [
        ("DS", b"abc "), ("DS", b"1\\x "), ("US", b"abc"), ("FD", b"1.5 "), ("DS", b"nan "),
        ("SQ", b"no sequence!"), ("LO", b""), ("OB", b"\0\1\2"), ("DS", b"1e400"),
    ],
)  # fmt: skip
def test_a_malformed_number_is_none(vr, content):
    header = raw("EchoTime", vr, content)
    assert number(header, "EchoTime") is None
    assert integer(header, "EchoTime") is None
    assert numbers(header, "EchoTime", 3) is None
    assert isinstance(text(header, "EchoTime"), str)


def test_numbers():
    header = Dataset()
    header.EchoTime, header.SeriesNumber, header.PixelSpacing = "90.5", 7, ["0.5", "0.75"]
    assert (number(header, "EchoTime"), integer(header, "EchoTime"), integer(header, "SeriesNumber")) == (
        90.5,
        90,
        7,
    )
    assert numbers(header, "PixelSpacing", 2).tolist() == [0.5, 0.75]
    assert numbers(header, "PixelSpacing", 3) is None
    assert number(header, "PixelSpacing") is None
    assert number(header, "RepetitionTime") is None
    assert number(None, "EchoTime") is None


def test_text():
    header = Dataset()
    header.ImageType, header.SeriesDescription, header.EchoTime = ["ORIGINAL", "PRIMARY"], " a\0b ", "90"
    assert (text(header, "ImageType"), texts(header, "ImageType")) == (
        "ORIGINAL\\PRIMARY",
        ("ORIGINAL", "PRIMARY"),
    )
    assert text(header, "SeriesDescription") == " ab "
    assert text(header, "EchoTime") == "90"
    assert (text(header, "Modality"), texts(header, "Modality"), text(None, "Modality")) == ("", (), "")
    assert texts(header, Tag("ImageType")) == ("ORIGINAL", "PRIMARY")


def test_sequences():
    header, item = Dataset(), Dataset()
    item.Manufacturer = "A"
    header.ContributingEquipmentSequence = [item]
    assert [text(i, "Manufacturer") for i in items(header, "ContributingEquipmentSequence")] == ["A"]
    assert items(header, "ReferencedImageSequence") == ()
    assert items(raw("ReferencedImageSequence", "LO", b"text"), "ReferencedImageSequence") == ()


def test_a_patient_is_known_by_issuer_and_id():
    header = Dataset()
    assert patient_key(header) == ("", "")
    header.PatientID, header.IssuerOfPatientID = " 4711 ", "HOSPITAL"
    assert patient_key(header) == ("HOSPITAL", "4711")


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.1", "2.25.0", "0.1", "1." + "1" * 62])
def test_valid_uid(uid: str) -> None:
    assert is_valid_uid(uid)


@pytest.mark.parametrize("uid", ["", "1", "1..2", "1.02", "../../x", "1.2\n", "1." + "1" * 63, "1.2 ", "a.b"])
def test_invalid_uid(uid: str) -> None:
    assert not is_valid_uid(uid)


def test_after_dropping_what_is_malformed_nothing_raises():
    header = raw("EchoTime", "US", b"abc")
    header.SeriesDescription = "FLAIR"
    assert drop_malformed(header) == {"EchoTime"}
    assert "EchoTime" not in header
    assert value(header, "SeriesDescription") == "FLAIR"
