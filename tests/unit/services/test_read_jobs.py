"""What the worker makes of a reading's end, on a record."""

import sqlalchemy as sa

from msnode.errors import ModelError, OutOfResources, ProcessDied, ProcessKilled, StoredBytesChanged
from msnode.reading.summary import ReadingStatus, ReadingSummary
from msnode.record import deliveries, jobs, schema
from msnode.record.delivery import Recipient, Result
from msnode.record.job import JobState
from msnode.services.read_jobs import Worker


class ChildThat:
    """Ends every reading in the way a test wants."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.read_ids = []

    def read(self, job_id):
        self.read_ids.append(job_id)
        raise self.errors.pop(0)


def work_through(record, child, *, attempts=3, runs=20):
    """Have the worker take up job 1 until it ends or waits; returns what the engine was asked to run."""
    asked = []
    worker = Worker(record.database, child, lambda _tx, job: asked.append(job), {}, attempts=attempts)
    for _ in range(runs):
        if record.job().state not in {JobState.QUEUED, JobState.RUNNING}:
            break
        worker.run(1)
    return asked


def queued(record):
    record.add()
    record.move(JobState.QUEUED)


def test_an_input_that_kills_its_reader_is_given_up_after_its_attempts(record):
    queued(record)
    asked = work_through(record, ChildThat(*[ProcessDied("inference child ended (signal SIGSEGV)")] * 3))
    assert (record.job().state, len(asked)) == (JobState.FAILED, 2)
    assert "SIGSEGV" in record.job().reason


def test_a_reader_that_is_killed_from_outside_is_no_attempt(record):
    queued(record)
    asked = work_through(
        record, ChildThat(*[ProcessKilled("inference child ended (signal SIGKILL)")] * 4), runs=4
    )
    assert (record.job().state, record.job().attempts, record.job().interruptions) == (JobState.QUEUED, 0, 4)
    assert [job.not_before is None for job in asked] == [True, True, False, True]


def test_a_reader_that_is_killed_for_ever_is_given_up(record):
    queued(record)
    work_through(record, ChildThat(*[ProcessKilled("killed")] * 50), runs=50)
    assert record.job().state == JobState.FAILED
    assert "cut off 30 times" in record.job().reason


def test_bytes_that_have_changed_fail_the_job_and_are_an_alarm_and_an_audit_line(record, capsys):
    queued(record)
    work_through(record, ChildThat(StoredBytesChanged("ab/abab.dcm has SHA-256 …")))
    assert record.job().state == JobState.FAILED
    assert "abab.dcm" in record.job().reason
    assert "stored_bytes_changed" in capsys.readouterr().out
    with record.database.read() as tx:
        assert tx.execute(sa.select(schema.audit.c.event)).scalars().all() == ["stored_bytes_changed"]


def test_a_full_disk_is_waited_for_and_does_not_count(record):
    queued(record)
    asked = work_through(record, ChildThat(*[OutOfResources("no space left")] * 10), runs=10)
    assert (record.job().state, record.job().attempts) == (JobState.QUEUED, 0)
    assert all(job.not_before > job.state_since for job in asked)


def test_a_job_that_is_cut_off_again_and_again_steps_aside_and_fails_in_the_end(record):
    queued(record)
    with record.database.write() as tx:
        jobs.start(tx, 1, at=record.at(300))
    read = ChildThat(*[KeyboardInterrupt()] * 100)  # the process ends in the middle
    asked = []
    worker = Worker(record.database, read, lambda _tx, job: asked.append(job), {}, attempts=3)
    takes = 0
    while record.job().state in {JobState.QUEUED, JobState.RUNNING}:
        takes += 1
        assert takes < 100
        try:
            worker.run(1)
        except KeyboardInterrupt:
            continue
    assert record.job().state == JobState.FAILED
    assert "cut off 30 times" in record.job().reason
    assert len(asked) == 9
    assert all(job.attempts == 0 and job.not_before is not None for job in asked)


def test_a_revision_waits_until_the_one_before_is_read(record):
    queued(record)
    record.add(2, seconds=300)
    record.move(JobState.QUEUED, job_id=2)
    child = ChildThat()
    asked = []
    Worker(record.database, child, lambda _tx, job: asked.append(job), {}, attempts=3).run(2)
    assert child.read_ids == []
    (later,) = asked
    assert (later.id, later.state, later.requeues) == (2, JobState.QUEUED, 1)


def test_a_job_cancelled_while_it_was_read_stays_cancelled(record):
    queued(record)

    class Slow(ChildThat):
        def read(self, job_id):
            record.move(JobState.CANCELLED)
            return super().read(job_id)

    work_through(record, Slow(ModelError("broken")))
    assert record.job().state == JobState.CANCELLED


class ChildThatReads:
    """Ends every reading with a report, of which each has a UID of its own."""

    def __init__(self):
        self.read_ids = []

    def read(self, job_id):
        self.read_ids.append(job_id)
        report = Result("sr", f"2.25.{job_id}", "1.2.840", "2.25.9", "sr.dcm", "ab" * 32)
        return ReadingSummary(
            ReadingStatus.COMPLETED, "3 lesions", selection_digest="", msnode_version="", settings_digest="",
            runtime="", series_instance_uid="1.2.1", results=(report,), result_set=f"set-{job_id}",
        )  # fmt: skip


def routed_to(record, *names, job_id=1, takes=("pacs", "research", "archive")):
    """Read the job as its rule wants it; who is sent something of it."""
    record.move(JobState.QUEUED, job_id, rule="a rule", destinations=names or None)
    everybody = {name: Recipient(frozenset({"sr"})) for name in takes}
    Worker(record.database, ChildThatReads(), lambda *_: None, everybody, attempts=1).run(job_id)
    with record.database.read() as tx:
        return {d.destination for d in deliveries.of_job(tx, job_id)}


def test_results_go_where_the_rule_says(record):
    record.add()
    assert routed_to(record, "research", "archive") == {"research", "archive"}
    assert record.job().destinations == ("research", "archive")


def test_without_a_rule_results_go_everywhere(record):
    record.add()
    assert routed_to(record) == {"pacs", "research", "archive"}


def test_whoever_has_an_earlier_revision_gets_the_next_one(record):
    record.add()
    assert routed_to(record, "pacs") == {"pacs"}
    record.add(2, seconds=400)
    assert routed_to(record, "research", job_id=2) == {"pacs", "research"}


def test_a_job_for_a_destination_that_is_gone_is_not_read(record):
    record.add()
    assert routed_to(record, "pacs", "research", takes=["pacs"]) == set()
    assert record.job().state == JobState.FAILED
    assert "'a rule' named research, no longer among the destinations" in record.job().reason
