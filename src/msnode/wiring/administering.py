"""The record of a node that has run, opened to look or to change something, from the settings."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from msnode.engine.engine import Engine
from msnode.record.database import Database
from msnode.services.administer import Administrator
from msnode.wiring.node import open_store
from msnode.wiring.routing import make_router

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msnode.settings import Settings


@contextmanager
def administrator(settings: Settings) -> Iterator[Administrator]:
    """What changes jobs, for the length of the block.

    Raises:
        ConfigurationError: there is no record; see `Database.open_existing`.
        OutOfResources: the database does not answer.
    """
    database, engine = Database.open_existing(settings.database_url), Engine(settings.database_url)
    try:
        yield Administrator(database, engine, lambda: make_router(settings, database, open_store(settings)))
    finally:
        engine.stop()
        database.close()
