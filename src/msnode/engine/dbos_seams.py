"""Where msnode meets DBOS: its identity there, its log, its errors, and the private members that are used.

A new version of DBOS may move a private member. `tests/unit/engine/test_dbos_seams.py` then says which.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbos import error

from msnode.engine import connections
from msnode.errors import OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbos import DBOS, DBOSClient, WorkflowStatus

APPLICATION = "msnode"
VERSION = "1"
"""Never changed: DBOS runs an interrupted workflow only under the version that enqueued it. Its own default
is a hash of the code, under which an upgrade would leave interrupted workflows pending for ever."""

CONNECTIONS = {"kept": 4, "at_most": 8}
"""Pool of one process: one connection for each polled queue, one for DBOS itself, one for takeover."""

DBOSError = error.DBOSException


@contextmanager
def translated() -> Iterator[None]:
    """Raise OutOfResources where the database does not answer, also where a listing of DBOS timed out."""
    try:
        with connections.translated():
            yield
    except error.DBOSQueryTimeoutError as problem:
        raise OutOfResources(f"the database does not answer: {problem}") from None


def silence_log() -> None:
    """Let DBOS log errors only, through the root logger, instead of a console handler of its own."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.ERROR)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def active_workflow_ids(library: DBOS) -> set[str]:
    """Ids of the workflows that this process runs, or whose end it has not recorded yet.

    DBOS has no public call that tells what runs in this process; the database only tells what should.
    """
    return set(library._active_workflows_set.activeList())  # noqa: SLF001 - see the docstring


def return_to_queue(client: DBOSClient, workflow: WorkflowStatus) -> None:
    """Put a pending workflow back into its queue, unless another executor has taken it since it was listed.

    DBOS does this when it starts, for its own executor id alone; there is no public call for another's.
    """
    client._sys_db.reenqueue_for_recovery(  # noqa: SLF001 - see the docstring
        workflow.workflow_id, [str(workflow.executor_id)], str(workflow.queue_name)
    )
