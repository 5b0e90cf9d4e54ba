from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

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
