"""What runs for every instance, and every half second, looks rows up: it never walks through a table."""

import re

import pytest
import sqlalchemy as sa

from msnode.record import promises
from msnode.record.job import JobState
from msnode.record.retention import remove_old
from msnode.record.waiting import WaitingStudies
from msnode.store import Store

# The other database decides by its statistics, which a small table does not have.
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)

GROWS = re.compile(r"SCAN (patient|study|series|instance|association|association_series|job|result)\b")
"""How SQLite tells that it walks through a table that grows for ever."""


@pytest.fixture
def recorded(record):
    """Executed statements with their parameters."""
    found = []

    def note(_connection, _cursor, statement, parameters, _context, executemany):
        found.append((statement, parameters[0] if executemany else parameters))

    sa.event.listen(record.database._engine, "before_cursor_execute", note)
    return found


def walks(record, recorded):
    """The tables walked through by what was executed so far."""
    done = [each for each in recorded if not each[0].startswith(("PRAGMA", "BEGIN"))]
    assert done
    with record.database.read() as tx:
        plans = [tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {s}", p).all() for s, p in done]
    recorded.clear()
    return [row[-1] for plan in plans for row in plan if GROWS.match(row[-1])]


def test_arrivals(record, recorded):
    record.open()
    first = record.add(1)
    record.add(1)
    record.add(1, content="corrected")
    record.arrivals.add(record.arrival(2), record.arrival(3, study_instance_uid="1.9"))
    record.arrivals.refuse(record.arrival(1, content="x"), first.digest, drop_bytes=lambda: None)
    record.arrivals.add_lost(record.arrival(4))
    record.arrivals.unrecorded([first.digest])
    record.arrivals.open_receivers()
    record.arrivals.study_instances("1.1")
    record.release()
    assert walks(record, recorded) == []


def test_waiting_studies(record, recorded):
    record.open()
    record.add(1)
    recorded.clear()
    assert len(WaitingStudies(record.database).due(record.at(100))) == 1
    assert walks(record, recorded) == []


def test_retention(record, recorded, tmp_path):
    record.add(1)
    record.move(JobState.CANCELLED)
    recorded.clear()
    store = Store(tmp_path / "store")
    assert remove_old(record.database, store, before=record.at(100), limit=10) == 1
    assert remove_old(record.database, store, before=record.at(100), limit=10) == 0
    assert walks(record, recorded) == []


def test_promises(record, recorded):
    arrival = record.add(1)
    recorded.clear()
    reference = promises.Reference(arrival.sop_class_uid, arrival.sop_instance_uid)
    with record.database.write() as tx:
        report = promises.promise(tx, promises.Request("1.2.9", (reference,)), has_bytes=lambda _: True)
    assert report.kept == (reference,)
    assert walks(record, recorded) == []
