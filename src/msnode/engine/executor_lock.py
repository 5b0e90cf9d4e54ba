"""Locks that show which executors are alive: exclusive, and free as soon as their process has died.

On SQLite a lock is a file beside the database, locked by the operating system. On PostgreSQL it is an
advisory lock of a session of its own. A thread watches that session, because a server that restarts loses
every lock.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa
import structlog
from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger()

_WATCH_S = 0.5
_RETRY_S = 0.2
_LOG_AGAIN_S = 10.0
_SETTLE_S = 5.0
_CONNECTION_ERRORS = (sa.exc.SQLAlchemyError, OSError)


class ExecutorLock(Protocol):
    """The lock of one executor id; one process holds it at a time."""

    def acquire(self, timeout_s: float) -> bool:
        """Wait up to so many seconds for the lock; returns whether it is held now."""

    def release(self) -> None:
        """Release the lock."""

    def is_settled(self) -> bool:
        """Whether other executors' locks can be trusted now.

        A server that has just restarted has lost them all, and their holders need some seconds to take them
        again.
        """


class ExecutorLocks:
    """The locks of all executors that share a database.

    Args:
        engine: connections to that database. Each lock on PostgreSQL keeps one connection for itself.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def of(self, executor_id: str) -> ExecutorLock:
        """The lock of this executor id, not held yet."""
        if self._engine.dialect.name == "sqlite":
            return _FileExecutorLock(Path(str(self._engine.url.database)), executor_id)
        return _SessionExecutorLock(self._engine, executor_id)

    def is_free(self, executor_id: str) -> bool:
        """Whether nobody holds the lock of this executor id."""
        if self._engine.dialect.name == "sqlite":
            with self.borrowed(executor_id) as is_mine:
                return is_mine
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # In autocommit mode this lock ends with its statement.
            return bool(connection.scalar(sa.func.pg_try_advisory_xact_lock(_key(executor_id))))

    @contextmanager
    def borrowed(self, executor_id: str, timeout_s: float = 0.0) -> Iterator[bool]:
        """Hold the lock inside the block, if it is free within so many seconds; yields whether it is held."""
        lock = self.of(executor_id)
        is_mine = lock.acquire(timeout_s)
        try:
            yield is_mine
        finally:
            if is_mine:
                lock.release()


class _FileExecutorLock:
    def __init__(self, database: Path, executor_id: str) -> None:
        self._lock = FileLock(database.with_name(f"{database.name}.{executor_id}.lock"), thread_local=False)

    def acquire(self, timeout_s: float) -> bool:
        try:
            self._lock.acquire(timeout=timeout_s)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        self._lock.release()

    def is_settled(self) -> bool:
        return True


class _SessionExecutorLock:
    def __init__(self, engine: sa.Engine, executor_id: str) -> None:
        self._engine = engine
        self._executor_id = executor_id
        self._key = _key(executor_id)
        self._session: sa.Connection | None = None
        self._watcher = threading.Thread(target=self._watch, name="executor-lock", daemon=True)
        self._releasing = threading.Event()
        self._unsettled_until = 0.0

    def acquire(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while not self._try():
            if time.monotonic() >= end:
                return False
            time.sleep(_RETRY_S)
        self._watcher.start()
        return True

    def release(self) -> None:
        self._releasing.set()
        self._watcher.join()
        if self._session is not None:
            # On an error the server ends the session, and its locks with it.
            with suppress(*_CONNECTION_ERRORS):
                self._session.scalar(sa.func.pg_advisory_unlock(self._key))
        self._close_session()

    def is_settled(self) -> bool:
        return time.monotonic() > self._unsettled_until

    def _try(self) -> bool:
        session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        session.detach()  # the pool would close it, or hand it to somebody else
        self._session = session
        try:
            if session.scalar(sa.func.pg_try_advisory_lock(self._key)):
                return True
        except _CONNECTION_ERRORS:
            self._close_session()
            raise
        self._close_session()
        return False

    def _close_session(self) -> None:
        if self._session is not None:
            with suppress(*_CONNECTION_ERRORS):
                self._session.close()
        self._session = None

    def _watch(self) -> None:
        """Body of the watching thread: the lock is held as long as its session answers."""
        while not self._releasing.wait(_WATCH_S):
            try:
                if self._session is not None:
                    self._session.scalar(sa.select(1))
            except _CONNECTION_ERRORS as error:
                log.warning("executor_lock_lost", executor_id=self._executor_id, error=error)
                self._unsettled_until = math.inf
                self._close_session()
                self._regain()
                self._unsettled_until = time.monotonic() + _SETTLE_S

    def _regain(self) -> None:
        logged_at = 0.0
        while not self._releasing.is_set():
            with suppress(*_CONNECTION_ERRORS):  # the server is not back yet
                if self._try():
                    log.warning("executor_lock_regained", executor_id=self._executor_id)
                    return
                # Another guard holds it for a moment, the server still keeps our former session, or a second
                # process has this executor id.
                if time.monotonic() - logged_at > _LOG_AGAIN_S:
                    logged_at = time.monotonic()
                    log.error("executor_lock_held_elsewhere", executor_id=self._executor_id)
            self._releasing.wait(_WATCH_S)


def _key(executor_id: str) -> int:
    digest = hashlib.sha256(f"msnode executor {executor_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
