import datetime as dt
import hashlib
import os
import subprocess
import sys
import uuid
from io import BytesIO

import highdicom.base
import highdicom.base_content
import highdicom.sr.sop
import numpy as np
import pydicom.uid
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from msnode.encode import ResultRules, encode_rejection, encode_results, to_bytes
from msnode.encode.kinds import KIND_NUMBERS
from support.dicom_files import change_all, flair_series
from support.environment import ROOT
from support.readings import MARK_BELOW, provenance, read

SMALL = {"slices": 4, "rows": 24, "columns": 24}
RULES = ResultRules(
    kinds=frozenset({"sr-comprehensive", "sr-enhanced", "pdf", "probability"}), mark_below=MARK_BELOW
)
MADE = {"seg", "sr", "sr-comprehensive", "sr-enhanced", "overlay", "summary", "pdf", "probability"}


def results(paths, made_by=None):
    """Every kind of object once, as it would be read from disk."""
    return [dcmread(BytesIO(file)) for file in all_bytes(paths, made_by)]


def all_bytes(paths, made_by=None):
    reading = read(paths, 2)
    made_by = made_by or provenance()
    probability = (reading.lesion_map.labels > 0).astype(np.uint8) * 200
    outputs = encode_results(
        reading.source, reading.lesion_map, reading.findings, made_by, RULES, probability=probability
    )
    assert {o.kind for o in outputs} == MADE
    refused = encode_rejection([f.instance for f in reading.source.frames], "why", made_by, RULES)
    return [to_bytes(o) for o in (*outputs, *refused)]


NAMES = [
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    ("ISO_IR 144", "Соколова^Анна"),
    ("ISO_IR 100", "Müller^Jörg"),
]


@pytest.mark.parametrize(("character_set", "name"), NAMES)
def test_names_of_every_character_set_reach_every_object(character_set, name, tmp_path):
    header = {"SpecificCharacterSet": character_set, "PatientName": name, "ReferringPhysicianName": name}
    for ds in results(flair_series(tmp_path / "in", **SMALL, **header)):
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert str(ds.PatientName) == str(ds.ReferringPhysicianName) == name


MISSING = [
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PatientBirthDate",
    "ReferringPhysicianName",
]


@pytest.mark.parametrize(
    "keyword", [*MISSING, "SliceThickness", "PositionReferenceIndicator", "SeriesNumber"]
)
def test_a_missing_attribute_fails_nothing(keyword, tmp_path):
    for ds in results(flair_series(tmp_path / "in", **SMALL, **{keyword: None})):
        if keyword in MISSING:
            assert keyword in ds
            assert not ds[keyword].value


def test_everything_missing_at_once_fails_nothing(tmp_path):
    header = dict.fromkeys([*MISSING, "SliceThickness", "InstanceNumber", "SpecificCharacterSet"])
    assert results(flair_series(tmp_path / "in", **SMALL, **header))


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientSex", "W"), ("StudyDate", "2024-01-02"), ("StudyTime", "25"), ("PatientBirthDate", "19000000")],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.filterwarnings("ignore:A value of type")
def test_an_illegal_value_fails_nothing_and_is_emptied(keyword, value, tmp_path):
    paths = flair_series(tmp_path / "in", **SMALL)
    with pydicom.config.disable_value_validation():
        change_all(paths, **{keyword: value})
    for ds in results(paths):
        assert not ds[keyword].value


def test_identity_is_copied_unchanged_into_every_object(tmp_path):
    issuer, request = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    request.RequestedProcedureID, request.AccessionNumber = "R1", "ACC0001"
    header = {
        "IssuerOfPatientID": "HOSP",
        "IssuerOfAccessionNumberSequence": [issuer],
        "RequestAttributesSequence": [request],
        "TimezoneOffsetFromUTC": "+0900",
        "OtherPatientNames": "Smith^Jane",
        "PatientComments": "hard of hearing",
        "ReferringPhysicianName": "House^Gregory",
    }
    paths = flair_series(tmp_path / "in", **SMALL, **header)
    source = dcmread(paths[0], stop_before_pixels=True)
    copied = [*header, *MISSING, "StudyInstanceUID", "StudyDescription"]
    for ds in results(paths):
        for keyword in copied:
            assert ds[keyword].value == source[keyword].value, keyword
        is_page = "MS AI SUMMARY" in ds.SeriesDescription
        assert ds.get("FrameOfReferenceUID") == (None if is_page else source.FrameOfReferenceUID)
        assert ds.ContentTime.startswith("130506")
        assert ds.SeriesInstanceUID != source.SeriesInstanceUID


def test_an_empty_accession_number_stays_empty(tmp_path):
    for ds in results(flair_series(tmp_path / "in", **SMALL, AccessionNumber="")):
        assert "AccessionNumber" in ds
        assert not ds.AccessionNumber


def test_every_object_names_the_equipment_that_made_it(tmp_path):
    for ds in results(flair_series(tmp_path / "in", **SMALL)):
        (equipment,) = ds.ContributingEquipmentSequence
        assert equipment.Manufacturer == equipment.ManufacturerModelName == "msnode"
        assert equipment.SoftwareVersions == "0.1.0"
        assert "ab" * 32 in equipment.ContributionDescription
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert equipment.ContributionDateTime == "20240103040506.000789+0000"
        assert ds.DeviceSerialNumber == "ab" * 32


def test_every_date_comes_from_the_start_of_the_job(tmp_path):
    for ds in results(flair_series(tmp_path / "in", **SMALL)):
        for event in ("InstanceCreation", "Series", "Content"):
            assert ds[f"{event}Date"].value == "20240103"
            assert ds[f"{event}Time"].value == "040506.000789"


def test_file_meta_information_is_complete(tmp_path):
    for ds in results(flair_series(tmp_path / "in", **SMALL)):
        meta = ds.file_meta
        assert meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert meta.MediaStorageSOPClassUID == ds.SOPClassUID
        assert meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
        assert meta.ImplementationClassUID.startswith("2.25.")
        assert meta.ImplementationVersionName == "MSNODE_0.1.0"


def test_kinds_lie_in_series_of_their_own_with_their_own_numbers(tmp_path):
    made = {(ds.SeriesInstanceUID, ds.SeriesNumber) for ds in results(flair_series(tmp_path / "in", **SMALL))}
    refused = {"sr", "sr-comprehensive", "sr-enhanced", "summary", "pdf"}
    assert sorted(number for _, number in made) == sorted(9800 + KIND_NUMBERS[k] for k in [*MADE, *refused])


class LaterClock(dt.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2031, 5, 6, 7, 8, 9, 123, tzinfo=tz)


def test_bytes_do_not_depend_on_clock_or_chance(tmp_path, monkeypatch):
    paths = flair_series(tmp_path / "in", **SMALL)
    first = all_bytes(paths)
    clock = type("clock", (), {"datetime": LaterClock, "date": dt.date, "time": dt.time})
    for module in (highdicom.base, highdicom.base_content, highdicom.sr.sop):
        monkeypatch.setattr(module, "datetime", clock)
    monkeypatch.setattr(pydicom.uid, "generate_uid", lambda *_, **__: pydicom.uid.UID("2.25.99"))
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=99))
    assert all_bytes(paths) == first


def test_bytes_do_not_depend_on_process_or_environment(tmp_path):
    paths = flair_series(tmp_path / "in", **SMALL)
    program = (
        "import hashlib, sys, pathlib\n"
        "from test_encode_results import all_bytes\n"
        "paths = [pathlib.Path(p) for p in sys.argv[1:]]\n"
        "print(hashlib.sha256(b''.join(all_bytes(paths))).hexdigest())\n"
    )
    environment = os.environ | {
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "77",
        "SOURCE_DATE_EPOCH": "1234567890",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests/unit/encode")]),
    }
    command = [sys.executable, "-c", program, *map(str, paths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == hashlib.sha256(b"".join(all_bytes(paths))).hexdigest()


def test_writing_leaves_the_object_as_it_is(tmp_path):
    (output, *_) = read(flair_series(tmp_path / "in", **SMALL), 1).outputs()
    assert to_bytes(output) == to_bytes(output)
