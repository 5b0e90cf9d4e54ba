import logging
import threading
from datetime import UTC, datetime

import psutil
import pytest

from msnode.engine import Engine, create_tables
from msnode.errors import ConfigurationError
from msnode.record.database import Database, upgrade

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def url(tmp_path):
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


def test_workflow_enqueued_in_a_transaction_runs_with_its_ids(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "job:7:0", "jobs", 7, "pacs")
    assert engine.workflow_status("job:7:0") == "ENQUEUED"
    engine.serve("worker-1", {"read": calls}, {"jobs": 1})
    assert calls.wait(1) == [(7, "pacs")]
    until(lambda: engine.workflow_status("job:7:0") == "SUCCESS")


def test_rolled_back_transaction_leaves_no_workflow(engine, database):
    def abandon():
        with database.write() as tx:
            engine.enqueue(tx, "read", "job:1:0", "jobs", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        abandon()
    assert engine.workflow_status("job:1:0") is None


def test_one_id_runs_once_however_often_it_is_enqueued(engine, database):
    calls = Calls()
    for _ in range(3):
        enqueue(engine, database, "read", "job:1:0", "jobs", 1)
    engine.serve("worker-1", {"read": calls}, {"jobs": 1})
    calls.wait(1)
    until(lambda: engine.workflow_status("job:1:0") == "SUCCESS")
    enqueue(engine, database, "read", "job:1:0", "jobs", 1)
    enqueue(engine, database, "read", "job:2:0", "jobs", 2)
    assert calls.wait(2) == [(1,), (2,)]


def test_exception_makes_the_workflow_dead_and_the_next_one_runs(engine, database):
    calls = Calls()

    def read(number):
        if number == 1:
            raise RuntimeError("PATIENT^NAME")
        calls(number)

    for number in (1, 2):
        enqueue(engine, database, "read", f"job:{number}:0", "jobs", number)
    engine.serve("worker-1", {"read": read}, {"jobs": 1})
    calls.wait(1)
    (dead,) = engine.dead_workflows(["job:1:0", "job:2:0", "job:3:0"])
    assert (dead.workflow_id, dead.reason) == ("job:1:0", "RuntimeError")
    assert engine.dead_workflows([]) == ()


def test_delayed_workflow_holds_no_slot_and_a_lower_priority_number_runs_first(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "a", "jobs", 1, delay_s=3600)
    enqueue(engine, database, "read", "b", "jobs", 2, delay_s=0.2, priority=9)
    enqueue(engine, database, "read", "c", "jobs", 3, priority=5)
    enqueue(engine, database, "read", "d", "jobs", 4, priority=2)
    engine.serve("worker-1", {"read": calls}, {"jobs": 1})
    assert calls.wait(3) == [(4,), (3,), (2,)]
    assert engine.workflow_status("a") == "DELAYED"


def test_cancelled_workflow_never_runs(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "a", "jobs", 1)
    enqueue(engine, database, "read", "b", "jobs", 2)
    engine.cancel("a")
    engine.serve("worker-1", {"read": calls}, {"jobs": 1})
    assert calls.wait(1) == [(2,)]
    assert engine.workflow_status("a") == "CANCELLED"


def test_queues_of_others_are_left_alone(engine, database):
    calls = Calls()
    enqueue(engine, database, "deliver", "a", "deliveries", 1)
    enqueue(engine, database, "read", "b", "jobs", 2)
    engine.serve("worker-1", {"read": calls}, {"jobs": 1})
    assert calls.wait(1) == [(2,)]
    assert engine.workflow_status("a") == "ENQUEUED"


def test_second_engine_of_one_executor_id_refuses_to_serve(engine, url):
    engine.serve("worker-1", {}, {})
    second = Engine(url, lock_wait_s=0.1)
    with pytest.raises(ConfigurationError, match="worker-1 is already running"):
        second.serve("worker-1", {}, {})
    second.stop()


def test_executor_id_is_free_again_after_a_stop_unless_work_still_runs(url, database):
    started, go_on = threading.Event(), threading.Event()

    def read():
        started.set()
        go_on.wait(20)

    idle, busy, third = (Engine(url, lock_wait_s=0.1) for _ in range(3))
    idle.serve("worker-1", {}, {})
    idle.stop()
    enqueue(busy, database, "read", "a", "jobs")
    busy.serve("worker-1", {"read": read}, {"jobs": 1})
    assert started.wait(20)
    busy.stop()
    with pytest.raises(ConfigurationError, match="already running"):
        third.serve("worker-1", {}, {})
    go_on.set()
    third.stop()


def test_bound_method_can_be_a_workflow(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "a", "jobs", 1)
    engine.serve("worker-1", {"read": calls.__call__}, {"jobs": 1})
    assert calls.wait(1) == [(1,)]


def test_executor_id_must_be_a_plain_name(engine):
    with pytest.raises(ConfigurationError, match="executor id"):
        engine.serve("../x", {}, {})


def test_serving_opens_no_port_and_prints_nothing(engine, database, capfd):
    def fail():
        raise RuntimeError("PATIENT^NAME")

    enqueue(engine, database, "read", "a", "jobs")
    engine.serve("worker-1", {"read": fail}, {"jobs": 1})
    until(lambda: engine.workflow_status("a") == "ERROR")
    listening = [c for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert listening == []
    assert not any(isinstance(h, logging.StreamHandler) for h in logging.getLogger("dbos").handlers)
    assert "DBOS" not in "".join(capfd.readouterr())
