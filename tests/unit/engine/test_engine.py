import logging
import threading

import psutil
import pytest

from msnode.engine.engine import _HELD_UNTIL_EXIT, Engine, QueueSlots
from msnode.engine.tables import create_tables
from msnode.errors import ConfigurationError, OutOfResources
from support.engine import ONE_AT_A_TIME, Calls, enqueue, until


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
    _HELD_UNTIL_EXIT.pop().release()  # for the tests to come


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


def test_bound_method_can_be_a_workflow(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "a", "jobs", 1)
    engine.serve("worker-1", {"read": calls.__call__}, ONE_AT_A_TIME)
    assert calls.wait(1) == [(1,)]


def test_executor_id_must_be_a_plain_name(engine):
    with pytest.raises(ConfigurationError, match="executor id"):
        engine.serve("../x", {}, {})


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
