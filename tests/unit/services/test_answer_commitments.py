"""Peers ask the node to keep objects, and are told what it keeps."""

from contextlib import contextmanager

import pytest

from msnode.dicom import commitment
from msnode.dicom.commitment import Reference, Request, read_report
from msnode.dicom.connection import DicomAddress
from msnode.errors import OutOfResources
from msnode.services.answer_commitments import CommitmentListener, CommitmentResponder
from msnode.store import Blob, Store
from support.commitment_requests import MR, RETRY, audited, note, open_ids, promised, row
from support.peers import answering_scp, free_port


@pytest.fixture
def held(record, tmp_path):
    """A record, and a store that has the bytes of one instance of two."""
    store = Store(tmp_path / "store", durable=False)
    blob = Blob(b"bytes")
    store.put(blob)
    record.add(1, digest=blob.digest)
    record.add(2)
    return record, store


def make(record, store, addresses, asked):
    return CommitmentResponder(
        record.database, store, addresses, calling_ae="MSNODE", retry=RETRY,
        enqueue=lambda _tx, open_: asked.append(open_),
    )  # fmt: skip


REQUEST = Request("1.2.9", (Reference(MR, "1.2.3.1"), Reference(MR, "1.2.3.2")))


@contextmanager
def router(answers, seen, context=(commitment.SOP_CLASS_UID, "1.2.840.10008.1.2")):
    """A peer that takes reports, and notes what the record held when one came."""

    def take(event):
        seen.append((read_report(event), promised(seen.record), event.assoc.requestor.primitive))
        return answers.pop(0), None

    with answering_scp([context], aet="ROUTER", EVT_N_EVENT_REPORT=take) as port:
        yield {"ROUTER": DicomAddress("ROUTER", "127.0.0.1", port)}


class Seen(list):
    record = None


def test_a_promise_is_in_the_record_before_the_peer_hears_of_it(held):
    record, store = held
    note(record, REQUEST)
    seen = Seen()
    seen.record = record
    with router([0x0000], seen) as addresses:
        reporter = make(record, store, addresses, [])
        reporter.run(1)
        reporter.run(1)
    ((report, promised_then, primitive),) = seen
    assert (report.transaction_uid, report.event_type) == ("1.2.9", 2)
    assert [each.sop_instance_uid for each in report.kept] == ["1.2.3.1"]
    assert {each.sop_instance_uid: reason for each, reason in report.failed.items()} == {"1.2.3.2": 0x0112}
    assert promised_then == {"1.2.3.1"}
    assert primitive.calling_ae_title == "MSNODE"
    (role,) = [item for item in primitive.user_information if hasattr(item, "scp_role")]
    assert (role.sop_class_uid, role.scp_role) == (commitment.SOP_CLASS_UID, True)
    assert row(record).state == "reported"
    assert audited(record)[-1] == (
        "commitment_reported", {"transaction_uid": "1.2.9", "calling_ae": "ROUTER", "kept": 1, "failed": 1},
    )  # fmt: skip


def test_a_peer_that_does_not_take_the_report_is_told_again_and_given_up_at_the_limit(held):
    record, store = held
    note(record, REQUEST)
    asked, seen = [], Seen()
    seen.record = record
    with router([0x0110], seen) as addresses:
        make(record, store, addresses, asked).run(1)
    assert (row(record).note, asked[-1].workflow_id) == ("report answered with status 0x0110", "report:1:2")
    assert asked[-1].not_before == row(record).next_try_at
    with router([], seen, context=(MR, "1.2.840.10008.1.2")) as addresses:
        make(record, store, addresses, asked).run(1)
    assert "takes no reports of storage commitment" in row(record).note
    nobody = {"ROUTER": DicomAddress("ROUTER", "127.0.0.1", free_port())}
    make(record, store, nobody, asked).run(1)
    assert row(record).state == "dead"
    assert row(record).note.startswith("given up after 3 tries: ROUTER at 127.0.0.1")
    assert len(asked) == 2
    assert promised(record) == {"1.2.3.1"}


def test_a_peer_without_an_address_is_never_told(held):
    record, store = held
    note(record, REQUEST)
    make(record, store, {}, []).run(1)
    assert (row(record).state, row(record).note) == (
        "dead", "the configuration no longer says where this peer takes reports",
    )  # fmt: skip


def desk(record, asked):
    return CommitmentListener(
        record.database, lambda report, senders: (report, senders),
        {"PACS": {"pacs", "archive"}}, {"ROUTER"}, lambda _tx, open_: asked.append(open_.id),
    )  # fmt: skip


def test_only_peers_that_are_enabled_are_promised_anything(record):
    asked = []
    assert desk(record, asked).request(REQUEST, "MODALITY") == 0x0124
    assert open_ids(record) == []
    assert desk(record, asked).request(REQUEST, "ROUTER") == 0x0000
    assert desk(record, asked).request(REQUEST, "ROUTER") == 0x0000
    assert asked == open_ids(record) == [1]


def test_a_peer_repeats_what_could_not_be_noted(record, monkeypatch):
    def gone(**_options):
        raise OutOfResources("the database does not answer")

    monkeypatch.setattr(record.database, "write", gone)
    assert desk(record, []).request(REQUEST, "ROUTER") == 0x0110


def test_a_report_is_taken_for_the_destinations_of_its_sender_alone(record):
    assert desk(record, []).report("report", "PACS") == ("report", {"pacs", "archive"})
    assert desk(record, []).report("report", "OTHER") == ("report", ())
