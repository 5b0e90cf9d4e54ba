"""Housekeeping: old received bytes and abandoned files are removed, workflows that ended are forgotten."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from msnode.record.retention import remove_old

if TYPE_CHECKING:
    from collections.abc import Callable

    from msnode.engine.engine import Engine
    from msnode.record.database import Database
    from msnode.store import Store

log = structlog.get_logger()

_EVERY_S = 600.0
_FINISHED_KEPT_S = 86400.0
_REMOVED_AT_ONCE = 200
_ABANDONED_S = 3600.0


class Upkeep:
    """Does the housekeeping every ten minutes, beginning with the first call.

    Args:
        database: the record.
        store: where received bytes lie.
        engine: keeps workflows that ended until they are forgotten.
        received_days: received bytes are removed this long after the last instance; 0 keeps them for ever.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        engine: Engine,
        received_days: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._store = store
        self._engine = engine
        self._received_days = received_days
        self._clock = clock
        self._next = clock()

    def run_if_due(self) -> None:
        """Do it where ten minutes have passed.

        Raises:
            OutOfResources: record or store cannot be used now.
        """
        if self._clock() < self._next:
            return
        self._next = self._clock() + _EVERY_S
        self._store.sweep(older_than_s=_ABANDONED_S)
        self._engine.forget_finished(_FINISHED_KEPT_S)
        if self._received_days > 0:
            before = datetime.now(UTC) - timedelta(days=self._received_days)
            removed = remove_old(self._database, self._store, before=before, limit=_REMOVED_AT_ONCE)
            if removed:
                log.info("received_bytes_removed", count=removed)
