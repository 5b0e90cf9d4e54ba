from msnode.record import deliveries, jobs, work
from msnode.record.delivery import Recipient, Verify
from msnode.record.job import JobState, Priority


def expected(record):
    with record.database.read() as tx:
        return work.expected(tx)


def ids(record):
    return [w.workflow_id for w in expected(record)]


def test_waiting_and_ended_jobs_need_no_workflow(record):
    record.add()
    assert expected(record) == ()
    record.move(JobState.PASSED_OVER)
    assert expected(record) == ()


def test_queued_and_running_jobs_need_their_reading(record):
    job = record.running()
    (reading,) = expected(record)
    assert (reading.workflow_id, reading.workflow, reading.arguments) == ("job:1:0", "job", (1,))
    assert work.delay_s(reading.not_before, record.at()) == 0
    with record.database.write() as tx:
        jobs.requeue(tx, job, at=record.at(), why="test")
    assert ids(record) == ["job:1:0:1"]


def test_delivering_job_needs_one_workflow_a_destination(record):
    record.delivering()
    first, second = expected(record)
    assert (first.workflow_id, first.arguments) == ("deliver:1:0:archive:1", (1, "archive"))
    assert (second.workflow_id, second.arguments) == ("deliver:1:0:pacs:1", (1, "pacs"))


def test_postponed_delivery_comes_later_under_the_next_number(record):
    record.delivering(recipients={"pacs": ["seg", "sr"]})
    with record.database.write() as tx:
        for delivery in deliveries.pending(tx, 1, "pacs"):
            deliveries.postpone(tx, delivery, at=record.at(), note="", next_try_at=record.at(30))
    (again,) = expected(record)
    assert again.workflow_id == "deliver:1:0:pacs:3"
    assert work.delay_s(again.not_before, record.at(10)) == 20
    assert work.delay_s(again.not_before, record.at(31)) == 0


def test_reading_that_the_engine_gave_up_fails_its_job(record):
    record.running()
    (reading,) = expected(record)
    with record.database.write() as tx:
        work.fail_dead_workflow(
            tx, reading.workflow_id, at=record.at(), why="its process died each time it ran"
        )
    assert (record.job().state, record.job().reason) == (
        JobState.FAILED,
        "its process died each time it ran",
    )


def test_delivery_that_the_engine_gave_up_is_dead(record):
    record.delivering(recipients={"pacs": ["sr"]})
    (sending,) = expected(record)
    with record.database.write() as tx:
        work.fail_dead_workflow(tx, sending.workflow_id, at=record.at(), why="OSError")
    assert record.job().state == JobState.FAILED


def test_burying_what_was_requeued_since_does_nothing(record):
    job = record.running()
    (reading,) = expected(record)
    with record.database.write() as tx:
        jobs.requeue(tx, job, at=record.at(), why="test")
        work.fail_dead_workflow(tx, reading.workflow_id, at=record.at(), why="test")
    assert record.job().state == JobState.QUEUED


def test_what_is_not_a_jobs_workflow_is_not_buried(record):
    record.running()
    with record.database.write() as tx:
        for other in ("report:1", "job:", "job:one:0", "else:1:0"):
            work.fail_dead_workflow(tx, other, at=record.at(), why="test")
    assert record.job().state == JobState.RUNNING


def test_each_destination_has_a_queue_of_its_own_and_the_jobs_priority(record):
    record.delivering(priority=Priority.STAT)
    assert {(w.queue, w.priority) for w in expected(record)} == {("deliver-archive", 1), ("deliver-pacs", 1)}


def test_what_a_destination_has_to_confirm_is_a_workflow(record):
    record.delivering(recipients={"pacs": Recipient(frozenset({"sr"}), Verify.FIND)})
    with record.database.write() as tx:
        (sr,) = deliveries.pending(tx, 1, "pacs")
        deliveries.delivered(tx, sr, at=record.at(300))
    (verify,) = expected(record)
    assert (verify.workflow_id, verify.workflow, verify.queue) == (
        "verify:1:0:pacs:1", "verify", "deliver-pacs",
    )  # fmt: skip
    with record.database.write() as tx:
        deliveries.ask_later(tx, sr, at=record.at(301), note="not found", next_try_at=record.at(330))
    (verify,) = expected(record)
    assert verify.workflow_id == "verify:1:0:pacs:2"
    assert work.delay_s(verify.not_before, record.at(310)) == 20


def test_a_verification_that_the_engine_gave_up_ends_the_job_with_a_word(record):
    record.delivering(recipients={"pacs": Recipient(frozenset({"sr"}), Verify.FIND)})
    with record.database.write() as tx:
        (sr,) = deliveries.pending(tx, 1, "pacs")
        deliveries.delivered(tx, sr, at=record.at(300))
        work.fail_dead_workflow(tx, "verify:1:0:pacs:1", at=record.at(310), why="KeyError")
    assert record.job().state == JobState.COMPLETED
    assert "KeyError" in record.job().reason


def test_a_destination_is_owed_while_its_job_is_under_way(record):
    record.delivering(
        recipients={"pacs": Recipient(frozenset({"sr"})), "former": Recipient(frozenset({"seg"}))}
    )

    def owed():
        with record.database.read() as tx:
            return work.destinations_owed(tx)

    assert owed() == {"pacs", "former"}
    with record.database.write() as tx:
        for name in ("pacs", "former"):
            deliveries.delivered(tx, *deliveries.pending(tx, 1, name), at=record.at(300))
    assert owed() == frozenset()
