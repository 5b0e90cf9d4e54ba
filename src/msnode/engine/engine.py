"""The durable-workflow port: what runs next, kept in the record's own database.

A process that only enqueues makes an `Engine` and calls `enqueue` inside its own transaction; one that runs
workflows calls `serve` too. Workflows are registered by name and get ids only. A workflow that ends by an
exception, or whose process dies too often while it runs, is dead: it never runs again by itself.

Every serving process holds an exclusive lock named after its executor id. The lock is free as soon as the
process has died, which is how the others notice and take over its work (`takeover`).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from dbos import DBOS, DBOSPortableJSONSerializer

from msnode.engine import connections, dbos_seams
from msnode.engine.client import WorkflowClient
from msnode.engine.executor_lock import ExecutorLock, ExecutorLocks
from msnode.engine.takeover import TakeoverGuard
from msnode.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dbos import DBOSConfig

log = structlog.get_logger()

_EXECUTOR_ID = re.compile(r"[a-z0-9-]{1,64}\Z")
_POLL_S = 0.5
_LOCK_WAIT_S = 30.0
_RECORD_END_S = 1.0
_TICK_S = 0.02
# A lock object that nothing refers to any more releases itself.
_HELD_UNTIL_EXIT: list[ExecutorLock] = []


@dataclass(frozen=True)
class QueueSlots:
    """How many workflows of a queue run at once.

    The limits belong to the queue, not to the process: where processes differ, the last one to start counts.

    Attributes:
        per_process: in each process that listens to the queue.
        everywhere: in all processes together, at least `per_process`; None for no such limit.
    """

    per_process: int
    everywhere: int | None = None


class Engine(WorkflowClient):
    """Enqueues workflows, and runs them once `serve` was called.

    Args:
        url: address of the record's database, in which the engine's tables exist (`tables.create_tables`).
        lock_wait_s: seconds that `hold` and `serve` wait for the executor lock: another process's takeover
            may hold it for a moment, and a server may keep the session of a dead process for some seconds.

    Raises:
        ConfigurationError: see `connections.checked`.
        OutOfResources: from every method too, where the database does not answer.
    """

    def __init__(self, url: str, *, lock_wait_s: float = _LOCK_WAIT_S) -> None:
        super().__init__(url)
        self._lock_wait_s = lock_wait_s
        self._locks = ExecutorLocks(self._database)
        self._lock: ExecutorLock | None = None
        self._library: DBOS | None = None
        self._guard: TakeoverGuard | None = None

    def hold(self, executor_id: str) -> None:
        """Hold this executor's lock until `stop`, so that others can tell that it lives (`is_free`).

        Args:
            executor_id: stable name of this process among all that share the database.

        Raises:
            ConfigurationError: the name is malformed, or a live process has it already.
        """
        self._lock = self._acquired(executor_id)

    def is_free(self, executor_id: str) -> bool:
        """Whether no live process holds this executor id."""
        with dbos_seams.translated():
            return self._locks.is_free(executor_id)

    def serve(
        self,
        executor_id: str,
        workflows: Mapping[str, Callable[..., None]],
        queues: Mapping[str, QueueSlots],
        *,
        max_recoveries: int = 100,
    ) -> None:
        """Run workflows in threads of this process until `stop`; a process serves with one engine only.

        Work that an earlier process of the same executor id left behind is run first.

        Args:
            executor_id: see `hold`, which is part of this.
            workflows: name → function. A function may be run again from its beginning: after a crash, or
                where the database could not record its end.
            queues: the queues that this process listens to.
            max_recoveries: how often a workflow is run again after its process died. It is a last resort: the
                caller knows better why a process died, and may give up earlier.

        Raises:
            ConfigurationError: see `hold`.
        """
        self._lock = lock = self._acquired(executor_id)
        with dbos_seams.translated():
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
        self._guard = TakeoverGuard(executor_id, lock, self._locks, self, self._active_ids)
        self._guard.start()
        log.info("engine_started", executor_id=executor_id)

    def stop(self, *, wait_s: int = 0) -> None:
        """Take no new work, wait for what is running, release the executor lock, disconnect.

        A workflow that still runs a second after the wait goes on until this process ends. The process keeps
        the executor lock so long, because another process would otherwise run the same workflow beside it.
        The end of such a workflow is not recorded: the next process runs it again.

        Args:
            wait_s: seconds to wait for running workflows.
        """
        if self._guard is not None:
            self._guard.stop()
        if self._library is not None:
            DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=wait_s)
        end = time.monotonic() + _RECORD_END_S
        while self._active_ids() and time.monotonic() < end:
            time.sleep(_TICK_S)
        if self._lock is not None and self._active_ids():
            _HELD_UNTIL_EXIT.append(self._lock)
        elif self._lock is not None:
            self._lock.release()
        self.close()

    def _acquired(self, executor_id: str) -> ExecutorLock:
        if not _EXECUTOR_ID.match(executor_id):
            raise ConfigurationError("an executor id has 1-64 lower-case letters, digits and hyphens")
        lock = self._locks.of(executor_id)
        with dbos_seams.translated():
            if not lock.acquire(self._lock_wait_s):
                raise ConfigurationError(
                    f"process {executor_id} is already running on "
                    f"{connections.where(self._database.url)}: "
                    "stop it, or start this one with another --instance or node.host"
                )
        return lock

    def _config(self, executor_id: str) -> DBOSConfig:
        return {
            "name": dbos_seams.APPLICATION,
            "system_database_engine": self._database,
            "executor_id": executor_id,
            "application_version": dbos_seams.VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "ERROR",
            "run_migrations": False,
            "scheduler_polling_interval_sec": 3600.0,  # nothing is scheduled
        }

    def _active_ids(self) -> set[str]:
        return set() if self._library is None else dbos_seams.active_workflow_ids(self._library)


def _plain(function: Callable[..., None]) -> Callable[..., None]:
    """A plain function around any callable, because DBOS registers nothing else."""

    def run(*args: int | str) -> None:
        function(*args)

    return run
