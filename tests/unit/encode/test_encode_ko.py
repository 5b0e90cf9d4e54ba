from io import BytesIO

import pytest
from highdicom.ko import KeyObjectSelectionDocument
from highdicom.sr import ValueTypeValues
from pydicom import dcmread
from pydicom.dataset import Dataset

from msnode.encode import Replaced, SentObject, encode_rejection_note, normalise, to_bytes
from support.dicom_files import flair_series
from support.readings import provenance, read

LATER = provenance(revision=1)


def references(outputs):
    return tuple(
        SentObject(str(o.dataset.SOPClassUID), o.sop_instance_uid, str(o.dataset.SeriesInstanceUID))
        for o in outputs
    )


@pytest.fixture(scope="module")
def former(tmp_path_factory):
    """A reading of a patient with a request, as it was delivered."""
    request = Dataset()
    request.RequestedProcedureID = "R1"
    header = {"RequestAttributesSequence": [request], "IssuerOfPatientID": "HOSP"}
    return read(
        flair_series(tmp_path_factory.mktemp("in"), slices=4, rows=24, columns=24, **header), 2
    ).outputs()


def replaced(former, *, objects=None, revision=0):
    return Replaced(
        revision, normalise(former[0].dataset), references(former if objects is None else objects)
    )


def note(former, identity_digest="other", made_by=LATER, **changes):
    output = encode_rejection_note(replaced(former, **changes), identity_digest, made_by)
    assert output.kind == "ko"
    return dcmread(BytesIO(to_bytes(output)))


def title(ds):
    return ds.ConceptNameCodeSequence[0].CodeValue, ds.ConceptNameCodeSequence[0].CodingSchemeDesignator


def test_the_title_says_whether_the_identity_changed(former):
    same = normalise(former[0].dataset).identity_digest
    assert title(note(former)) == ("113037", "DCM")
    assert title(note(former, same)) == ("113001", "DCM")


def test_every_object_is_referenced_in_its_study_and_series(former):
    document = KeyObjectSelectionDocument.from_dataset(note(former))
    listed = {r.referenced_sop_instance_uid: r for r in document.content.get_references()}
    assert list(listed) == [o.sop_instance_uid for o in former]
    for output in former:
        ds = output.dataset
        expected = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
        assert document.resolve_reference(output.sop_instance_uid) == expected
        assert listed[output.sop_instance_uid].referenced_sop_class_uid == ds.SOPClassUID
        is_report = output.kind == "sr"
        kind = ValueTypeValues.COMPOSITE if is_report else ValueTypeValues.IMAGE
        assert listed[output.sop_instance_uid].value_type == kind


def test_it_stands_in_the_study_under_the_identity_of_what_it_rejects(former):
    ds = note(former)
    for keyword in (
        "PatientID",
        "IssuerOfPatientID",
        "PatientName",
        "StudyInstanceUID",
        "AccessionNumber",
        "StudyID",
    ):
        assert ds[keyword].value == former[0].dataset[keyword].value
    assert (ds.Modality, ds.SeriesNumber) == ("KO", 9814)
    assert ds.SeriesDescription == "MS AI REJECTION NOTE rev 1, replaces rev 0"
    assert ds.ContributingEquipmentSequence[0].Manufacturer == "msnode"
    assert "FrameOfReferenceUID" not in ds
    assert "RequestAttributesSequence" not in ds


def test_it_says_in_words_what_replaces_what_and_who_says_so(former):
    document = KeyObjectSelectionDocument.from_dataset(note(former))
    texts = [c.TextValue for c in document.content[0].ContentSequence if c.ValueType == "TEXT"]
    assert "Results of revision 0: patient, study or order has changed. Revision 1 replaces them." in texts
    (observer,) = document.content.get_observer_contexts()
    assert observer.observer_identifying_attributes.name == "msnode"


def test_one_rejection_gives_the_same_bytes_and_another_has_other_uids(former):
    first = encode_rejection_note(replaced(former), "other", LATER)
    assert to_bytes(encode_rejection_note(replaced(former), "other", LATER)) == to_bytes(first)
    others = [
        note(former, objects=former[:1]),
        note(former, revision=3),
        note(former, made_by=provenance(revision=2)),
    ]
    for attribute in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({first.dataset[attribute].value, *(o[attribute].value for o in others)}) == 4


def test_every_date_comes_from_the_start_of_the_job(former):
    ds = note(former)
    for event in ("InstanceCreation", "Series", "Content"):
        assert ds[f"{event}Date"].value == "20240103"
        assert ds[f"{event}Time"].value == "040506.000789"
