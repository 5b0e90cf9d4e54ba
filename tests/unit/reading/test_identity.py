import pytest

from msnode.encode import ResultRules
from msnode.reading.identity import several_patients, with_one_identity
from msnode.reading.outcome import ReadingRules
from msnode.reading.pipeline import read_study
from msnode.reading.result_set import read_former, write_result_set
from msnode.reading.segment_volume import LesionRules
from msnode.segment.bundle import Scope
from msnode.series.select import SelectionRules
from support.dicom_files import change_all, flair_series
from support.networks import FakeNetwork
from support.readings import provenance, series_of

RULES = ReadingRules(
    SelectionRules(),
    Scope(plane="axial", slice_distance_mm=(2, 9), field_strength_t=(1.5,), manufacturers=("PHILIPS",)),
    LesionRules("flair2d-head-v1", threshold=0.5, min_volume_mm3=3),
    ResultRules(),
)
SIZE = {"slices": 14, "rows": 48, "columns": 48}


@pytest.fixture
def flair(tmp_path):
    return flair_series(tmp_path / "flair", **SIZE)


@pytest.fixture
def t1(tmp_path):
    return flair_series(tmp_path / "t1", **SIZE, description="Ax T1", series_number=5)


def read(*series, **more):
    return read_study([series_of(s) for s in series], RULES, provenance(), FakeNetwork, **more)


@pytest.mark.parametrize(
    ("attribute", "one", "other", "named"),
    [
        ("PatientID", "A1", "B2", "Patient ID (0010,0020)"),
        ("IssuerOfPatientID", "NORTH", "SOUTH", "Issuer of Patient ID (0010,0021)"),
        ("PatientBirthDate", "19500101", "19500102", "Patient's Birth Date (0010,0030)"),
        ("PatientName", "Doe^Jane", "Roe^Jane", "Patient's Name (0010,0010)"),
    ],
)
def test_a_contradiction_is_named_without_its_values(flair, attribute, one, other, named):
    change_all(flair[:9], **{attribute: one})
    change_all(flair[9:], **{attribute: other})
    said = several_patients([series_of(flair)])
    assert (
        said == f"several patients in one study: {named} differ between its images; all must name one patient"
    )


@pytest.mark.parametrize(
    ("attribute", "one", "other"),
    [
        ("PatientID", "A1", ""),
        ("PatientID", "A1", None),
        ("PatientID", "A1", "A1 "),
        ("IssuerOfPatientID", "NORTH", None),
        ("PatientBirthDate", "19500101", "1950.01.01"),
        ("PatientBirthDate", "19500101", "00000000"),
        ("PatientName", "Doe^Jane", "DOE^JANE^^^"),
        ("PatientName", "Doe^Jane", "Doe ^Jane=山田^太郎"),
        ("PatientName", "Doe^Jane", "=山田^太郎"),
        ("PatientName", "Müller^Jörg", "Mu\u0308ller^Jo\u0308rg"),
    ],
)
def test_what_is_no_contradiction(flair, attribute, one, other):
    change_all(flair[:9], **{attribute: one})
    change_all(flair[9:], **{attribute: other})
    assert several_patients([series_of(flair)]) == ""


def test_one_value_is_enough(flair):
    change_all(flair, IssuerOfPatientID=None)
    change_all(flair[:9], PatientID=None, PatientBirthDate="")
    change_all(flair[9:10], IssuerOfPatientID="NORTH")
    (series,) = with_one_identity([series_of(flair)])
    headers = [instance.header for instance in series.instances]
    assert {h.PatientID for h in headers} == {"PAT001"}
    assert {h.IssuerOfPatientID for h in headers} == {"NORTH"}
    assert {h.PatientBirthDate for h in headers} == {"19800101"}
    assert len(headers) == 14


def test_two_patients_in_one_series_are_refused_without_a_number(flair):
    change_all(flair[10:], PatientID="B-2", PatientName="SECOND^PERSON", PatientBirthDate="19500101")
    reading = read(flair)
    assert reading.status == "rejected"
    assert "Patient ID (0010,0020), Patient's Birth Date (0010,0030), Patient's Name" in reading.reason
    assert reading.findings is None
    assert "B-2" not in reading.reason
    assert "SECOND" not in reading.reason


def test_a_correction_that_got_half_way_is_refused_and_read_when_it_is_through(flair, t1, tmp_path):
    def former(reading, revision):
        folder = tmp_path / f"set-{revision}"
        folder.mkdir()
        write_result_set(reading, folder)
        return read_former(folder, revision)

    whole = read(flair, t1)
    assert whole.status == "completed"
    change_all(t1, PatientID="B-2")
    half = read(flair, t1, former=former(whole, 0))
    assert (half.status, half.findings) == ("rejected", None)
    assert read(flair, t1, former=former(half, 1)).status == "unchanged"
    change_all(t1, PatientID="PAT001")
    assert read(flair, t1, former=former(half, 2)).status == "completed"
