from datetime import timedelta

from msnode.record import administration, deliveries
from msnode.record.job import JobState, Priority
from msnode.record.overview import overview


def look(record, seconds=1000, alarm_after_s=600):
    with record.database.read() as tx:
        return overview(tx, now=record.at(seconds), alarm_after_s=alarm_after_s)


def test_a_node_at_rest(record):
    found = look(record)
    assert (found.jobs, found.oldest_waiting_s, found.alarms) == ({}, None, ())


def test_counts_and_age_of_what_waits(record):
    record.add()
    record.move(JobState.QUEUED)
    record.add(2, study_instance_uid="1.9", series_instance_uid="1.9.1", seconds=100)
    found = look(record, seconds=500)
    assert found.jobs == {"queued": 1, "receiving": 1}
    assert found.oldest_waiting_s == 500
    assert found.alarms == ()


def test_waiting_too_long_is_an_alarm(record):
    record.add()
    record.move(JobState.QUEUED)
    (alarm,) = look(record).alarms
    assert alarm.startswith("job 1 has waited 17 min to be read")


def test_a_destination_that_gets_nothing_for_too_long_is_an_alarm(record):
    record.delivering()
    assert look(record, seconds=800).alarms == ()
    assert look(record, seconds=880).alarms == (
        "jobs waiting to be delivered to archive: 1, the oldest for 11 min",
        "jobs waiting to be delivered to pacs: 1, the oldest for 11 min",
    )


def test_a_failed_job_is_an_alarm(record):
    record.running()
    record.move(JobState.FAILED)
    assert look(record).alarms == ("job 1 failed: test",)


def test_a_dead_delivery_is_an_alarm_while_another_destination_is_waited_for(record):
    record.delivering()
    with record.database.write() as tx:
        for delivery in deliveries.pending(tx, 1, "pacs"):
            deliveries.gave_up(tx, delivery, at=record.at(300), note="no route")
    assert record.job().state == JobState.DELIVERING
    assert look(record, seconds=400).alarms == ("job 1: pacs did not get 2 objects",)


def test_a_waiting_job_is_hurried_under_a_new_workflow(record):
    record.add()
    record.move(JobState.QUEUED)
    with record.database.write() as tx:
        job, former = administration.hurry(tx, 1, at=record.at(300))
    assert (job.state, job.priority, job.requeues) == (JobState.QUEUED, Priority.STAT, 1)
    assert [w.workflow_id for w in former] == ["job:1:0"]
    assert record.job() == job
    assert job.state_since - timedelta(seconds=300) == record.at()


def test_a_study_that_is_coming_in_is_hurried(record):
    record.add()
    with record.database.write() as tx:
        _, former = administration.hurry(tx, 1, at=record.at(300))
    assert former == ()
    assert record.job().priority == Priority.STAT


def test_bytes_that_were_set_aside_are_an_alarm(record):
    with record.database.read() as tx:
        found = overview(tx, now=record.at(), alarm_after_s=600, set_aside=["ab" * 32])
    (alarm,) = found.alarms
    assert "ab" * 32 in alarm
