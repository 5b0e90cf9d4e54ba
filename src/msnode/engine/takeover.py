"""Takeover: workflows whose executor died, or that this process lost, return to their queues.

The free DBOS library does not notice that another executor has died. Each serving process therefore checks
every two seconds which executors have pending workflows while their lock is free. An executor whose lock is
free in two checks in a row is dead.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from msnode.engine import dbos_seams
from msnode.errors import OutOfResources

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbos import WorkflowStatus

    from msnode.engine.client import WorkflowClient
    from msnode.engine.executor_lock import ExecutorLock, ExecutorLocks

log = structlog.get_logger()

_CHECK_S = 2.0
_CHECKS_UNTIL_LOST = 5


class TakeoverGuard:
    """The checking thread of one serving process.

    Args:
        executor_id: of this process.
        lock: this process's executor lock, held.
        locks: the locks of all executors.
        client: lists pending workflows and returns them to their queues.
        active_ids: ids of the workflows that this process runs.
    """

    def __init__(
        self,
        executor_id: str,
        lock: ExecutorLock,
        locks: ExecutorLocks,
        client: WorkflowClient,
        active_ids: Callable[[], set[str]],
    ) -> None:
        self._executor_id = executor_id
        self._lock = lock
        self._locks = locks
        self._client = client
        self._active_ids = active_ids
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="takeover-guard", daemon=True)

    def start(self) -> None:
        """Begin to check."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns once it has ended."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        suspects: set[str] = set()
        missed: dict[str, int] = {}
        while not self._stopping.wait(_CHECK_S):
            try:
                pending = self._client.pending_workflows()
                suspects = self._take_over_dead(pending, suspects)
                missed = self._requeue_lost(pending, missed)
            except (OutOfResources, sa.exc.SQLAlchemyError, dbos_seams.DBOSError, OSError) as problem:
                log.warning("takeover_check_failed", error=problem)

    def _take_over_dead(self, pending: list[WorkflowStatus], suspects: set[str]) -> set[str]:
        """Take over from executors found free twice in a row; returns those found free once.

        The dead executor's lock is held meanwhile, so that neither it nor another guard interferes.
        """
        if not self._lock.is_settled():
            return set()
        others = {workflow.executor_id for workflow in pending} - {self._executor_id}
        with dbos_seams.translated():
            free = {name for name in others if name and self._locks.is_free(name)}
        for executor_id in free & suspects:
            with dbos_seams.translated(), self._locks.borrowed(executor_id) as is_mine:
                if is_mine:
                    log.warning("executor_takeover", executor_id=executor_id)
                    self._client.return_to_queue(w for w in pending if w.executor_id == executor_id)
        return free - suspects

    def _requeue_lost(self, pending: list[WorkflowStatus], missed: dict[str, int]) -> dict[str, int]:
        """Requeue what the database says runs here and does not; returns how often each was missed.

        The database may fail after it assigned a workflow to this process and before the process knows, or
        while the process records that one has ended.
        """
        active = self._active_ids()
        mine = [workflow for workflow in pending if workflow.executor_id == self._executor_id]
        missing = {
            w.workflow_id: missed.get(w.workflow_id, 0) + 1 for w in mine if w.workflow_id not in active
        }
        lost = [w for w in mine if missing.get(w.workflow_id, 0) >= _CHECKS_UNTIL_LOST]
        for workflow in lost:
            log.warning("lost_workflow_requeued", workflow_id=workflow.workflow_id)
        self._client.return_to_queue(lost)
        return missing
