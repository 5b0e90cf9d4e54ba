"""An engine on each database, for tests of the queues."""

import threading

import pytest

from msnode.engine.engine import Engine, QueueSlots
from msnode.engine.tables import create_tables
from msnode.record.database import Database, upgrade

ONE_AT_A_TIME = {"jobs": QueueSlots(per_process=1)}


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr("msnode.engine.engine._POLL_S", 0.05)


@pytest.fixture(scope="session")
def prepared_database(postgres):
    """A PostgreSQL database with all tables, for one test after the other."""
    address = postgres.new_database()
    upgrade(address)
    create_tables(address)
    return address


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "postgresql":
        address = request.getfixturevalue("prepared_database")
        database = Database(address)
        with database.write() as tx:
            tables = "dbos.workflow_status, dbos.workflow_input, dbos.workflow_output, dbos.queues"
            tx.exec_driver_sql(f"TRUNCATE {tables} CASCADE")
        database.close()
        return address
    address = f"sqlite:///{tmp_path / 'm.db'}"
    upgrade(address)
    create_tables(address)
    return address


@pytest.fixture
def database(url):
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def engine(url):
    engine = Engine(url, lock_wait_s=0.1)
    yield engine
    engine.stop()


class Calls:
    """A workflow that notes its arguments; `wait` returns when it ran so often."""

    def __init__(self):
        self.seen = []
        self._changed = threading.Condition()

    def __call__(self, *args):
        with self._changed:
            self.seen.append(args)
            self._changed.notify_all()

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) >= count, timeout=20)
        return self.seen


def enqueue(engine, database, *args, **options):
    with database.write() as tx:
        engine.enqueue(tx, *args, **options)


def until(condition, timeout_s=20.0):
    tick = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        tick.wait(0.05)
    pytest.fail("did not happen in time")
