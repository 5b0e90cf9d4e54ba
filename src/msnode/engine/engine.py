"""The durable-workflow port: what runs next, kept in the record's own database.

A process that only enqueues makes an `Engine` and calls `enqueue` inside its own transaction; one that
runs workflows calls `serve` too. Workflows are registered by name and get ids only. One that ends by
an exception, or whose process dies too often under it, is dead and is never run again by itself.

Every serving process holds an exclusive lock named after its executor id, which is free as soon as the
process has died. That is how the others notice: each looks every two seconds for executors with work
under way whose lock is free, twice in a row, and gives that work back to the queues.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, error

from msnode.engine import connections
from msnode.engine.executor_lock import ExecutorLock, ExecutorLocks
from msnode.errors import ConfigurationError, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dbos import DBOSConfig, EnqueueOptions, WorkflowStatus

log = structlog.get_logger()

_APPLICATION = "msnode"
# By default the version is a hash of the code, and what an upgrade interrupts then waits for ever.
_VERSION = "1"
_EXECUTOR_ID = re.compile(r"[a-z0-9-]{1,64}\Z")
_POLL_S = 0.5
_LOOK_S = 2.0
_LOCK_WAIT_S = 30.0
_WRITE_DOWN_S = 1.0
_TICK_S = 0.02
_LOOKS_UNTIL_LOST = 5
_MIGRATION = "engine-tables"
_MIGRATION_WAIT_S = 300.0
_AT_ONCE = 500
# One for each queue that polls at this moment, one that the library keeps, one for the guard.
_CONNECTIONS = {"kept": 4, "at_most": 8}
# A lock object that nothing refers to any more releases itself.
_KEPT_TO_THE_END: list[ExecutorLock] = []
_DEAD = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_FINISHED = ["SUCCESS", "CANCELLED"]


@dataclass(frozen=True)
class DeadWorkflow:
    """A workflow that will not run again; `reason` is its error's class, or that its process kept dying."""

    workflow_id: str
    reason: str


@dataclass(frozen=True)
class QueueSlots:
    """How many workflows of a queue run at once.

    The queue itself knows them, not the process: where processes differ, the last one that began counts.

    Attributes:
        per_process: in each process that listens to it.
        everywhere: in all of them together, at least `per_process`; None for no such limit.
    """

    per_process: int
    everywhere: int | None = None


def create_tables(url: str) -> None:
    """Create the engine's tables beside the record's, or bring them to this version.

    Safe to call from several processes at once.

    Raises:
        OutOfResources: the database does not answer, or another process does this for too long.
    """
    _quiet()
    address = connections.checked(url)
    database = connections.open_engine(address, **_CONNECTIONS)
    complete = connections.complete(address, statement_timeout="0", lock_timeout="0")
    try:
        with _translated(), ExecutorLocks(database).borrowed(_MIGRATION, _MIGRATION_WAIT_S) as is_mine:
            if not is_mine:
                raise OutOfResources("another process has been making the engine's tables for minutes")
            DBOS.migrate(complete.render_as_string(hide_password=False))
    finally:
        database.dispose()


class Engine:
    """Enqueues workflows, and runs them once `serve` was called.

    Whatever it cannot do because the database does not answer raises OutOfResources.

    Args:
        url: the record's database, whose engine tables exist (`create_tables`).
        lock_wait_s: how long `serve` waits for its executor lock: a guard may hold it for a moment, and
            a server may believe in a session of the former process for some seconds.
    """

    def __init__(self, url: str, *, lock_wait_s: float = _LOCK_WAIT_S) -> None:
        _quiet()
        self._lock_wait_s = lock_wait_s
        self._database = connections.open_engine(connections.checked(url), **_CONNECTIONS)
        if self._database.dialect.name == "sqlite":
            sa.event.listen(self._database, "connect", _begin_with_the_write_lock)
        with _translated():
            self._client = DBOSClient(
                system_database_engine=self._database,
                serializer=DBOSPortableJSONSerializer(),
                application_name=_APPLICATION,
                retry_connection_errors=False,
            )
        self._locks = ExecutorLocks(self._database)
        self._executor_id: str | None = None
        self._lock: ExecutorLock | None = None
        self._library: DBOS | None = None
        self._guard: threading.Thread | None = None
        self._stopping = threading.Event()

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
        """Have a workflow run once the caller's transaction is committed; nothing where the id is known.

        Args:
            connection: the caller's transaction on the record's database.
            workflow: name under which `serve` registers it.
            workflow_id: unique for ever.
            queue: name of the queue.
            args: ids only.
            delay_s: not before so many seconds; waiting takes no slot of the queue.
            priority: a lower number runs first, from 1; None runs before all of them.
        """
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": queue,
            "workflow_id": workflow_id,
            "app_version": _VERSION,
        }
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        if priority is not None:
            options["priority"] = priority
        with _translated():
            self._client.enqueue_in_transaction(connection, options, *args)

    def hold(self, executor_id: str) -> None:
        """Be this executor until `stop`, so that others can tell whether it lives (`is_free`).

        Args:
            executor_id: stable name of this process among all that share the database.

        Raises:
            ConfigurationError: a live process has this executor id already.
        """
        if not _EXECUTOR_ID.match(executor_id):
            raise ConfigurationError("an executor id has 1-64 lower-case letters, digits and hyphens")
        lock = self._locks.of(executor_id)
        with _translated():
            if not lock.acquire(self._lock_wait_s):
                raise ConfigurationError(
                    f"executor {executor_id} is already running on "
                    f"{connections.where(self._database.url)}: "
                    "end that process, or give this one a name of its own"
                )
        self._lock, self._executor_id = lock, executor_id

    def is_free(self, executor_id: str) -> bool:
        """Whether no live process holds this executor id."""
        with _translated():
            return self._locks.is_free(executor_id)

    def serve(
        self,
        executor_id: str,
        workflows: Mapping[str, Callable[..., None]],
        queues: Mapping[str, QueueSlots],
        *,
        max_recoveries: int = 100,
    ) -> None:
        """Run workflows in threads of this process until `stop`; one serving engine a process.

        Work that an earlier process of the same executor id left behind is taken up first.

        Args:
            executor_id: see `hold`, which is part of this.
            workflows: name → function. It may be run again from its beginning after a crash, or where
                the database did not take down that it ended.
            queues: the queues that this process listens to.
            max_recoveries: how often a workflow is run again after its process died. Whoever knows why
                it died decides earlier: the process may have been killed for another's sake.

        Raises:
            ConfigurationError: a live process has this executor id already.
        """
        self.hold(executor_id)
        with _translated():
            self._library = DBOS(config=self._config(executor_id))
            for name, function in workflows.items():
                DBOS.workflow(name=name, max_recovery_attempts=max_recoveries)(_plain(function))
            for name, slots in queues.items():
                self._client.register_queue(
                    name,
                    worker_concurrency=slots.per_process,
                    global_concurrency=slots.everywhere,
                    polling_interval_sec=_POLL_S,
                )
            DBOS.listen_queues(list(queues))
            DBOS.launch()
        self._guard = threading.Thread(target=self._watch, name="engine-guard", daemon=True)
        self._guard.start()
        log.info("engine serving", executor_id=executor_id)

    def stop(self, *, wait_s: int = 0) -> None:
        """Take no new work, wait up to `wait_s` for what is running, release the executor id, disconnect.

        What is still running then, and a second later, goes on until this process ends, which keeps the
        executor id so long: were it released earlier, another process would run the same work beside
        this one. The end of such a workflow is not written down: the next process runs it again.
        """
        self._stopping.set()
        if self._guard is not None:
            self._guard.join()
        if self._library is not None:
            DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=wait_s)
        end = time.monotonic() + _WRITE_DOWN_S
        while self._running() and time.monotonic() < end:
            time.sleep(_TICK_S)
        if self._lock is not None and self._running():
            _KEPT_TO_THE_END.append(self._lock)
        elif self._lock is not None:
            self._lock.release()
        self._client.destroy()
        self._database.dispose()

    def workflow_status(self, workflow_id: str) -> str | None:
        """ENQUEUED, DELAYED, PENDING (running), SUCCESS, CANCELLED, or one of two ways to be dead: ERROR
        (an exception), MAX_RECOVERY_ATTEMPTS_EXCEEDED (its process kept dying). None: never enqueued.
        """  # noqa: D205 - the states are the summary
        found = self._list(workflow_ids=[workflow_id])
        return found[0].status if found else None

    def cancel(self, workflow_id: str) -> None:
        """Take a workflow out of its queue; one that is running is not interrupted."""
        with _translated():
            self._client.cancel_workflow(workflow_id)

    def dead_workflows(self) -> tuple[DeadWorkflow, ...]:
        """The oldest dead workflows, at most 500: `forget` them to see the others."""
        found = self._list(status=_DEAD, load_output=True, limit=_AT_ONCE)
        return tuple(DeadWorkflow(status.workflow_id, _reason(status)) for status in found)

    def forget(self, workflow_ids: Iterable[str]) -> None:
        """Delete these workflows, whatever their state; their ids may be enqueued anew."""
        ids = list(workflow_ids)
        with _translated():
            for begin in range(0, len(ids), _AT_ONCE):
                self._client.delete_workflows(ids[begin : begin + _AT_ONCE])

    def forget_finished(self, older_than_s: float) -> None:
        """Delete the workflows that ended well, or were cancelled, more than so many seconds ago.

        Dead ones stay until they are told to `forget`: somebody may not have seen them yet.
        """
        before = (datetime.now(UTC) - timedelta(seconds=older_than_s)).isoformat()
        while ended := self._list(status=_FINISHED, completed_before=before, limit=_AT_ONCE):
            self.forget(status.workflow_id for status in ended)

    def _list(self, *, load_output: bool = False, **which: Any) -> list[WorkflowStatus]:
        with _translated():
            return self._client.list_workflows(load_input=False, load_output=load_output, **which)

    def _config(self, executor_id: str) -> DBOSConfig:
        return {
            "name": _APPLICATION,
            "system_database_engine": self._database,
            "executor_id": executor_id,
            "application_version": _VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "ERROR",
            "run_migrations": False,
            "scheduler_polling_interval_sec": 3600.0,  # nothing is scheduled
        }

    def _running(self) -> set[str]:
        """Ids of the workflows that this process runs, or whose end it has still to write down."""
        if self._library is None:
            return set()
        return set(self._library._active_workflows_set.activeList())  # noqa: SLF001 - there is no other way

    def _watch(self) -> None:
        """The guard: body of its thread."""
        suspects: set[str] = set()
        lost: dict[str, int] = {}
        while not self._stopping.wait(_LOOK_S):
            try:
                under_way = self._list(status="PENDING")
                suspects = self._look_at_the_others(under_way, suspects)
                lost = self._look_at_own(under_way, lost)
            except (OutOfResources, sa.exc.SQLAlchemyError, error.DBOSException, OSError) as problem:
                log.warning("guard could not look", error=problem)

    def _look_at_the_others(self, under_way: list[WorkflowStatus], suspects: set[str]) -> set[str]:
        """Take over from who is dead; returns who may be."""
        if self._lock is None or not self._lock.is_settled():
            return set()
        others = {status.executor_id for status in under_way} - {self._executor_id}
        free = {name for name in others if name and self.is_free(name)}
        for executor_id in free & suspects:
            with _translated(), self._locks.borrowed(executor_id) as is_mine:
                if is_mine:
                    log.warning("taking over from dead executor", executor_id=executor_id)
                    self._give_back(status for status in under_way if status.executor_id == executor_id)
        return free - suspects

    def _look_at_own(self, under_way: list[WorkflowStatus], lost: dict[str, int]) -> dict[str, int]:
        """Give back what is said to run here and does not; returns what may be, with how often.

        The database may fail after it took down that this process has a workflow and before the process
        knows, or when the process writes down that one has ended.
        """
        running = self._running()
        mine = [status for status in under_way if status.executor_id == self._executor_id]
        idle = {s.workflow_id: lost.get(s.workflow_id, 0) + 1 for s in mine if s.workflow_id not in running}
        gone = [status for status in mine if idle.get(status.workflow_id, 0) >= _LOOKS_UNTIL_LOST]
        for status in gone:
            log.warning("workflow was lost, and is queued again", workflow_id=status.workflow_id)
        self._give_back(gone)
        return idle

    def _give_back(self, workflows: Iterable[WorkflowStatus]) -> None:
        """Return these to their queues, but for what another executor has taken since they were listed."""
        for status in workflows:
            # What the library does at its start for its own executor id, and offers in no other way.
            self._client._sys_db.reenqueue_for_recovery(  # noqa: SLF001
                status.workflow_id, [str(status.executor_id)], str(status.queue_name)
            )


def _plain(function: Callable[..., None]) -> Callable[..., None]:
    """A plain function around any callable, as the library needs one."""

    def run(*args: int | str) -> None:
        function(*args)

    return run


@contextmanager
def _translated() -> Iterator[None]:
    try:
        with connections.translated():
            yield
    except error.DBOSQueryTimeoutError as problem:
        raise OutOfResources(f"the database does not answer: {problem}") from None


def _quiet() -> None:
    """Have the library log through the root logger, errors only, instead of a handler of its own."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.ERROR)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _begin_with_the_write_lock(connection: Any, record: object) -> None:
    """As the library sets up its own: a transaction that begins to write later fails where another did."""
    del record
    connection.isolation_level = "IMMEDIATE"


def _reason(status: WorkflowStatus) -> str:
    if status.status != "ERROR":
        return "its process died each time it ran"
    return getattr(status.error, "name", None) or type(status.error).__name__
