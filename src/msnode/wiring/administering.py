"""The record of a node that has run, opened to look or to change something, from the settings."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from msnode.engine.engine import Engine
from msnode.services.administer import Administrator
from msnode.wiring.existing import existing_record
from msnode.wiring.node import open_store
from msnode.wiring.routing import make_router

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msnode.record.database import Database
    from msnode.services.router import Router
    from msnode.settings import Settings


@contextmanager
def administrator(settings: Settings) -> Iterator[Administrator]:
    """What changes jobs, for the length of the block.

    Raises:
        ConfigurationError: there is no record; see `existing_record`.
        OutOfResources: the database does not answer.
    """
    database, engine = existing_record(settings), Engine(settings.database_url)
    try:
        yield Administrator(database, engine, partial(_open_router, settings, database))
    finally:
        engine.stop()
        database.close()


def _open_router(settings: Settings, database: Database) -> Router:
    return make_router(settings, database, open_store(settings))
