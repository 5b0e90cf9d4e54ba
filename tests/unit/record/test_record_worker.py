"""What the worker makes of a reading's end, on a record."""

from msnode.errors import ModelError, OutOfResources, ProcessDied, ProcessKilled
from msnode.record import jobs
from msnode.record.jobs import JobState
from msnode.worker import Worker


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
