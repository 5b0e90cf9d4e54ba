"""Opens the record's database and migrates its tables."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.engine import connections
from msnode.errors import ConfigurationError, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterator

Transaction = sa.Connection
"""An open transaction; functions of this package that take one neither begin nor commit."""

_MIGRATIONS = Path(__file__).parent / "migrations"
# (idle, maximum): connections to a file are cheap; a server has about 100 for all processes of all hosts.
_CONNECTIONS = {"sqlite": (8, 64), "postgresql": (2, 8)}
_NEGLIGIBLE_SKEW = timedelta(seconds=1)
_READ_ONLY = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


class _Mode(Enum):
    READ = auto()
    WRITE = auto()
    WRITE_RELAXED = auto()


class Database:
    """Connections to the record.

    A commit survives a power cut (SQLite: `synchronous=FULL` in write-ahead mode). On SQLite the rows of
    received instances may be written with `synchronous=NORMAL`, which allows about twice as many a second:
    the receiver records lost rows again from their bytes when it starts. They become durable with the next
    durable commit of any process. The file stays consistent either way. On PostgreSQL every commit is
    durable, because the server may fail without a receiver that restarts.

    Args:
        url: `sqlite:////absolute/path` or `postgresql+psycopg://user@host/database`.

    Raises:
        ConfigurationError: see `connections.checked`.
    """

    def __init__(self, url: str) -> None:
        address = connections.checked(url)
        self.url = url
        self.where = connections.where(address)
        """The database for messages, without a password."""
        self._is_file = address.get_backend_name() == "sqlite"
        kept, at_most = _CONNECTIONS[address.get_backend_name()]
        self._engine = connections.open_engine(address, kept=kept, at_most=at_most)
        # Writers that wait for SQLite poll with growing pauses; threads of one process queue here instead.
        self._one_writer = threading.RLock() if self._is_file else nullcontext()
        if self._is_file:
            sa.event.listen(self._engine, "connect", _disable_driver_transactions)
            sa.event.listen(self._engine, "begin", _begin)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Transaction]:
        """One transaction that may write: committed at the end of the block, rolled back where it raises.

        SQLite's write lock is taken when the transaction begins, so that what it reads does not change before
        it writes. PostgreSQL admits other writers meanwhile; use `lock` to exclude them.

        Args:
            durable: False for rows that can be restored from elsewhere after a power cut.

        Raises:
            OutOfResources: the database does not answer, is locked for too long, or is full. Where the
                connection broke during the commit, nobody can know whether it was committed.
        """
        mode = _Mode.WRITE if durable else _Mode.WRITE_RELAXED
        with self._one_writer, self._begin(mode) as transaction:
            yield transaction

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One read-only transaction with a consistent view; it never waits for writers.

        Raises:
            OutOfResources: the database cannot be read.
        """
        with self._begin(_Mode.READ) as transaction:
            yield transaction

    def now(self) -> datetime:
        """The time that counts for all machines, UTC: the server's, or with SQLite this machine's.

        Raises:
            OutOfResources: the server does not answer.
        """
        if self._is_file:
            return datetime.now(UTC)
        with self.read() as tx:
            return datetime.now(UTC) + clock_skew(tx)

    @classmethod
    def open_existing(cls, url: str) -> Database:
        """The record of a node that has run before, for commands that only look.

        Raises:
            ConfigurationError: there is none.
            OutOfResources: the database does not answer.
        """
        database = cls(url)
        if not database.has_tables():
            raise ConfigurationError(f"there is no record at {database.where}: msnode serve creates it")
        return database

    def has_tables(self) -> bool:
        """Whether the tables exist; does not create a missing SQLite file.

        Raises:
            OutOfResources: the database cannot be read.
        """
        if self._is_file and not Path(str(self._engine.url.database)).exists():
            return False
        with self.read() as tx:
            return sa.inspect(tx).has_table("alembic_version")

    @contextmanager
    def _begin(self, mode: _Mode) -> Iterator[Transaction]:
        options: dict[str, Any] = {"msnode_mode": mode}
        if mode is _Mode.READ and not self._is_file:
            options |= _READ_ONLY
        with (
            connections.translated(),
            self._engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Close the idle connections."""
        self._engine.dispose()


def upgrade(url: str) -> None:
    """Create the tables, or migrate them to this version.

    Several processes may call it at once. A migration that fails leaves the database unchanged.

    Raises:
        ConfigurationError: the database was written by a newer msnode, or see `connections.checked`.
        OutOfResources: the database cannot be written.
    """
    from alembic import command  # noqa: PLC0415 - slow to import, and needed at start only
    from alembic.config import Config  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    database = Database(url)
    try:
        if connections.checked(url).get_backend_name() == "sqlite":
            _write_ahead(database)
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with database.write() as transaction:
            _one_upgrade_at_a_time(transaction)
            current = MigrationContext.configure(transaction).get_current_revision()
            if current is not None and current not in known:
                raise ConfigurationError(
                    f"{database.where} was written by a newer msnode (its schema is {current}): "
                    "install that version, or restore the backup made before the upgrade"
                )
            config.attributes["connection"] = transaction
            command.upgrade(config, "head")
    finally:
        database.close()


def _write_ahead(database: Database) -> None:
    """Turn on write-ahead mode, which the file keeps; SQLite allows that outside transactions only."""
    with connections.translated(), database._engine.connect() as connection:  # noqa: SLF001 - same module
        raw: Any = connection.connection.dbapi_connection
        try:
            raw.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            raise OutOfResources(f"the database does not answer: {error}") from None


def _one_upgrade_at_a_time(tx: Transaction) -> None:
    """Wait without a limit for another process's upgrade, then with the usual timeouts for other locks."""
    if tx.dialect.name == "postgresql":
        tx.execute(sa.text("SET LOCAL statement_timeout = 0"))
        tx.execute(sa.text("SET LOCAL lock_timeout = 0"))
        lock(tx, "upgrade")
        tx.execute(sa.text("SET LOCAL lock_timeout = '30s'"))


def lock(tx: Transaction, name: str) -> None:
    """Take a named lock until `tx` ends, after any other transaction that holds it has ended.

    A transaction that changes one study, or the deliveries of one job, takes its lock first, so that what it
    reads does not change before it writes. Take locks in the order study, job, audit. SQLite admits one
    writer at a time, so that this does nothing there.
    """
    if tx.dialect.name == "postgresql":
        tx.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def clock_skew(tx: Transaction) -> timedelta:
    """By how much the server's clock is ahead of this machine's; 0 below a second, and with SQLite.

    Study timers compare times of several machines: arrivals are recorded by the server's clock.
    """
    if tx.dialect.name != "postgresql":
        return timedelta(0)
    before = datetime.now(UTC)
    there: datetime = tx.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    skew = there - (before + (datetime.now(UTC) - before) / 2)
    return skew if abs(skew) > _NEGLIGIBLE_SKEW else timedelta(0)


def insert(tx: Transaction, table: sa.Table, **values: Any) -> int:
    """Insert one row; returns its integer key."""
    key: Any = tx.execute(table.insert().values(**values)).inserted_primary_key
    return int(key[0])


def _disable_driver_transactions(connection: Any, record: object) -> None:
    del record
    connection.isolation_level = None  # `_begin` begins transactions, not the driver


def _begin(connection: sa.Connection) -> None:
    mode = connection.get_execution_options().get("msnode_mode", _Mode.WRITE)
    if mode is _Mode.READ:
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if mode is _Mode.WRITE else 'NORMAL'}")
    # A deferred transaction that reads first fails at its first write where another one has written in
    # between, whatever the busy timeout.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
