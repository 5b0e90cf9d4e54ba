import pytest

from msnode.domain.provenance import PassedOver
from msnode.errors import InvalidTransition
from msnode.record import administration, jobs
from msnode.record.job import TRANSITIONS, JobState


@pytest.mark.parametrize("state", JobState)
def test_what_the_table_does_not_allow_is_refused(record, state):
    record.add()
    job = record.job().evolve(state=state)
    for to in set(JobState) - TRANSITIONS[state]:
        with pytest.raises(InvalidTransition, match=f"job 1 is {state}"), record.database.write() as tx:
            jobs.move(tx, job, to, at=record.at(), why="test")
    assert record.job().state == JobState.RECEIVING


def test_move_records_state_reason_and_transition(record):
    record.add()
    moved = record.move(JobState.QUEUED)
    assert moved == record.job()
    assert (moved.state, moved.reason, moved.state_since) == (JobState.QUEUED, "test", record.at(200))
    with record.database.read() as tx:
        steps = administration.show(tx, 1).transitions
    assert [(s.before, s.state) for s in steps] == [
        (None, JobState.RECEIVING),
        (JobState.RECEIVING, JobState.QUEUED),
    ]


def test_decision_on_an_old_snapshot_is_refused(record):
    record.add()
    old = record.job()
    record.move(JobState.CANCELLED)
    with pytest.raises(InvalidTransition, match="no longer receiving"), record.database.write() as tx:
        jobs.move(tx, old, JobState.QUEUED, at=record.at(), why="test")
    assert record.job().state == JobState.CANCELLED


def test_identity_of_a_job_is_no_fact_to_set(record):
    record.add()
    with pytest.raises(InvalidTransition, match="revision"):
        record.move(JobState.QUEUED, revision=3)


def test_start_sets_the_recorded_start_once_and_counts_interruptions_apart(record):
    first = record.running()
    assert (first.attempts, first.started_at) == (1, record.at(210))
    with record.database.write() as tx:
        second = jobs.start(tx, 1, at=record.at(900), runtime="openvino-cpu-f32")
    assert (second.state, second.attempts, second.interruptions) == (JobState.RUNNING, 1, 1)
    assert second.started_at == record.at(210)
    assert record.job().runtime == "openvino-cpu-f32"


def test_worker_that_lost_its_job_to_another_cannot_finish_it(record):
    first = record.running()
    with record.database.write() as tx:
        jobs.start(tx, 1, at=record.at(900))
    with pytest.raises(InvalidTransition, match="attempt 1"), record.database.write() as tx:
        jobs.move(tx, first, JobState.FAILED, at=record.at(), why="test")


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.RECEIVING, None])
def test_nothing_to_start(record, state):
    if state is not None:
        record.add()
    if state == JobState.CANCELLED:
        record.move(state)
    with record.database.write() as tx:
        assert jobs.start(tx, 1, at=record.at()) is None


def test_requeue_counts(record):
    job = record.running()
    with record.database.write() as tx:
        jobs.requeue(tx, job, at=record.at(), why="inference child ended")
    assert (record.job().state, record.job().requeues, record.job().attempts) == (JobState.QUEUED, 1, 1)


def test_an_attempt_that_was_not_the_jobs_own_failure_is_not_counted(record):
    job = record.running()
    with record.database.write() as tx:
        later = jobs.requeue(tx, job, at=record.at(300), why="disk full", counted=False, delay_s=30)
    assert later == record.job()
    assert (later.attempts, later.not_before) == (0, record.at(330))
    with record.database.write() as tx:
        again = jobs.start(tx, 1, at=record.at(340))
    assert (again.attempts, again.not_before) == (1, None)


def test_revisions_are_read_in_order(record):
    first = record.running()
    record.add(2, seconds=300)
    second = record.move(JobState.QUEUED, job_id=2)
    with record.database.read() as tx:
        assert jobs.awaits_former(tx, second)
        assert not jobs.awaits_former(tx, first)
    record.move(JobState.FAILED)
    with record.database.read() as tx:
        assert not jobs.awaits_former(tx, second)


def test_list_is_newest_first_filtered_and_limited(record):
    for number in range(1, 5):
        record.add(number, study_instance_uid=f"1.{number}")
    record.move(JobState.QUEUED, job_id=2)
    with record.database.read() as tx:
        assert [j.id for j in jobs.recent(tx, limit=3)] == [4, 3, 2]
        assert [j.id for j in jobs.recent(tx, state=JobState.RECEIVING)] == [4, 3, 1]
        assert jobs.find(tx, 99) is None


def test_selection_notes_replace_those_of_an_earlier_attempt(record):
    job = record.running()
    for reason in ("localiser", "fewer than 10 slices"):
        with record.database.write() as tx:
            jobs.note_selection(tx, job, "1.2.1", [PassedOver("1.2.2", reason)])
    with record.database.read() as tx:
        details = administration.show(tx, 1)
    assert details.passed_over == (PassedOver("1.2.2", "fewer than 10 slices"),)
    assert details.job.series_instance_uid == "1.2.1"


def test_former_is_the_last_revision_with_results(record):
    record.delivering(recipients={})
    record.add(2)
    record.move(JobState.PASSED_OVER, job_id=2)
    record.add(3)
    with record.database.read() as tx:
        assert jobs.former(tx, record.job(3)).id == 1
        assert jobs.former(tx, record.job(1)) is None


def test_a_waiting_job_says_why_without_a_transition(record):
    record.add()
    with record.database.write() as tx:
        jobs.explain(tx, record.job(), "1 of 1 series cut off")
    assert (record.job().state, record.job().reason) == (JobState.RECEIVING, "1 of 1 series cut off")
    with record.database.read() as tx:
        assert len(administration.show(tx, 1).transitions) == 1
    old = record.job()
    record.move(JobState.CANCELLED)
    with record.database.write() as tx:
        jobs.explain(tx, old, "too late")
    assert record.job().reason == "test"
