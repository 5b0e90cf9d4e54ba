"""Enqueues workflows, and looks after those that have ended: for every process, whether it serves or not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer

from msnode.engine import connections, dbos_seams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dbos import EnqueueOptions, WorkflowStatus

_BATCH = 500
_DEAD = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_FINISHED = ["SUCCESS", "CANCELLED"]


@dataclass(frozen=True)
class DeadWorkflow:
    """A workflow that will not run again; `reason` is its error's class, or that its process kept dying."""

    workflow_id: str
    reason: str


class WorkflowClient:
    """The queues as any process sees them.

    Args:
        url: address of the record's database, in which the engine's tables exist (`tables.create_tables`).

    Raises:
        ConfigurationError: see `connections.checked`.
        OutOfResources: from every method too, where the database does not answer.
    """

    def __init__(self, url: str) -> None:
        dbos_seams.silence_log()
        self._database = connections.open_engine(connections.checked(url), **dbos_seams.CONNECTIONS)
        if self._database.dialect.name == "sqlite":
            sa.event.listen(self._database, "connect", _begin_immediate)
        with dbos_seams.translated():
            self._client = DBOSClient(
                system_database_engine=self._database,
                serializer=DBOSPortableJSONSerializer(),
                application_name=dbos_seams.APPLICATION,
                retry_connection_errors=False,
            )

    def enqueue(
        self,
        connection: sa.Connection,
        workflow: str,
        workflow_id: str,
        queue: str,
        *args: int | str,
        delay_s: float = 0.0,
        priority: int | None = None,
    ) -> None:
        """Enqueue a workflow in the caller's transaction; does nothing where the id is known already.

        Args:
            connection: the caller's transaction on the record's database; the workflow runs once it is
                committed.
            workflow: name under which `Engine.serve` registers it.
            workflow_id: unique for ever.
            queue: name of the queue.
            args: ids only.
            delay_s: seconds to wait before it may run; a waiting workflow takes no slot of the queue.
            priority: a lower number runs first, from 1; None runs before all of them.
        """
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": queue,
            "workflow_id": workflow_id,
            "app_version": dbos_seams.VERSION,
        }
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        if priority is not None:
            options["priority"] = priority
        with dbos_seams.translated():
            self._client.enqueue_in_transaction(connection, options, *args)

    def cancel(self, workflow_id: str) -> None:
        """Take a workflow out of its queue; one that is running is not interrupted."""
        with dbos_seams.translated():
            self._client.cancel_workflow(workflow_id)

    def workflow_status(self, workflow_id: str) -> str | None:
        """Status of a workflow in DBOS's words; None where it was never enqueued, or was forgotten.

        ENQUEUED, DELAYED, PENDING (running), SUCCESS, CANCELLED, or one of the two that are dead: ERROR (an
        exception) and MAX_RECOVERY_ATTEMPTS_EXCEEDED (its process kept dying).
        """
        found = self._list(workflow_ids=[workflow_id])
        return found[0].status if found else None

    def dead_workflows(self) -> tuple[DeadWorkflow, ...]:
        """The oldest dead workflows, at most 500: `forget` them to see the others."""
        found = self._list(status=_DEAD, load_output=True, limit=_BATCH)
        return tuple(DeadWorkflow(status.workflow_id, _reason(status)) for status in found)

    def forget(self, workflow_ids: Iterable[str]) -> None:
        """Delete these workflows, whatever their status; their ids may be enqueued anew."""
        ids = list(workflow_ids)
        with dbos_seams.translated():
            for begin in range(0, len(ids), _BATCH):
                self._client.delete_workflows(ids[begin : begin + _BATCH])

    def forget_finished(self, older_than_s: float) -> None:
        """Delete the workflows that succeeded or were cancelled more than so many seconds ago.

        Dead ones stay until `forget`: nobody may have seen them yet.
        """
        before = (datetime.now(UTC) - timedelta(seconds=older_than_s)).isoformat()
        while ended := self._list(status=_FINISHED, completed_before=before, limit=_BATCH):
            self.forget(status.workflow_id for status in ended)

    def pending_workflows(self) -> list[WorkflowStatus]:
        """Every workflow that an executor has taken and not ended, with that executor's id."""
        return self._list(status="PENDING")

    def return_to_queue(self, workflows: Iterable[WorkflowStatus]) -> None:
        """Put pending workflows back into their queues; see `dbos_seams.return_to_queue`."""
        with dbos_seams.translated():
            for each in workflows:
                dbos_seams.return_to_queue(self._client, each)

    def close(self) -> None:
        """Close the connections."""
        self._client.destroy()
        self._database.dispose()

    def _list(self, *, load_output: bool = False, **which: Any) -> list[WorkflowStatus]:
        with dbos_seams.translated():
            return self._client.list_workflows(load_input=False, load_output=load_output, **which)


def _begin_immediate(connection: Any, record: object) -> None:
    """Take SQLite's write lock at the begin of each transaction, as DBOS does on connections of its own.

    A transaction that reads first and writes later fails where another one wrote in between.
    """
    del record
    connection.isolation_level = "IMMEDIATE"


def _reason(status: WorkflowStatus) -> str:
    if status.status != "ERROR":
        return "its process died each time it ran"
    return getattr(status.error, "name", None) or type(status.error).__name__
