"""The durable-workflow port: what runs next, kept in the record's own database.

A process that only enqueues makes an `Engine` and calls `enqueue` inside its own transaction; one that
runs workflows calls `serve` too. Workflows are registered by name and get ids only. One that ends by
an exception, or whose process dies too often under it, is dead and is never run again by itself.

Every serving process holds an exclusive file lock named after its executor id. The system frees the
lock when the process dies, which is how the others notice: each looks every two seconds for executors
with work under way whose lock is free, twice in a row, and gives that work back to the queues.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, error
from filelock import FileLock, Timeout

from msnode.errors import ConfigurationError

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
_LOCK_WAIT_S = 10.0
_TAKEOVER_S = 60.0
# A lock object that nothing refers to any more releases itself.
_KEPT_TO_THE_END: list[FileLock] = []
_DEAD = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


@dataclass(frozen=True)
class DeadWorkflow:
    """A workflow that will not run again; `reason` is its error's class, or that its process kept dying."""

    workflow_id: str
    reason: str


def create_tables(url: str) -> None:
    """Create the engine's tables beside the record's, or bring them to this version."""
    _quiet()
    DBOS.migrate(url)


class Engine:
    """Enqueues workflows, and runs them once `serve` was called.

    Args:
        url: the record's database, whose engine tables exist (`create_tables`).
        lock_wait_s: how long `serve` waits for its executor lock: a guard may hold it for the seconds
            that a takeover takes.
    """

    def __init__(self, url: str, *, lock_wait_s: float = _LOCK_WAIT_S) -> None:
        _quiet()
        self._url = url
        self._lock_wait_s = lock_wait_s
        self._client = DBOSClient(
            system_database_url=url,
            serializer=DBOSPortableJSONSerializer(),
            application_name=_APPLICATION,
            system_database_pool_size=2,
        )
        self._executor_id: str | None = None
        self._lock: FileLock | None = None
        self._guard: threading.Thread | None = None
        self._stopping = threading.Event()
        self._counting = threading.Lock()
        self._running = 0

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
        self._client.enqueue_in_transaction(connection, options, *args)

    def serve(
        self,
        executor_id: str,
        workflows: Mapping[str, Callable[..., None]],
        queues: Mapping[str, int],
        *,
        max_recoveries: int = 3,
    ) -> None:
        """Run workflows in threads of this process until `stop`; one serving engine a process.

        Work that an earlier process of the same executor id left behind is taken up first.

        Args:
            executor_id: stable name of this process among all that share the database.
            workflows: name → function. It may be run again from its beginning after a crash.
            queues: queue that this process listens to → how many of its workflows it runs at once.
            max_recoveries: how often a workflow is run again after its process died.

        Raises:
            ConfigurationError: a live process has this executor id already.
        """
        if not _EXECUTOR_ID.match(executor_id):
            raise ConfigurationError("an executor id has 1-64 lower-case letters, digits and hyphens")
        lock = _lock(self._url, executor_id)
        try:
            lock.acquire(timeout=self._lock_wait_s)
        except Timeout:
            raise ConfigurationError(
                f"executor {executor_id} is already running on {lock.lock_file}: "
                "end that process, or give this one a name of its own"
            ) from None
        self._lock, self._executor_id = lock, executor_id
        DBOS(config=_config(self._url, executor_id))
        for name, function in workflows.items():
            DBOS.workflow(name=name, max_recovery_attempts=max_recoveries)(self._counted(function))
        for name, slots in queues.items():
            self._client.register_queue(name, worker_concurrency=slots, polling_interval_sec=_POLL_S)
        DBOS.listen_queues(list(queues))
        DBOS.launch()
        self._guard = threading.Thread(target=self._watch, name="engine-guard", daemon=True)
        self._guard.start()
        log.info("engine serving", executor_id=executor_id)

    def stop(self, *, wait_s: int = 0) -> None:
        """Take no new work, wait up to `wait_s` for what is running, release the executor id, disconnect.

        What is still running then goes on until this process ends, which keeps the executor id so long:
        were it released earlier, another process would run the same work beside this one.
        """
        self._stopping.set()
        if self._guard is not None:
            self._guard.join()
        if self._executor_id is not None:
            DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=wait_s)
        if self._lock is not None and self._running:
            _KEPT_TO_THE_END.append(self._lock)
        elif self._lock is not None:
            self._lock.release()
        self._client.destroy()

    def workflow_status(self, workflow_id: str) -> str | None:
        """ENQUEUED, DELAYED, PENDING (running), SUCCESS, CANCELLED, or one of two ways to be dead: ERROR
        (an exception), MAX_RECOVERY_ATTEMPTS_EXCEEDED (its process kept dying). None: never enqueued.
        """  # noqa: D205 - the states are the summary
        found = self._list(workflow_ids=[workflow_id])
        return found[0].status if found else None

    def cancel(self, workflow_id: str) -> None:
        """Take a workflow out of its queue; one that is running is not interrupted."""
        self._client.cancel_workflow(workflow_id)

    def dead_workflows(self, among: Iterable[str]) -> tuple[DeadWorkflow, ...]:
        """Which of these workflow ids are dead."""
        ids = list(among)
        if not ids:
            return ()
        found = self._list(workflow_ids=ids, status=_DEAD, load_output=True)
        return tuple(DeadWorkflow(status.workflow_id, _reason(status)) for status in found)

    def _counted(self, function: Callable[..., None]) -> Callable[..., None]:
        """A plain function around any callable, as the library needs one; counts what is running."""

        def run(*args: int | str) -> None:
            with self._counting:
                self._running += 1
            try:
                function(*args)
            finally:
                with self._counting:
                    self._running -= 1

        return run

    def _list(self, *, load_output: bool = False, **which: Any) -> list[WorkflowStatus]:
        return self._client.list_workflows(load_input=False, load_output=load_output, **which)

    def _watch(self) -> None:
        """The guard: body of its thread."""
        suspects: set[str] = set()
        while not self._stopping.wait(_LOOK_S):
            try:
                free = {name for name in self._others_at_work() if self._is_free(name)}
                for executor_id in free & suspects:
                    self._take_over(executor_id)
                suspects = free - suspects
            except (
                sa.exc.SQLAlchemyError,
                error.DBOSException,
                OSError,
                subprocess.SubprocessError,
            ) as problem:
                log.warning("guard could not look", error=problem)

    def _others_at_work(self) -> set[str]:
        running = {status.executor_id for status in self._list(status="PENDING")}
        return {name for name in running if name and name != self._executor_id}

    def _is_free(self, executor_id: str) -> bool:
        with _try_lock(self._url, executor_id) as is_mine:
            return is_mine

    def _take_over(self, executor_id: str) -> None:
        """Give the dead executor's work back to the queues, holding its lock meanwhile.

        The engine's library does this only at its start and for its own executor id: hence a child
        process that starts under that id, listens to no queue, and ends when nothing bears the id.
        """
        with _try_lock(self._url, executor_id) as is_mine:
            if not is_mine:
                return
            log.warning("taking over from dead executor", executor_id=executor_id)
            subprocess.run(
                [sys.executable, "-m", "msnode.engine", executor_id],
                input=self._url,  # not an argument: process titles are public, and a URL may hold a password
                text=True,
                timeout=_TAKEOVER_S,
                check=True,
            )


def give_back(url: str, executor_id: str) -> None:
    """Return to the queues what a dead executor was running; the caller holds that executor's lock."""
    DBOS(config=_config(url, executor_id))
    DBOS.listen_queues([])
    DBOS.launch()
    while DBOS.list_workflows(status="PENDING", executor_id=executor_id, load_input=False, load_output=False):
        time.sleep(0.05)
    DBOS.destroy()


def _config(url: str, executor_id: str) -> DBOSConfig:
    return {
        "name": _APPLICATION,
        "system_database_url": url,
        "executor_id": executor_id,
        "application_version": _VERSION,
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "ERROR",
        "run_migrations": False,
        "sys_db_pool_size": 4,
        "scheduler_polling_interval_sec": 3600.0,  # nothing is scheduled
    }


def _quiet() -> None:
    """Have the library log through the root logger, errors only, instead of a handler of its own."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.ERROR)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _lock(url: str, executor_id: str) -> FileLock:
    database = Path(sa.make_url(url).database or "")
    return FileLock(database.with_name(f"{database.name}.{executor_id}.lock"), thread_local=False)


@contextmanager
def _try_lock(url: str, executor_id: str) -> Iterator[bool]:
    """Hold that executor's lock where it is free; says whether it was."""
    lock = _lock(url, executor_id)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _reason(status: WorkflowStatus) -> str:
    if status.status != "ERROR":
        return "its process died each time it ran"
    return getattr(status.error, "name", None) or type(status.error).__name__


if __name__ == "__main__":
    _quiet()
    give_back(sys.stdin.read(), sys.argv[1])
