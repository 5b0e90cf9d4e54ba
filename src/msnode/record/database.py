"""Opens the record's database and brings its tables up to date."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.errors import ConfigurationError, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterator

Transaction = sa.Connection
"""An open transaction; functions of this package that take one neither begin nor commit."""

_BUSY_TIMEOUT_MS = 30_000


class _Mode(Enum):
    READ = auto()
    WRITE = auto()
    WRITE_RELAXED = auto()


def sqlite_path(url: str) -> Path:
    """The file that `url` names; the one place that decides which databases are taken.

    Raises:
        ConfigurationError: `url` is not an SQLite file given by an absolute path.
    """
    would_be_right = "database_url must be sqlite:////absolute/path/msnode.db"
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ConfigurationError(f"{would_be_right}; what is set is not a URL") from None
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite"}:
        raise ConfigurationError(f"{would_be_right}; {parsed.drivername} is not tested yet and refused")
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise ConfigurationError(f"{would_be_right}; the path is missing or relative")
    return Path(parsed.database)


class Database:
    """Connections to the record.

    A commit survives a power cut (`synchronous=FULL` in write-ahead mode): a delivery noted, an order
    from the administrator, a line of the audit trail. The rows of received instances may do without
    (`NORMAL`, about twice as many a second), since the receiver indexes them again from their bytes;
    they become durable with the next commit that is, by whichever process. The file stays consistent
    either way.

    Args:
        url: `sqlite:////absolute/path`.

    Raises:
        ConfigurationError: see `sqlite_path`; also where the file's folder does not exist.
    """

    def __init__(self, url: str) -> None:
        self.path = sqlite_path(url)
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"database_url: there is no folder {self.path.parent}")
        self.url = url
        # Parameters hold patient IDs, and database errors would print them.
        self._engine = sa.create_engine(url, hide_parameters=True, pool_size=8, max_overflow=56)
        sa.event.listen(self._engine, "connect", _prepare_connection)
        sa.event.listen(self._engine, "begin", _begin)
        # SQLite makes waiting writers poll with growing pauses; threads of one process queue here instead.
        self._writing = threading.RLock()

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Transaction]:
        """One transaction that may write: committed as a whole, or not at all where the block raises.

        The write lock is taken at its begin, so what is read inside still holds when it is written.

        Args:
            durable: False for what can be had again from elsewhere after a power cut.

        Raises:
            OutOfResources: the database is locked for too long, or has no room.
        """
        mode = _Mode.WRITE if durable else _Mode.WRITE_RELAXED
        with self._writing, self._begin(mode) as transaction:
            yield transaction

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent view for reading; waits for nobody.

        Raises:
            OutOfResources: the database cannot be read.
        """
        with self._begin(_Mode.READ) as transaction:
            yield transaction

    @contextmanager
    def _begin(self, mode: _Mode) -> Iterator[Transaction]:
        with (
            _translated(),
            self._engine.connect().execution_options(msnode_mode=mode) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Close the idle connections."""
        self._engine.dispose()


def upgrade(url: str) -> None:
    """Create the tables or bring them to this version; safe to call from several processes at once.

    Raises:
        ConfigurationError: the database was written by a newer msnode, or `url` is refused.
        OutOfResources: the database cannot be written.
    """
    from alembic import command  # noqa: PLC0415 - a third of the import time, for a start alone
    from alembic.config import Config  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    database = Database(url)
    try:
        with _translated(), database._engine.connect() as connection:  # noqa: SLF001 - one module
            raw: Any = connection.connection.dbapi_connection
            raw.execute("PRAGMA journal_mode=WAL")  # kept in the file; refused inside a transaction
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with database.write() as transaction:
            current = MigrationContext.configure(transaction).get_current_revision()
            if current is not None and current not in known:
                raise ConfigurationError(
                    f"{database.path} was written by a newer msnode (its schema is {current}): "
                    "install that version, or restore the backup made before the upgrade"
                )
            config.attributes["connection"] = transaction
            command.upgrade(config, "head")
    finally:
        database.close()


def insert(tx: Transaction, table: sa.Table, **values: Any) -> int:
    """Insert one row; returns the integer key that it got."""
    key: Any = tx.execute(table.insert().values(**values)).inserted_primary_key
    return int(key[0])


def _prepare_connection(connection: Any, record: object) -> None:
    del record
    connection.isolation_level = None  # transactions begin where SQLAlchemy says, see `_begin`
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: sa.Connection) -> None:
    mode = connection.get_execution_options().get("msnode_mode", _Mode.WRITE)
    if mode is _Mode.READ:
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if mode is _Mode.WRITE else 'NORMAL'}")
    # A deferred transaction that turns from reading to writing fails at once when another writer was
    # in between, whatever the busy timeout.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        raise OutOfResources(f"the database does not answer: {error.orig}") from None
