import inspect
import logging
import threading
from importlib.metadata import version

import pytest
from dbos import error

from msnode.engine import dbos_seams
from msnode.errors import OutOfResources
from support.engine import ONE_AT_A_TIME, enqueue, until

HERE = f"of dbos {version('dbos')}: adapt engine/dbos_seams.py"


def test_private_members_are_where_they_were(engine):
    engine.serve("worker-1", {}, {})
    active = getattr(engine._library, "_active_workflows_set", None)
    assert hasattr(active, "activeList"), f"DBOS._active_workflows_set.activeList is no member {HERE}"
    recover = getattr(getattr(engine._client, "_sys_db", None), "reenqueue_for_recovery", None)
    assert recover is not None, f"DBOSClient._sys_db.reenqueue_for_recovery is no member {HERE}"
    names = ["workflow_id", "executor_ids", "recovery_queue_name"]
    assert list(inspect.signature(recover).parameters) == names, f"it takes other arguments {HERE}"


def test_active_workflows_are_those_that_run_in_this_process(engine, database):
    started, go_on = threading.Event(), threading.Event()

    def read():
        started.set()
        go_on.wait(20)

    enqueue(engine, database, "read", "a", "jobs")
    engine.serve("worker-1", {"read": read}, ONE_AT_A_TIME)
    assert started.wait(20)
    assert dbos_seams.active_workflow_ids(engine._library) == {"a"}
    go_on.set()
    until(lambda: dbos_seams.active_workflow_ids(engine._library) == set())


def test_listing_that_takes_too_long_is_out_of_resources():
    with pytest.raises(OutOfResources, match=r"does not answer.*30s"), dbos_seams.translated():
        raise error.DBOSQueryTimeoutError(30)


def test_log_is_left_to_the_root_logger():
    dbos_seams.silence_log()
    assert logging.getLogger("dbos").level == logging.ERROR
    assert not any(isinstance(h, logging.StreamHandler) for h in logging.getLogger("dbos").handlers)
