"""Only the terms that the standard defines name a character set, and all text can be stored."""

from io import BytesIO

import pydicom.charset
import pytest
from pydicom import Dataset, dcmread, dcmwrite

from msnode.dicom.character_sets import CODEC_OF_TERM, declares_nothing, storable, undefined_terms
from msnode.dicom.header import text
from msnode.encode.normalise import normalise

UNDEFINED = ["utf_7", "unicode_escape", "raw_unicode_escape", "utf_16", "punycode", "base64", "rot13", "NONE"]


def header(declared: str, encoded: bytes) -> Dataset:
    """A header with these bytes as Patient ID and Study Description."""
    source = Dataset()
    source.SpecificCharacterSet = "X" * len(declared)
    source.PatientID = source.StudyDescription = "Y" * len(encoded)
    raw = BytesIO()
    dcmwrite(raw, source, implicit_vr=False, little_endian=True)
    filled = raw.getvalue().replace(b"X" * len(declared), declared.encode())
    return dcmread(BytesIO(filled.replace(b"Y" * len(encoded), encoded)), force=True)


@pytest.mark.parametrize("term", CODEC_OF_TERM)
def test_a_defined_term_names_its_codec(term):
    (codec,) = pydicom.charset.convert_encodings(term)
    assert b"abc".decode(codec) == "abc"
    assert undefined_terms((term,)) == ()
    assert pydicom.charset.convert_encodings([codec]) == [codec]


@pytest.mark.parametrize("declared", UNDEFINED)
def test_any_other_term_is_a_defect_and_names_no_codec(declared):
    source = header(declared, b"+2AE-\\ud801 A1")
    assert text(source, "PatientID") == "+2AE-\\ud801 A1"
    assert [d for d in normalise(source).defects if "not a defined term" in d]
    assert text(source, "StudyDescription").encode()


def test_an_undefined_term_declares_nothing_so_that_utf8_is_read_as_such():
    source = header("UTF-8 ", "Größe ".encode())
    assert normalise(source).dataset.StudyDescription == "Größe"


@pytest.mark.parametrize("declared", ["ISO-IR 144", "ISO_IR_144", "iso ir 144 ", "ISO 2022 IR144"])
def test_a_misspelt_term_is_a_defect_and_means_what_it_says(declared):
    name = "Соколова"
    source = header(declared, name.encode("iso8859_5"))
    assert text(source, "PatientID") == name
    assert [d for d in normalise(source).defects if "not a defined term" in d]


def test_what_declares_nothing():
    assert all(map(declares_nothing, [(), ("",), ("ISO_IR 6",), ("", "ISO 2022 IR 87"), ("utf_7",)]))
    assert not any(map(declares_nothing, [("ISO_IR 192",), ("ISO-IR 100",), ("ISO 2022 IR 13", "x")]))
    assert undefined_terms(("", "ISO 2022 IR 87", "ISO_IR 6")) == ()


def test_text_that_cannot_be_stored_is_changed_as_little_as_possible():
    assert storable("A\0B") == "AB"
    assert storable("A\ud800B\udfff\0") == "A?B?"
    assert storable("Соколова 王 🙂") == "Соколова 王 🙂"
