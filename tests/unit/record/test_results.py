import pytest

from msnode.errors import InvalidTransition
from msnode.record import deliveries, jobs
from msnode.record.delivery import DeliveryState, Recipient
from msnode.record.job import JobState
from msnode.record.results import finish_reading, results_of, withdraw_former


def pending(record, destination):
    with record.database.read() as tx:
        return deliveries.pending(tx, 1, destination)


def deliver_all(record, *destinations):
    for destination in destinations:
        for delivery in pending(record, destination):
            with record.database.write() as tx:
                deliveries.delivered(tx, delivery, at=record.at(300), status=0)


def states(record):
    with record.database.read() as tx:
        return [(d.destination, d.result.kind, d.state) for d in deliveries.of_job(tx, 1)]


def test_each_destination_gets_what_it_takes(record):
    job = record.delivering(lesion_count=3, lesion_volume_mm3=512.5, timings_s={"segment": 2.5})
    assert job.state == JobState.DELIVERING
    assert job == record.job()
    assert [(d.result.kind, d.result_set) for d in pending(record, "pacs")] == [
        ("seg", "set-1"),
        ("sr", "set-1"),
    ]
    assert [d.result for d in pending(record, "archive")] == [record.result("sr")]
    assert record.job().timings_s == {"segment": 2.5}


def test_job_without_destinations_is_done_at_once(record):
    assert record.delivering(recipients={}).state == JobState.COMPLETED
    assert record.job().state == JobState.COMPLETED


def test_finish_by_a_worker_that_lost_the_job_leaves_nothing(record):
    old = record.running()
    with record.database.write() as tx:
        jobs.start(tx, 1, at=record.at(900))
    with pytest.raises(InvalidTransition), record.database.write() as tx:
        finish_reading(
            tx, old, [record.result("sr")], {"pacs": Recipient(frozenset({"sr"}))}, at=record.at(), why=""
        )
    assert states(record) == []
    with record.database.read() as tx:
        assert results_of(tx, old.id) == ()


def test_one_uid_never_has_two_contents(record):
    record.delivering(recipients={})
    record.add(2)
    record.move(JobState.QUEUED, job_id=2)
    with record.database.write() as tx:
        other = jobs.start(tx, 2, at=record.at(400))
    with (
        pytest.raises(InvalidTransition, match=r"2\.25\.2 is already recorded"),
        record.database.write() as tx,
    ):
        finish_reading(tx, other, [record.result("sr", "cd" * 32)], {}, at=record.at(), why="")


def _revision(record):
    record.add(2, seconds=500)
    record.move(JobState.QUEUED, job_id=2)
    with record.database.write() as tx:
        later = jobs.start(tx, 2, at=record.at(600))
        withdraw_former(tx, later, at=record.at(610))


def test_a_revision_withdraws_what_was_not_sent_at_all(record):
    record.delivering()
    _revision(record)
    assert (record.job().state, record.job().reason) == (
        JobState.CANCELLED,
        "replaced by revision 1 before anything was sent",
    )
    assert pending(record, "pacs") == ()


def test_a_revision_withdraws_the_rest_of_what_was_sent_in_part(record):
    record.delivering()
    deliver_all(record, "archive")
    _revision(record)
    assert record.job().state == JobState.COMPLETED
    assert ("pacs", "sr", DeliveryState.CANCELLED) in states(record)
    assert ("archive", "sr", DeliveryState.DELIVERED) in states(record)
