import threading

import pytest

from msnode.engine.engine import QueueSlots
from support.engine import ONE_AT_A_TIME, Calls, enqueue, until


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


def test_cancelled_workflow_never_runs(engine, database):
    calls = Calls()
    enqueue(engine, database, "read", "a", "jobs", 1)
    enqueue(engine, database, "read", "b", "jobs", 2)
    engine.cancel("a")
    engine.serve("worker-1", {"read": calls}, ONE_AT_A_TIME)
    assert calls.wait(1) == [(2,)]
    assert engine.workflow_status("a") == "CANCELLED"


def test_finished_workflows_are_forgotten_by_age_and_dead_ones_are_not(engine, database, monkeypatch):
    monkeypatch.setattr("msnode.engine.client._BATCH", 2)

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
