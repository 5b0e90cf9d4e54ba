import pytest

from msnode.domain.provenance import PassedOver
from msnode.errors import InvalidTransition
from msnode.record import administration, deliveries, jobs, work
from msnode.record.delivery import DeliveryState
from msnode.record.job import JobState
from msnode.record.results import finish_reading


def retry(record, job_id=1):
    with record.database.write() as tx:
        job = administration.retry(tx, job_id, at=record.at(500))
        return job, [w.workflow_id for w in work.of_job(tx, job)]


def cancel(record, job_id=1):
    with record.database.write() as tx:
        return [w.workflow_id for w in administration.cancel(tx, job_id, at=record.at(500))]


def close(record, how, destination="pacs"):
    with record.database.write() as tx:
        for delivery in deliveries.pending(tx, 1, destination):
            how(tx, delivery, at=record.at(400), note="test")


def test_show_tells_everything(record):
    job = record.delivering()
    with record.database.write() as tx:
        jobs.note_selection(tx, job, "1.2.1", [PassedOver("1.2.2", "localiser")])
        details = administration.show(tx, 1)
    assert details.job.state == JobState.DELIVERING
    assert [(s.series_instance_uid, s.modality, s.instance_count) for s in details.series] == [
        ("1.2.1", "MR", 1)
    ]
    assert details.passed_over == (PassedOver("1.2.2", "localiser"),)
    assert [t.state for t in details.transitions] == ["receiving", "queued", "running", "delivering"]
    assert [r.kind for r in details.results] == ["seg", "sr"]
    assert len(details.deliveries) == 3


def test_unknown_job(record):
    with record.database.read() as tx:
        assert administration.show(tx, 7) is None
    for order in (retry, cancel):
        with pytest.raises(InvalidTransition, match="no job 7"):
            order(record, 7)


def test_held_study_is_read_with_what_there_is(record):
    record.add()
    job, ids = retry(record)
    assert (job.state, job.reason, ids) == (JobState.QUEUED, "by administrator", ["job:1:0"])


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_failed_reading_is_queued_under_a_new_id_and_keeps_its_start(record, state):
    record.running()
    record.move(state)
    job, ids = retry(record)
    assert (job.state, job.attempts, ids) == (JobState.QUEUED, 0, ["job:1:0:1"])
    assert job.started_at == record.at(210)


def test_dead_deliveries_are_sent_again_under_new_ids(record):
    record.delivering()
    close(record, deliveries.gave_up, "pacs")
    close(record, deliveries.delivered, "archive")
    assert record.job().state == JobState.FAILED
    job, ids = retry(record)
    assert (job.state, ids) == (JobState.DELIVERING, ["deliver:1:0:pacs:1:1"])
    close(record, deliveries.delivered, "pacs")
    assert record.job().state == JobState.COMPLETED


def test_refused_objects_of_a_completed_job_are_sent_again(record):
    record.delivering()
    close(record, deliveries.refused, "pacs")
    close(record, deliveries.delivered, "archive")
    assert record.job().state == JobState.COMPLETED
    assert retry(record)[0].state == JobState.DELIVERING


@pytest.mark.parametrize("rejection", [None, "slices overlap"])
def test_job_that_ended_well_has_nothing_to_retry(record, rejection):
    record.delivering(recipients={}, rejection=rejection)
    with pytest.raises(InvalidTransition, match="nothing to retry"):
        retry(record)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
def test_job_in_progress_is_not_retried(record, state):
    record.running()
    if state == JobState.QUEUED:
        record.move(state)
    with pytest.raises(InvalidTransition, match=f"is {state}"):
        retry(record)


def test_unchanged_revision_is_final(record):
    record.running()
    record.move(JobState.UNCHANGED)
    with pytest.raises(InvalidTransition, match="final"):
        retry(record)


def test_cancelling_names_what_the_engine_holds(record):
    record.add()
    record.move(JobState.QUEUED)
    assert cancel(record) == ["job:1:0"]
    assert record.job().state == JobState.CANCELLED
    with pytest.raises(InvalidTransition, match="is cancelled"):
        cancel(record)


def test_worker_cannot_finish_a_job_cancelled_under_it(record):
    job = record.running()
    cancel(record)
    with pytest.raises(InvalidTransition, match="no longer running"), record.database.write() as tx:
        finish_reading(tx, job, [record.result("sr")], {"pacs": ["sr"]}, at=record.at(), why="")


def test_cancelling_keeps_what_was_delivered_and_can_be_undone(record):
    record.delivering()
    close(record, deliveries.delivered, "archive")
    assert cancel(record) == ["deliver:1:0:pacs:1"]
    with record.database.read() as tx:
        states = {d.destination: d.state for d in deliveries.of_job(tx, 1)}
    assert states == {"archive": DeliveryState.DELIVERED, "pacs": DeliveryState.CANCELLED}
    assert retry(record)[1] == ["deliver:1:0:pacs:1:1"]


def test_retry_of_a_cancelled_job_whose_objects_all_arrived_completes_it(record):
    record.delivering(recipients={"archive": ["sr"]})
    with record.database.read() as tx:
        (on_its_way,) = deliveries.pending(tx, 1, "archive")
    cancel(record)
    with record.database.write() as tx:
        deliveries.delivered(tx, on_its_way, at=record.at(600))
    assert record.job().state == JobState.CANCELLED
    assert retry(record)[0].state == JobState.COMPLETED
