"""The engine's tables, which lie beside those of the record in the same database."""

from __future__ import annotations

from dbos import DBOS

from msnode.engine import connections, dbos_seams
from msnode.engine.executor_lock import ExecutorLocks
from msnode.errors import OutOfResources

_LOCK_NAME = "engine-tables"
_LOCK_WAIT_S = 300.0


def create_tables(url: str) -> None:
    """Create the engine's tables, or bring them to this version.

    Several processes may call it at once.

    Args:
        url: address of the record's database.

    Raises:
        ConfigurationError: see `connections.checked`.
        OutOfResources: the database does not answer, or another process migrates it for more than 5 minutes.
    """
    dbos_seams.silence_log()
    address = connections.checked(url)
    database = connections.open_engine(address, **dbos_seams.CONNECTIONS)
    without_timeouts = connections.complete(address, statement_timeout="0", lock_timeout="0")
    try:
        with (
            dbos_seams.translated(),
            ExecutorLocks(database).borrowed(_LOCK_NAME, _LOCK_WAIT_S) as is_mine,
        ):
            if not is_mine:
                raise OutOfResources("another process has been migrating the engine's tables for 5 minutes")
            DBOS.migrate(without_timeouts.render_as_string(hide_password=False))
    finally:
        database.dispose()
