from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage, RLELossless

from msnode.domain.arrivals import Arrival, AssociationFacts
from msnode.errors import NotReadable
from msnode.receive import elements
from msnode.receive.incoming import read_arrival
from support.dicom_files import encoded, enhanced_flair, flair_series

FACTS = AssociationFacts("a1", "SENDER", "MSNODE", "127.0.0.1", datetime(2024, 1, 2, tzinfo=UTC))


def read(data: bytes, transfer_syntax_uid: str) -> Arrival:
    return read_arrival(data, transfer_syntax_uid, FACTS)


@pytest.fixture
def image(tmp_path: Path) -> Dataset:
    return dcmread(flair_series(tmp_path / "in", slices=3)[2])


@pytest.mark.parametrize("implicit", [False, True])
def test_cut_off_data_set_is_not_readable_wherever_it_ends(image, *, implicit: bool) -> None:
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    data = encoded(image, implicit=implicit)
    assert read(data, syntax).modality == "MR"
    pixels = len(image.PixelData)
    for end in (0, 1, 50, 200, len(data) - pixels - 3, len(data) - pixels, len(data) - 1):
        with pytest.raises(NotReadable):
            read(data[:end], syntax)


def test_cut_off_encapsulated_pixel_data_is_not_readable(image) -> None:
    image.compress(RLELossless, generate_instance_uid=False)
    data = encoded(image)
    assert read(data, RLELossless).frame_count == 1
    for cut in (1, 8, 20, 500):
        with pytest.raises(NotReadable):
            read(data[:-cut], RLELossless)


def test_no_pixel_data_is_readable_but_unsuitable(image) -> None:
    del image.PixelData
    assert read(encoded(image), ExplicitVRLittleEndian).sop_class_uid == MRImageStorage


def test_place_is_known_only_for_a_classic_plane(image, tmp_path: Path) -> None:
    enhanced = dcmread(enhanced_flair(tmp_path / "e.dcm"))
    arrival = read(encoded(enhanced), ExplicitVRLittleEndian)
    assert (arrival.frame_count, arrival.slice_position_mm) == (12, None)
    image.ImageOrientationPatient = [0, 0, 0, 0, 0, 0]
    assert read(encoded(image), ExplicitVRLittleEndian).slice_position_mm is None
    del image.ImagePositionPatient
    assert read(encoded(image), ExplicitVRLittleEndian).slice_position_mm is None


@given(data=st.binary(max_size=300), implicit=st.booleans())
def test_noise_is_not_readable(*, data: bytes, implicit: bool) -> None:
    with pytest.raises(NotReadable):
        read(data, ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)


@pytest.mark.filterwarnings("ignore:Failed to decode byte string")
@pytest.mark.parametrize("implicit", [False, True])
def test_what_no_database_takes_is_left_out(image, *, implicit: bool) -> None:
    image.PatientID, image.IssuerOfPatientID = "A\0B", "broken"
    image["Modality"].value = "MR" * 20
    image.NumberOfFrames = 10**11
    image.SpecificCharacterSet = "ISO_IR 192"
    half_a_surrogate_pair = b"\xed\xb3\xbf"
    data = encoded(image, implicit=implicit).replace(b"broken", half_a_surrogate_pair * 2)
    arrival = read(data, ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)
    assert arrival.patient_key[1] == "AB"
    assert arrival.patient_key[0].encode()
    assert (arrival.modality, arrival.frame_count) == ("MR" * 8, 2**31 - 1)


def test_patient_is_known_in_any_character_set(image) -> None:
    image.SpecificCharacterSet, image.PatientID = "ISO_IR 100", "Größe"
    assert read(encoded(image), ExplicitVRLittleEndian).patient_key == ("", "Größe")


@pytest.mark.parametrize(
    "element",
    [
        b"\x08\x00\x05\x00CS\x00\x00",
        b"\x08\x00\x05\x00ZZ\x00\x00",  # no value representation: pydicom reads it
        b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 20,
    ],
)
def test_a_data_set_of_too_many_elements_is_not_readable(monkeypatch, element: bytes) -> None:
    monkeypatch.setattr(elements, "_MOST_ELEMENTS", 10)
    with pytest.raises(NotReadable, match="more than 10 elements"):
        read_arrival(element * 20, str(ExplicitVRLittleEndian), FACTS)
