"""Database addresses, connections, and which database errors are temporary.

SQLite serves a node on one machine; any number of machines may share a PostgreSQL database.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa

from msnode.errors import ConfigurationError, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_TIMEOUT_MS = 30_000
"""How long SQLite waits for another process's transaction, in milliseconds."""

_POOL_TIMEOUT_S = 30
# Locks and the shared memory of write-ahead mode do not work across the hosts that share one of these.
_NETWORK_FILE_SYSTEMS = {
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.cephfs", "fuse.glusterfs",
    "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2",
    "orangefs", "smb", "smb2", "smb3", "smbfs",
}  # fmt: skip

# Defaults of the client side (libpq), which the address may override. They detect a host that is cut off in
# about ten seconds; the defaults of the operating system need hours.
_LIBPQ = {
    "application_name": "msnode",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# The same for the server side, which keeps the locks of a lost client until it detects the loss; and limits
# for a client that hangs while it holds a lock.
_SESSION = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "lock_timeout": "30s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
}

# BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL
_SQLITE_TEMPORARY = {5, 6, 7, 8, 9, 10, 13, 14, 15}
# SQLSTATE classes: connection, rollback, insufficient resources, operator intervention, system error
_POSTGRESQL_TEMPORARY_CLASSES = ("08", "40", "53", "57", "58")
# Read-only transaction (a former primary), idle-in-transaction timeout, lock not available
_POSTGRESQL_TEMPORARY = {"25006", "25P03", "55P03"}
_READ_ONLY = "25006"
_PRIVATE = 0o600
_INVALID_VALUE = "22"


def checked(url: str) -> sa.URL:
    """Parse a database address and check that it is supported; no other place decides that.

    Args:
        url: absolute path of an SQLite file in an existing folder on a local disk, or a PostgreSQL database.

    Raises:
        ConfigurationError: it is anything else. The message does not quote `url`, which may hold a password.
    """
    expected = (
        "database_url must be sqlite:////absolute/path/msnode.db or postgresql+psycopg://user@host/database"
    )
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigurationError(f"{expected}; the value is not a URL") from None
    if parsed.drivername == "postgresql+psycopg":
        if not parsed.database:
            raise ConfigurationError(f"{expected}; the name of the database is missing")
        return parsed
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite"}:
        raise ConfigurationError(f"{expected}; {parsed.drivername} is not supported")
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise ConfigurationError(f"{expected}; the path is missing or relative")
    folder = Path(parsed.database).parent
    if not folder.is_dir():
        raise ConfigurationError(
            f"no folder for the database: {folder} does not exist (data_dir, database_url)"
        )
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"database_url: {folder} is on a network file system ({kind}), where SQLite loses data: "
            "use a local disk, or PostgreSQL"
        )
    return parsed


def where(url: sa.URL) -> str:
    """The address for messages: without user, password and options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    hosts = [f"{url.host}:{url.port}" if url.port else url.host] if url.host else []
    more = url.query.get("host", ())
    hosts += [more] if isinstance(more, str) else more
    return f"PostgreSQL database {url.database} at {', '.join(hosts) or 'the local socket'}"


def complete(url: sa.URL, **session: str) -> sa.URL:
    """Add the settings that every connection has: timeouts and keepalives.

    Args:
        url: the address; what it sets itself wins.
        session: PostgreSQL session settings that replace the defaults, by name.
    """
    if url.get_backend_name() == "sqlite":
        return url
    options = " ".join(f"-c {name}={value}" for name, value in {**_SESSION, **session}.items())
    theirs = url.query.get("options")
    if isinstance(theirs, str):
        options = f"{options} {theirs}"  # the last of two values for one setting counts
    return url.set(query={**_LIBPQ, **url.query, "options": options})


def open_engine(url: sa.URL, *, kept: int, at_most: int) -> sa.Engine:
    """Open a pool of connections; a thread that finds none free waits up to 30 seconds for one.

    Args:
        url: an address from `checked`.
        kept: number of idle connections that stay open.
        at_most: maximum number of connections.
    """
    engine = sa.create_engine(
        complete(url),
        hide_parameters=True,  # parameters hold patient IDs, which error messages would quote
        pool_size=kept,
        max_overflow=at_most - kept,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_pre_ping=url.get_backend_name() != "sqlite",
    )
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "do_connect", partial(_keep_private, Path(str(url.database))))
        sa.event.listen(engine, "connect", _prepare_sqlite)
    else:
        sa.event.listen(engine, "handle_error", _disconnect_read_only_server)
    return engine


@contextmanager
def translated() -> Iterator[None]:
    """Turn temporary database errors into OutOfResources; other errors stay what they are.

    No message quotes the row that an error is about. Where the connection broke during a commit, nobody can
    know whether the transaction was committed.

    Raises:
        OutOfResources: the database does not answer, is locked, full or read-only, or ended the session.
    """
    try:
        yield
    except sa.exc.TimeoutError:
        raise OutOfResources("the database does not answer: every connection is in use") from None
    except sa.exc.DBAPIError as error:
        if _is_temporary(error):
            raise OutOfResources(f"the database does not answer: {_safe_message(error)}") from None
        cause: Any = error.orig
        if getattr(cause, "sqlstate", None) is None:
            raise
        bare = type(error)(error.statement, None, type(cause)(_safe_message(error)), hide_parameters=True)
        raise bare.with_traceback(error.__traceback__) from None


def _is_temporary(error: sa.exc.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_TEMPORARY
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # not from the server: the connection broke, or could not be opened
        return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)
    return state in _POSTGRESQL_TEMPORARY or state.startswith(_POSTGRESQL_TEMPORARY_CLASSES)


def _safe_message(error: sa.exc.DBAPIError) -> str:
    """The error without PostgreSQL's detail, and without text about a value: both quote the row."""
    cause: Any = error.orig
    state = getattr(cause, "sqlstate", None)
    if state is None:
        return " ".join(str(cause).split())
    if state.startswith(_INVALID_VALUE):
        return f"a value is invalid in the database ({state})"
    return f"{cause.diag.message_primary} ({state})"


def _disconnect_read_only_server(context: Any) -> None:
    """Close the connection to a server that has become read-only: after a failover another one is primary."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _keep_private(path: Path, *_connect_arguments: object) -> None:
    """Give the database to this user alone, whatever the umask; SQLite gives its log and index the same mode.

    The file is never opened here once it exists: closing it would drop the locks of this process on it.
    """
    with suppress(OSError):  # it exists, or cannot be made: then the database says so
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE))
    for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        with suppress(OSError):  # it does not exist, or belongs to another user
            if each.stat().st_mode & 0o777 != _PRIVATE:
                each.chmod(_PRIVATE)


def _prepare_sqlite(connection: Any, record: object) -> None:
    del record
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys=ON")


def _file_system(folder: Path) -> str:
    """Type of the file system that holds a folder; empty where the system does not tell."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return ""
    real = folder.resolve()
    depth, kind = 0, ""
    for mount in mounts:
        point = Path(mount.mountpoint)
        if real.is_relative_to(point) and len(point.parts) >= depth:  # a later mount hides an earlier one
            depth, kind = len(point.parts), mount.fstype
    return kind
