from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from msnode.record.job import JobState
from msnode.record.waiting import WaitingStudies


@pytest.fixture
def waiting(record):
    return WaitingStudies(record.database, quiet_s=5)


def due(waiting, record, seconds):
    return [study.study_instance_uid for study in waiting.due(record.at(seconds))]


def check_again_at(waiting, record, seconds, at):
    for study in waiting.due(record.at(seconds)):
        waiting.check_again_at(study, None if at is None else record.at(at))


@contextmanager
def statements(record):
    """Those that the block executes."""
    found = []

    def note(_connection, _cursor, statement, *_):
        found.append(statement)

    sa.event.listen(record.database._engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(record.database._engine, "before_cursor_execute", note)


def test_no_study_is_looked_at_while_it_is_coming_in(waiting, record):
    record.open()
    record.add(1, seconds=10)
    assert due(waiting, record, 14.9) == []
    assert due(waiting, record, 15) == ["1.1"]
    record.add(2, seconds=16)
    assert due(waiting, record, 20) == []


def test_a_study_is_looked_at_again_when_its_time_has_come(waiting, record):
    record.add(1)
    check_again_at(waiting, record, 10, at=60)
    assert due(waiting, record, 59) == []
    assert due(waiting, record, 60) == ["1.1"]
    assert due(waiting, record, 60) == ["1.1"], "until the caller says when again"


@pytest.mark.parametrize("at", [1000, None])
@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.add(2, seconds=20),
        lambda record: record.add(1, seconds=20),
        lambda record: record.add(2, series_instance_uid="1.2.2", seconds=1),
        lambda record: record.release("a1", seconds=20),
        lambda record: record.abort("a1", seconds=20),
    ],
)
def test_a_study_is_looked_at_again_when_something_changed(waiting, record, change, at):
    record.open()
    record.add(1)
    check_again_at(waiting, record, 10, at=at)
    assert due(waiting, record, 100) == []
    change(record)
    assert due(waiting, record, 100) == ["1.1"]


def test_studies_that_are_no_longer_waited_for_are_forgotten(waiting, record):
    record.add(1)
    record.add(2, study_instance_uid="1.9", seconds=1)
    check_again_at(waiting, record, 10, at=1000)
    record.move(JobState.QUEUED, job_id=1)
    assert due(waiting, record, 2000) == ["1.9"]
    assert waiting._seen.keys() == waiting._next.keys() == {2}
    record.add(3, seconds=1500)
    assert due(waiting, record, 2000) == ["1.9", "1.1"], "its revision"


def test_interruption_says_since_when(waiting, record):
    record.open("a1")
    record.add(1)
    record.abort("a1", seconds=7)
    record.add(2, association_id="lost", series_instance_uid="1.2.2")
    (study,) = waiting.due(record.at(100))
    assert [(s.interrupted, s.interrupted_at) for s in study.series] == [(True, record.at(7)), (True, None)]


def test_studies_of_own_objects_alone_are_not_due(waiting, record):
    record.add(1)
    record.add(2, own=True, series_instance_uid="1.2.9")
    (study,) = waiting.due(record.at(100))
    assert [s.series_instance_uid for s in study.series] == ["1.2.1"]


@pytest.mark.parametrize("count", [1, 30])
def test_a_look_at_studies_that_wait_costs_the_same_however_many(waiting, record, count):
    for number in range(count):
        record.add(number, study_instance_uid=f"1.{number}")
    check_again_at(waiting, record, 100, at=1000)
    with statements(record) as executed:
        assert due(waiting, record, 200) == []
    assert len([s for s in executed if s.startswith("SELECT")]) == 2
