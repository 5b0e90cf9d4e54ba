import logging
import threading

import psutil
import pytest

from msnode.engine.engine import _KEPT_TO_THE_END, Engine, QueueSlots, create_tables
from msnode.errors import ConfigurationError, OutOfResources
from msnode.record.database import Database, upgrade

ONE_AT_A_TIME = {"jobs": QueueSlots(per_process=1)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
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


def test_workflow_enqueued_in_a_transaction_runs_with_its_ids(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "job:7:0", "jobs", 7, "pacs")
    assert engine.workflow_status("job:7:0") == "ENQUEUED"
    engine.serve("worker-1", {"read": calls}, ONE_AT_A_TIME)
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
    engine.serve("worker-1", {"read": calls}, ONE_AT_A_TIME)
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
    engine.serve("worker-1", {"read": read}, ONE_AT_A_TIME)
    calls.wait(1)
    until(engine.dead_workflows)
    (dead,) = engine.dead_workflows()
    assert (dead.workflow_id, dead.reason) == ("job:1:0", "RuntimeError")
    engine.forget([dead.workflow_id])
    assert engine.dead_workflows() == ()
    assert engine.workflow_status("job:1:0") is None


def test_delayed_workflow_holds_no_slot_and_a_lower_priority_number_runs_first(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "a", "jobs", 1, delay_s=3600)
    enqueue(engine, database, "read", "b", "jobs", 2, delay_s=0.2, priority=9)
    enqueue(engine, database, "read", "c", "jobs", 3, priority=5)
    enqueue(engine, database, "read", "d", "jobs", 4, priority=2)
    engine.serve("worker-1", {"read": calls}, ONE_AT_A_TIME)
    assert calls.wait(3) == [(4,), (3,), (2,)]
    assert engine.workflow_status("a") == "DELAYED"


def test_urgent_workflow_runs_before_fifty_that_wait(engine, database):
    order, urgent, routine = Calls(), 1, 5
    started, go_on = threading.Event(), threading.Event()

    def read(number):
        order(number)
        started.set()
        go_on.wait(20)

    enqueue(engine, database, "read", "first", "jobs", 0, priority=routine)
    engine.serve("worker-1", {"read": read}, ONE_AT_A_TIME)
    assert started.wait(20)
    with database.write() as tx:
        for number in range(1, 51):
            engine.enqueue(tx, "read", f"routine:{number}", "jobs", number, priority=routine)
        engine.enqueue(tx, "read", "stat", "jobs", 99, priority=urgent)
    go_on.set()
    assert order.wait(3)[:3] == [(0,), (99,), (1,)]


def test_limit_everywhere_holds_for_all_processes(engine, database, url):
    started, go_on = threading.Semaphore(0), threading.Event()

    def read(number):
        started.release()
        go_on.wait(20)

    for number in range(4):
        enqueue(engine, database, "read", f"r{number}", "jobs", number)
    other = Engine(url)
    engine.serve("worker-1", {"read": read}, {"jobs": QueueSlots(per_process=2, everywhere=2)})
    assert started.acquire(timeout=20)
    assert started.acquire(timeout=20)
    assert not started.acquire(timeout=1.5)
    states = [other.workflow_status(f"r{number}") for number in range(4)]
    assert sorted(states) == ["ENQUEUED", "ENQUEUED", "PENDING", "PENDING"]
    go_on.set()
    assert started.acquire(timeout=20)
    assert started.acquire(timeout=20)
    other.stop()


def test_cancelled_workflow_never_runs(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "a", "jobs", 1)
    enqueue(engine, database, "read", "b", "jobs", 2)
    engine.cancel("a")
    engine.serve("worker-1", {"read": calls}, ONE_AT_A_TIME)
    assert calls.wait(1) == [(2,)]
    assert engine.workflow_status("a") == "CANCELLED"


def test_queues_of_others_are_left_alone(engine, database):
    calls = Calls()
    enqueue(engine, database, "deliver", "a", "deliveries", 1)
    enqueue(engine, database, "read", "b", "jobs", 2)
    engine.serve("worker-1", {"read": calls}, ONE_AT_A_TIME)
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
    idle.serve("worker-kept", {}, {})
    idle.stop()
    enqueue(busy, database, "read", "a", "jobs")
    busy.serve("worker-kept", {"read": read}, ONE_AT_A_TIME)
    assert started.wait(20)
    busy.stop()
    with pytest.raises(ConfigurationError, match="already running"):
        third.serve("worker-kept", {}, {})
    go_on.set()
    third.stop()
    _KEPT_TO_THE_END.pop().release()  # for the tests to come


def test_executor_that_only_holds_its_name_is_seen_to_live(url):
    receiver, other = Engine(url, lock_wait_s=0.1), Engine(url, lock_wait_s=0.1)
    assert other.is_free("receiver-1")
    receiver.hold("receiver-1")
    assert not other.is_free("receiver-1")
    assert other.is_free("receiver-2")
    with pytest.raises(ConfigurationError, match="receiver-1 is already running"):
        other.hold("receiver-1")
    receiver.stop()
    assert other.is_free("receiver-1")
    other.hold("receiver-1")
    other.stop()


def test_finished_workflows_are_forgotten_by_age_and_dead_ones_are_not(engine, database, monkeypatch):
    monkeypatch.setattr("msnode.engine.engine._AT_ONCE", 2)

    def read(number):
        if number == 0:
            raise RuntimeError

    for number in range(6):
        enqueue(engine, database, "read", f"job:{number}", "jobs", number)
    enqueue(engine, database, "read", "later", "jobs", 9, delay_s=3600)
    engine.serve("worker-1", {"read": read}, {"jobs": QueueSlots(per_process=6)})
    ids = [f"job:{number}" for number in range(6)]
    until(lambda: [engine.workflow_status(i) for i in ids] == ["ERROR", *5 * ["SUCCESS"]])
    engine.forget_finished(older_than_s=3600)
    assert engine.workflow_status("job:1") == "SUCCESS"
    engine.forget_finished(older_than_s=0)
    assert [engine.workflow_status(i) for i in [*ids, "later"]] == ["ERROR", *5 * [None], "DELAYED"]


def test_workflow_whose_end_could_not_be_written_down_runs_again(engine, database, monkeypatch):
    monkeypatch.setattr("msnode.engine.engine._LOOK_S", 0.2)
    calls = Calls()
    with database.write() as tx:
        refuse_success(tx)
    enqueue(engine, database, "read", "a", "jobs", 1)
    engine.serve("worker-1", {"read": calls}, ONE_AT_A_TIME)
    calls.wait(1)
    until(lambda: not engine._running())
    assert engine.workflow_status("a") == "PENDING"
    with database.write() as tx:
        accept_success(tx)
    assert calls.wait(2) == [(1,), (1,)]
    until(lambda: engine.workflow_status("a") == "SUCCESS")


def refuse_success(tx):
    """As a disk that is full: what has ended cannot be written down."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql(
            "CREATE TRIGGER full BEFORE UPDATE ON workflow_status WHEN NEW.status = 'SUCCESS' "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        return
    tx.exec_driver_sql(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'no space' USING ERRCODE = '58030'; END $$"
    )
    tx.exec_driver_sql(
        "CREATE TRIGGER full_disk BEFORE UPDATE ON dbos.workflow_status FOR EACH ROW "
        "WHEN (NEW.status = 'SUCCESS') EXECUTE FUNCTION refuse()"
    )


def accept_success(tx):
    name = "full" if tx.dialect.name == "sqlite" else "full_disk ON dbos.workflow_status"
    tx.exec_driver_sql(f"DROP TRIGGER {name}")


def test_bound_method_can_be_a_workflow(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "a", "jobs", 1)
    engine.serve("worker-1", {"read": calls.__call__}, ONE_AT_A_TIME)
    assert calls.wait(1) == [(1,)]


def test_executor_id_must_be_a_plain_name(engine):
    with pytest.raises(ConfigurationError, match="executor id"):
        engine.serve("../x", {}, {})


def test_processes_that_start_at_once_make_the_tables_once(tmp_path, postgres):
    for address in (f"sqlite:///{tmp_path / 'm.db'}", postgres.new_database()):
        failed = []

        def start(address=address, failed=failed):
            try:
                create_tables(address)
            except Exception as error:  # noqa: BLE001 - shown below
                failed.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        Engine(address).stop()


def test_server_that_is_gone_is_out_of_resources(own_postgres):
    address = own_postgres.url
    create_tables(address)
    engine = Engine(address, lock_wait_s=0.1)
    own_postgres.stop()
    for call in (
        lambda: engine.workflow_status("a"),
        lambda: engine.cancel("a"),
        lambda: engine.forget(["a"]),
        lambda: engine.forget_finished(0),
        lambda: engine.is_free("a"),
        lambda: engine.hold("a"),
        lambda: engine.serve("a", {}, {}),
        lambda: create_tables(address),
        engine.dead_workflows,
        lambda: Engine(address),
    ):
        with pytest.raises(OutOfResources):
            call()
    engine.stop()


def test_serving_opens_no_port_and_prints_nothing(engine, database, capfd):
    def fail():
        raise RuntimeError("PATIENT^NAME")

    enqueue(engine, database, "read", "a", "jobs")
    engine.serve("worker-1", {"read": fail}, ONE_AT_A_TIME)
    until(lambda: engine.workflow_status("a") == "ERROR")
    listening = [c for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert listening == []
    assert not any(isinstance(h, logging.StreamHandler) for h in logging.getLogger("dbos").handlers)
    assert "DBOS" not in "".join(capfd.readouterr())
