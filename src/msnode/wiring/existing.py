"""The record of a node that has run, for commands that only look: quick to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msnode.errors import ConfigurationError
from msnode.record.database import Database

if TYPE_CHECKING:
    from msnode.settings import Settings


def existing_record(settings: Settings) -> Database:
    """The record of a node that has run before, for commands that only look.

    Raises:
        ConfigurationError: there is none.
        OutOfResources: the database does not answer.
    """
    database = Database(settings.database_url)
    if not database.has_tables():
        raise ConfigurationError(f"there is no record at {database.where}: msnode serve makes it")
    return database
