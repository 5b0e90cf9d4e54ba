from io import BytesIO
from types import SimpleNamespace

import pytest
from pydicom import Dataset
from pynetdicom.dsutils import decode, encode

from msnode.dicom.commitment import (
    ALL_KEPT,
    INVALID_ARGUMENT,
    NO_SUCH_ACTION,
    NO_SUCH_CLASS,
    NO_SUCH_EVENT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    SOME_FAILED,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    Reference,
    Report,
    Request,
    action_information,
    event_information,
    read_report,
    read_request,
    reason_text,
)

A, B = Reference("1.2.840.1", "1.2.3.1"), Reference("1.2.840.1", "1.2.3.2")


def over_the_wire(ds):
    return decode(BytesIO(encode(ds, is_implicit_vr=True, is_little_endian=True)), True, True)


def action(ds, *, sop_class=SOP_CLASS_UID, instance=SOP_INSTANCE_UID, number=1):
    asked = SimpleNamespace(RequestedSOPClassUID=sop_class, RequestedSOPInstanceUID=instance)
    return SimpleNamespace(request=asked, action_type=number, action_information=over_the_wire(ds))


def event(ds, *, sop_class=SOP_CLASS_UID, instance=SOP_INSTANCE_UID, number=ALL_KEPT):
    told = SimpleNamespace(AffectedSOPClassUID=sop_class, AffectedSOPInstanceUID=instance)
    return SimpleNamespace(request=told, event_type=number, event_information=over_the_wire(ds))


def test_a_request_survives_the_wire():
    request = Request("1.2.9", (A, B))
    assert read_request(action(action_information(request))) == request


@pytest.mark.parametrize(
    "report",
    [
        Report("1.2.9", (A, B)),
        Report("1.2.9", (A,), {B: 0x0112}),
        Report("1.2.9", (), {A: 0x0110, B: 0x0213}),
    ],
)
def test_a_report_survives_the_wire(report):
    assert read_report(event(event_information(report), number=report.event_type)) == report
    assert report.event_type == (SOME_FAILED if report.failed else ALL_KEPT)


def test_an_object_in_both_lists_has_failed():
    ds = event_information(Report("1.2.9", (A, B), {B: 0x0112}))
    assert read_report(event(ds)) == Report("1.2.9", (A,), {B: 0x0112})


def test_a_failure_without_a_reason_is_a_failure():
    ds = event_information(Report("1.2.9", (), {A: 0x0112}))
    del ds.FailedSOPSequence[0].FailureReason
    assert read_report(event(ds, number=SOME_FAILED)) == Report("1.2.9", (), {A: PROCESSING_FAILURE})


def test_an_instance_that_is_asked_for_twice_counts_once():
    assert read_request(action(action_information(Request("1.2.9", (A, A, B))))).instances == (A, B)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"sop_class": "1.2.840.10008.5.1.4.34.6.1"}, NO_SUCH_CLASS),
        ({"instance": "1.2.3"}, NO_SUCH_INSTANCE),
        ({"number": 7}, None),
    ],
)
def test_what_is_not_addressed_to_the_push_model_is_refused(wrong, status):
    request, report = action_information(Request("1.2.9", (A,))), event_information(Report("1.2.9", (A,)))
    assert read_request(action(request, **wrong)) == (status or NO_SUCH_ACTION)
    assert read_report(event(report, **wrong)) == (status or NO_SUCH_EVENT)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", ["", "../../x", "1.02.3", "1." + "1" * 64])
def test_a_transaction_without_a_well_formed_uid_is_refused(uid, monkeypatch):
    monkeypatch.setattr("pydicom.config.settings.writing_validation_mode", 0)
    monkeypatch.setattr("pydicom.config.settings.reading_validation_mode", 0)
    for ds, read in (
        (action_information(Request(uid, (A,))), lambda ds: read_request(action(ds))),
        (event_information(Report(uid, (A,))), lambda ds: read_report(event(ds))),
    ):
        assert read(ds) == INVALID_ARGUMENT
    assert read_request(action(Dataset())) == INVALID_ARGUMENT
    assert read_report(event(Dataset())) == INVALID_ARGUMENT


def test_a_request_for_nothing_is_refused():
    assert read_request(action(action_information(Request("1.2.9", ())))) == INVALID_ARGUMENT


def test_reasons_in_words():
    assert reason_text(0x0112) == "no such object (0x0112)"
    assert reason_text(0xA123) == "unknown reason (0xA123)"
