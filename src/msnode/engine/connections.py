"""Which databases are taken, how connections to them are opened, and which of their errors pass.

SQLite holds everything of a node on one machine; PostgreSQL is shared by any number of them.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.errors import ConfigurationError, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_TIMEOUT_MS = 30_000
"""How long SQLite waits for another process's transaction."""

_POOL_TIMEOUT_S = 30
_MOUNTS = Path("/proc/self/mountinfo")
# Neither locks nor the shared memory of write-ahead mode hold between the hosts of these.
_NETWORK_FILE_SYSTEMS = {
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.ceph", "fuse.cephfs", "fuse.glusterfs",
    "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2",
    "orangefs", "smb", "smb2", "smb3", "smbfs",
}  # fmt: skip

# What libpq takes; an address that says otherwise wins. A host that is cut off is noticed in about ten
# seconds, instead of the hours that the system allows.
_LIBPQ = {
    "application_name": "msnode",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# The same for the server, which keeps the locks of a host that is cut off until it notices, and bounds
# for a process that hangs with a lock in its hand.
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
_SQLITE_PASSES = {5, 6, 7, 8, 9, 10, 13, 14, 15}
# Connection lost, rolled back for another's sake, no resources, an operator's doing, an I/O error
_POSTGRESQL_PASSES = ("08", "40", "53", "57", "58")
# A server that takes no writes (any more), a session ended for idling, a lock not to be had
_POSTGRESQL_PASSES_TOO = {"25006", "25P03", "55P03"}
_READ_ONLY = "25006"
_INVALID_VALUE = "22"


def checked(url: str) -> sa.URL:
    """The address of a database that is taken; the one place that decides which are.

    Raises:
        ConfigurationError: `url` is neither an SQLite file on a local disk, in a folder that exists and
            given by its absolute path, nor a PostgreSQL database.
    """
    would_be_right = (
        "database_url must be sqlite:////absolute/path/msnode.db or postgresql+psycopg://user@host/database"
    )
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigurationError(f"{would_be_right}; what is set is not a URL") from None
    if parsed.drivername == "postgresql+psycopg":
        if not parsed.database:
            raise ConfigurationError(f"{would_be_right}; the database's name is missing")
        return parsed
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite"}:
        raise ConfigurationError(f"{would_be_right}; {parsed.drivername} is refused")
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise ConfigurationError(f"{would_be_right}; the path is missing or relative")
    folder = Path(parsed.database).parent
    if not folder.is_dir():
        raise ConfigurationError(f"database_url: there is no folder {folder}")
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise ConfigurationError(
            f"database_url: {folder} lies on a network file system ({kind}), where SQLite loses data: "
            "use a local disk, or PostgreSQL"
        )
    return parsed


def where(url: sa.URL) -> str:
    """The same address for messages: without user, password or options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    hosts = [f"{url.host}:{url.port}" if url.port else url.host] if url.host else []
    more = url.query.get("host", ())
    hosts += [more] if isinstance(more, str) else more
    return f"PostgreSQL database {url.database} at {', '.join(hosts) or 'the local socket'}"


def complete(url: sa.URL, **session: str) -> sa.URL:
    """The address with the settings of every connection.

    Args:
        url: the address.
        session: settings of the PostgreSQL session that differ from the usual ones.
    """
    if url.get_backend_name() == "sqlite":
        return url
    options = " ".join(f"-c {name}={value}" for name, value in {**_SESSION, **session}.items())
    theirs = url.query.get("options")
    if isinstance(theirs, str):
        options = f"{options} {theirs}"  # of a setting that is given twice the last one counts
    return url.set(query={**_LIBPQ, **url.query, "options": options})


def open_engine(url: sa.URL, *, kept: int, at_most: int) -> sa.Engine:
    """Connections to a `checked` address; a thread that finds none free waits for one.

    Args:
        url: the address.
        kept: how many stay open when idle.
        at_most: how many there are at once.
    """
    engine = sa.create_engine(
        complete(url),
        hide_parameters=True,  # they hold patient IDs, and database errors would print them
        pool_size=kept,
        max_overflow=at_most - kept,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_pre_ping=url.get_backend_name() != "sqlite",
    )
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    else:
        sa.event.listen(engine, "handle_error", _leave_a_former_primary)
    return engine


@contextmanager
def translated() -> Iterator[None]:
    """What a database cannot do now becomes OutOfResources; a mistake stays what it is.

    An error of PostgreSQL is told without the row that it is about. Where the connection broke at the
    commit, nobody can say whether the transaction counts.
    """
    try:
        yield
    except sa.exc.TimeoutError:
        raise OutOfResources("the database does not answer: every connection is in use") from None
    except sa.exc.DBAPIError as error:
        if _passes(error):
            raise OutOfResources(f"the database does not answer: {_told(error)}") from None
        cause: Any = error.orig
        if getattr(cause, "sqlstate", None) is None:
            raise
        bare = type(error)(error.statement, None, type(cause)(_told(error)), hide_parameters=True)
        raise bare.with_traceback(error.__traceback__) from None


def _passes(error: sa.exc.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_PASSES
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # no server said it: the connection broke or was not made
        return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)
    return state in _POSTGRESQL_PASSES_TOO or state.startswith(_POSTGRESQL_PASSES)


def _told(error: sa.exc.DBAPIError) -> str:
    """What happened; PostgreSQL's detail, and what it says about a value, quote what is in the row."""
    cause: Any = error.orig
    state = getattr(cause, "sqlstate", None)
    if state is None:
        return " ".join(str(cause).split())
    if state.startswith(_INVALID_VALUE):
        return f"a value that the database does not take ({state})"
    return f"{cause.diag.message_primary} ({state})"


def _leave_a_former_primary(context: Any) -> None:
    """A server that takes no writes any more is left: after a failover another one does."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _prepare_sqlite(connection: Any, record: object) -> None:
    del record
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys=ON")


def _file_system(folder: Path) -> str:
    """Type of the file system that holds a folder; empty where the system does not tell."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    found: tuple[int, str] = (0, "")
    real = folder.resolve()
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = Path(mount.split(" ")[4].replace("\\040", " "))
        if real.is_relative_to(point) and len(point.parts) >= found[0]:
            found = len(point.parts), source.split(" ")[0]  # what is mounted later hides what was there
    return found[1]
