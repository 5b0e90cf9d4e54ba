"""Work that this process lost; `test_engine_processes` has the processes that die."""

from structlog.testing import capture_logs

from support.engine import ONE_AT_A_TIME, Calls, enqueue, until


def test_workflow_whose_end_could_not_be_written_down_runs_again(engine, database, monkeypatch):
    monkeypatch.setattr("msnode.engine.takeover._CHECK_S", 0.2)
    calls = Calls()
    with database.write() as tx:
        refuse_success(tx)
    enqueue(engine, database, "read", "a", "jobs", 1)
    engine.serve("worker-1", {"read": calls}, ONE_AT_A_TIME)
    calls.wait(1)
    until(lambda: not engine._active_ids())
    assert engine.workflow_status("a") == "PENDING"
    with database.write() as tx:
        accept_success(tx)
    with capture_logs() as logs:
        assert calls.wait(2) == [(1,), (1,)]
    until(lambda: engine.workflow_status("a") == "SUCCESS")
    assert [(line["event"], line["workflow_id"]) for line in logs] == [("lost_workflow_requeued", "a")]


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
