"""Opens the record's database and brings its tables up to date."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager, nullcontext
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
# A file costs a connection little; a server has a hundred for all processes of all hosts.
_CONNECTIONS = {"sqlite": (8, 64), "postgresql": (2, 8)}
_READ_ONLY = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


class _Mode(Enum):
    READ = auto()
    WRITE = auto()
    WRITE_RELAXED = auto()


class Database:
    """Connections to the record.

    A commit survives a power cut: a delivery noted, an order from the administrator, a line of the audit
    trail. On SQLite (`synchronous=FULL` in write-ahead mode) the rows of received instances may do
    without (`NORMAL`, about twice as many a second), since the receiver indexes them again from their
    bytes when it starts; they become durable with the next commit that is, by whichever process. The
    file stays consistent either way. A PostgreSQL server may fall without any receiver that starts
    again, so nothing does without there.

    Args:
        url: `sqlite:////absolute/path` or `postgresql+psycopg://user@host/database`.

    Raises:
        ConfigurationError: see `connections.checked`.
    """

    def __init__(self, url: str) -> None:
        address = connections.checked(url)
        self.url = url
        self.where = connections.where(address)
        """The database in messages, without a password."""
        self._is_file = address.get_backend_name() == "sqlite"
        kept, at_most = _CONNECTIONS[address.get_backend_name()]
        self._engine = connections.open_engine(address, kept=kept, at_most=at_most)
        # SQLite's waiting writers poll with growing pauses; threads of one process queue here instead.
        self._one_writer = threading.RLock() if self._is_file else nullcontext()
        if self._is_file:
            sa.event.listen(self._engine, "connect", _leave_transactions_to_us)
            sa.event.listen(self._engine, "begin", _begin)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Transaction]:
        """One transaction that may write: committed as a whole, or not at all where the block raises.

        SQLite's write lock is taken at its begin, so what is read inside still holds when it is written;
        PostgreSQL admits other writers meanwhile, but for what `lock` keeps from them.

        Args:
            durable: False for what can be had again from elsewhere after a power cut.

        Raises:
            OutOfResources: the database does not answer, is locked for too long, or has no room; whether
                a commit that broke off counts is then unknown.
        """
        mode = _Mode.WRITE if durable else _Mode.WRITE_RELAXED
        with self._one_writer, self._begin(mode) as transaction:
            yield transaction

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent view for reading; waits for nobody.

        Raises:
            OutOfResources: the database cannot be read.
        """
        with self._begin(_Mode.READ) as transaction:
            yield transaction

    def has_tables(self) -> bool:
        """Whether a node has ever made its tables here; a file that does not exist is not made.

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
    """Create the tables or bring them to this version; safe to call from several processes at once.

    A migration that fails leaves the database as it was.

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
    """Kept in the file; refused inside a transaction."""
    with connections.translated(), database._engine.connect() as connection:  # noqa: SLF001 - one module
        raw: Any = connection.connection.dbapi_connection
        try:
            raw.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            raise OutOfResources(f"the database does not answer: {error}") from None


def _one_upgrade_at_a_time(tx: Transaction) -> None:
    """Wait for the upgrade of another process, however long; then for readers and writers as usual."""
    if tx.dialect.name == "postgresql":
        tx.execute(sa.text("SET LOCAL statement_timeout = 0"))
        tx.execute(sa.text("SET LOCAL lock_timeout = 0"))
        lock(tx, "upgrade")
        tx.execute(sa.text("SET LOCAL lock_timeout = '30s'"))


def lock(tx: Transaction, name: str) -> None:
    """Wait until no other open transaction holds this name; held until `tx` ends.

    What a transaction decides on must not change before it is written. SQLite admits one writer at a
    time, so there is nothing to do there; elsewhere whoever changes one study, or one job's deliveries,
    takes its lock first. At most one name of a kind a transaction, in the order study, job, audit.
    """
    if tx.dialect.name == "postgresql":
        tx.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def insert(tx: Transaction, table: sa.Table, **values: Any) -> int:
    """Insert one row; returns the integer key that it got."""
    key: Any = tx.execute(table.insert().values(**values)).inserted_primary_key
    return int(key[0])


def _leave_transactions_to_us(connection: Any, record: object) -> None:
    del record
    connection.isolation_level = None  # transactions begin where SQLAlchemy says, see `_begin`


def _begin(connection: sa.Connection) -> None:
    mode = connection.get_execution_options().get("msnode_mode", _Mode.WRITE)
    if mode is _Mode.READ:
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if mode is _Mode.WRITE else 'NORMAL'}")
    # A deferred transaction that turns from reading to writing fails at once when another writer was
    # in between, whatever the busy timeout.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
