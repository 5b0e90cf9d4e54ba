"""What peers ask the node to keep, and what they are told."""

from msnode.dicom.commitment import Reference, Request
from msnode.record import promises, schema
from support.commitment_requests import MR, audited, decide, note, open_ids, promised


def test_a_request_is_taken_once_for_each_peer(record):
    request = Request("1.2.9", (Reference(MR, "1.2.3.1"), Reference(MR, "1.2.3.2")))
    first = note(record, request)
    assert (first.request, first.calling_ae, first.workflow_id) == (request, "ROUTER", "report:1:1")
    assert note(record, request) is None
    assert note(record, request, calling_ae="OTHER").id != first.id
    assert len(open_ids(record)) == 2
    assert [event for event, _ in audited(record)] == [
        "commitment_request_taken", "commitment_request_repeated", "commitment_request_taken",
    ]  # fmt: skip


def test_what_is_there_is_promised_and_what_is_not_has_its_reason(record):
    first = record.add(1)
    record.add(2)
    record.add(3)
    lost = record.add(4)
    with record.database.write() as tx:
        removed = schema.instance.c.sop_instance_uid == "1.2.3.3"
        tx.execute(schema.instance.update().where(removed).values(removed_at=record.at(50)))
    request = Request("1.2.9", (
        Reference(MR, "1.2.3.1"), Reference("1.2.840.10008.5.1.4.1.1.2", "1.2.3.2"),
        Reference(MR, "1.2.3.3"), Reference(MR, "1.2.3.4"), Reference(MR, "1.2.3.5"),
    ))  # fmt: skip
    kept, failed = decide(record, request, has_bytes=lambda digest: digest != lost.digest)
    assert kept == ["1.2.3.1"]
    assert failed == {"1.2.3.2": 0x0119, "1.2.3.3": 0x0112, "1.2.3.4": 0x0112, "1.2.3.5": 0x0112}
    assert promised(record) == {"1.2.3.1"}
    assert first.sop_instance_uid == "1.2.3.1"


def test_only_the_latest_version_counts(record):
    old = record.add(1, content="a")
    new = record.add(1, content="b", replaces=old.digest)
    looked_for = []
    kept, _ = decide(
        record,
        Request("1.2.9", (Reference(MR, "1.2.3.1"),)),
        lambda digest: looked_for.append(digest) or True,
    )
    assert kept == ["1.2.3.1"]
    assert looked_for == [new.digest] != [old.digest]


def test_many_instances_are_decided_in_batches(record, monkeypatch):
    monkeypatch.setattr(promises, "_AT_ONCE", 4)
    for number in range(1, 10):
        record.add(number)
    references = tuple(Reference(MR, f"1.2.3.{number}") for number in range(1, 12))
    kept, failed = decide(record, Request("1.2.9", references))
    assert kept == [f"1.2.3.{number}" for number in range(1, 10)]
    assert failed == {"1.2.3.10": 0x0112, "1.2.3.11": 0x0112}
