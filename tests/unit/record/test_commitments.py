"""What becomes of deliveries when a destination reports on them."""

import json

import pytest
import sqlalchemy as sa

from msnode.dicom.commitment import Reference, Report
from msnode.record import audit, commitments, deliveries, jobs, schema, work
from msnode.record.commitments import ReportOutcome, State
from msnode.record.delivery import DeliveryState, Recipient, Verify
from msnode.record.job import JobState

T1, T2 = "2.25.1001", "2.25.1002"
SEG, SR = Reference("1.2.840", "2.25.1"), Reference("1.2.840", "2.25.2")
BY_COMMITMENT = {"pacs": Recipient(frozenset({"seg", "sr"}), Verify.COMMITMENT)}


def delay(attempt, _key):
    """Ten seconds a try, five tries."""
    return None if attempt >= 5 else 10.0 * attempt


@pytest.fixture
def delivered(record):
    """A record whose job 1 has reached the destination, which has to confirm it."""
    record.delivering(recipients=BY_COMMITMENT)
    with record.database.write() as tx:
        for delivery in deliveries.pending(tx, 1, "pacs"):
            deliveries.delivered(tx, delivery, at=record.at(300), status=0)
    return record


def of_job(record):
    with record.database.read() as tx:
        return deliveries.of_job(tx, 1)


def states(record):
    return {d.result.kind: d.state for d in of_job(record)}


def request(record, transaction_uid=T1, *, kinds=("seg", "sr"), seconds=310, accepted=True):
    with record.database.write() as tx:
        which = [d for d in deliveries.unconfirmed(tx, 1, "pacs") if d.result.kind in kinds]
        deadline = record.at(seconds + 1000)
        commitments.prepare(tx, transaction_uid, which, at=record.at(seconds), deadline_at=deadline)
        if accepted:
            commitments.requested(tx, transaction_uid, at=record.at(seconds), deadline_at=deadline)
            deliveries.ask_later(tx, *which, at=record.at(seconds), note="waits", next_try_at=deadline)


def note(record, report, *, senders=("pacs",), seconds=400):
    with record.database.write() as tx:
        return commitments.note_report(tx, report, senders=senders, at=record.at(seconds), delay=delay)


def audited(record):
    with record.database.read() as tx:
        assert audit.verify(tx) is None
        lines = tx.execute(sa.select(schema.audit).order_by(schema.audit.c.id)).all()
    return [(line.event, json.loads(line.facts)) for line in lines]


def outstanding(record):
    with record.database.read() as tx:
        return [(o.transaction_uid, o.state) for o in commitments.outstanding(tx, 1, "pacs")]


def next_work(record):
    with record.database.read() as tx:
        return [(w.workflow_id, work.delay_s(w.not_before, record.at(400))) for w in work.expected(tx)]


def test_what_is_kept_is_committed_and_the_job_ends(delivered):
    request(delivered)
    noted = note(delivered, Report(T1, (SEG, SR)))
    assert (noted.outcome, noted.job_id, noted.status) == (ReportOutcome.APPLIED, 1, 0x0000)
    assert set(states(delivered).values()) == {DeliveryState.COMMITTED}
    assert delivered.job().state == JobState.COMPLETED
    assert outstanding(delivered) == []


def test_only_what_failed_is_sent_again_and_asked_for_again(delivered):
    request(delivered)
    note(delivered, Report(T1, (SR,), {SEG: 0x0112}))
    assert states(delivered) == {"seg": DeliveryState.PENDING, "sr": DeliveryState.COMMITTED}
    assert delivered.job().state == JobState.DELIVERING
    (seg,) = (d for d in of_job(delivered) if d.result.kind == "seg")
    assert (seg.note, seg.next_try_at) == ("not committed: no such object (0x0112)", delivered.at(410))
    assert next_work(delivered) == [("deliver:1:0:pacs:4", 10)]
    with delivered.database.write() as tx:
        deliveries.delivered(tx, seg, at=delivered.at(420), status=0)
    # the workflow that waits for the old deadline has the number 3: this one must not be taken for it
    assert next_work(delivered) == [("verify:1:0:pacs:4", 0)]


def test_what_the_report_leaves_out_is_asked_for_again(delivered):
    request(delivered)
    note(delivered, Report(T1, (SR,)))
    assert states(delivered) == {"seg": DeliveryState.DELIVERED, "sr": DeliveryState.COMMITTED}
    assert delivered.job().state == JobState.DELIVERED
    assert next_work(delivered) == [("verify:1:0:pacs:4", 20)]
    assert audited(delivered)[-1][1]["left_out"] == 1


def test_a_report_may_come_before_the_answer_to_its_request_is_noted(delivered):
    request(delivered, accepted=False)
    note(delivered, Report(T1, (SEG,)))
    with delivered.database.write() as tx:
        assert not commitments.requested(tx, T1, at=delivered.at(401), deadline_at=delivered.at(9000))
        assert commitments.is_answered(tx, T1)
    assert outstanding(delivered) == []


def test_an_unknown_transaction_is_answered_and_audited(delivered):
    request(delivered)
    noted = note(delivered, Report("2.25.999", (SEG, SR)))
    assert (noted.outcome, noted.job_id, noted.status) == (ReportOutcome.UNKNOWN, None, 0x0000)
    assert set(states(delivered).values()) == {DeliveryState.DELIVERED}
    assert audited(delivered)[-1][0] == "commitment_report_unknown"


def test_a_repeated_report_changes_nothing(delivered):
    request(delivered)
    note(delivered, Report(T1, (SR,), {SEG: 0x0112}))
    before = of_job(delivered)
    for again in (Report(T1, (SR,), {SEG: 0x0112}), Report(T1, (SEG, SR)), Report(T1, (), {SR: 0x0110})):
        assert note(delivered, again, seconds=500).outcome == ReportOutcome.REPEATED
    assert of_job(delivered) == before
    assert [event for event, _ in audited(delivered)[-3:]] == ["commitment_report_repeated"] * 3


def test_a_report_of_somebody_else_changes_nothing(delivered):
    request(delivered)
    noted = note(delivered, Report(T1, (SEG, SR)), senders=("archive",))
    assert (noted.outcome, noted.status) == (ReportOutcome.WRONG_SENDER, 0x0124)
    assert set(states(delivered).values()) == {DeliveryState.DELIVERED}
    assert audited(delivered)[-1][0] == "commitment_report_wrong_sender"
    assert note(delivered, Report(T1, (SEG, SR))).outcome == ReportOutcome.APPLIED


def test_objects_that_are_not_of_the_transaction_are_counted_and_ignored(delivered):
    request(delivered, kinds=("seg",))
    note(delivered, Report(T1, (SEG, SR), {Reference("1.2", "1.2.3"): 0x0112}))
    assert states(delivered) == {"seg": DeliveryState.COMMITTED, "sr": DeliveryState.DELIVERED}
    assert audited(delivered)[-1][1]["foreign"] == 2


def test_a_late_report_commits_what_it_can_and_leaves_the_rest_to_the_newer_request(delivered):
    request(delivered)
    with delivered.database.write() as tx:
        commitments.close(tx, T1, State.OVERDUE)
        assert commitments.overdue_count(tx, 1, "pacs") == 1
    request(delivered, T2, seconds=1400)
    note(delivered, Report(T1, (SR,), {SEG: 0x0112}), seconds=1500)
    assert states(delivered) == {"seg": DeliveryState.DELIVERED, "sr": DeliveryState.COMMITTED}
    assert outstanding(delivered) == [(T2, State.REQUESTED)]
    assert audited(delivered)[-1][1]["late"] is True
    note(delivered, Report(T2, (SEG, SR)), seconds=1600)
    assert delivered.job().state == JobState.COMPLETED


def test_a_late_failure_opens_a_job_that_ended_in_doubt(delivered):
    request(delivered)
    with delivered.database.write() as tx:
        which = deliveries.unconfirmed(tx, 1, "pacs")
        deliveries.cannot_confirm(tx, *which, at=delivered.at(2000), note="it never answered")
    assert delivered.job().state == JobState.COMPLETED
    note(delivered, Report(T1, (SR,), {SEG: 0x0110}), seconds=3000)
    assert delivered.job().state == JobState.DELIVERING
    assert states(delivered) == {"seg": DeliveryState.PENDING, "sr": DeliveryState.COMMITTED}


def test_a_cancelled_job_stays_cancelled(delivered):
    request(delivered)
    delivered.move(JobState.CANCELLED)
    note(delivered, Report(T1, (SR,), {SEG: 0x0110}))
    assert delivered.job().state == JobState.CANCELLED
    assert states(delivered) == {"seg": DeliveryState.DELIVERED, "sr": DeliveryState.COMMITTED}
    assert next_work(delivered) == []


def test_an_object_that_is_never_kept_is_given_up_at_the_limit(delivered):
    for round_ in range(5):
        request(delivered, f"2.25.{round_ + 1}", kinds=("seg",), seconds=1000 * round_)
        note(delivered, Report(f"2.25.{round_ + 1}", (), {SEG: 0x0122}), seconds=1000 * round_ + 10)
        with delivered.database.write() as tx:
            for delivery in deliveries.pending(tx, 1, "pacs"):
                deliveries.delivered(tx, delivery, at=delivered.at(1000 * round_ + 20), status=0)
    assert states(delivered) == {"seg": DeliveryState.DEAD, "sr": DeliveryState.DELIVERED}
    request(delivered, "2.25.77", seconds=9000)
    note(delivered, Report("2.25.77", (SR,)), seconds=9010)
    assert delivered.job().state == JobState.FAILED
    assert "given up after 5 tries: not committed: SOP class not supported (0x0122)" in delivered.job().reason


def test_two_requests_of_a_job_are_told_apart(delivered):
    request(delivered, T1, kinds=("seg",))
    request(delivered, T2, kinds=("sr",), accepted=False)
    assert outstanding(delivered) == [(T1, State.REQUESTED), (T2, State.PREPARED)]
    with delivered.database.write() as tx:
        commitments.close(tx, T2, State.REFUSED)
    assert outstanding(delivered) == [(T1, State.REQUESTED)]
    note(delivered, Report(T2, (SR,)))  # refused, and yet it was carried out
    assert states(delivered) == {"seg": DeliveryState.DELIVERED, "sr": DeliveryState.COMMITTED}


def test_nothing_is_moved_that_a_person_has_taken_in_hand(delivered):
    request(delivered)
    delivered.move(JobState.FAILED)
    with delivered.database.write() as tx:
        commitments.note_report(
            tx, Report(T1, (SEG, SR)), senders={"pacs"}, at=delivered.at(400), delay=delay
        )
        assert jobs.find(tx, 1).state == JobState.FAILED
    assert set(states(delivered).values()) == {DeliveryState.COMMITTED}
