"""Where compiled networks are kept from one start to the next."""

from __future__ import annotations

import os
from pathlib import Path

from msnode.errors import ConfigurationError


def cache_folder(configured: Path | None, default: Path | None) -> Path | None:
    """The folder for compiled networks, made where it is absent.

    Args:
        configured: what the settings name; goes before the default.
        default: the folder where none is configured.

    Returns:
        The folder; None where there is no default, or it cannot be written: then each start compiles anew.

    Raises:
        ConfigurationError: the configured folder cannot be made or written.
    """
    folder = configured or default
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        problem = "cannot be written"
    except OSError as error:
        problem = str(error.strerror)
    if configured is None:
        return None
    raise ConfigurationError(f"model.cache_dir {folder}: {problem}")


def user_cache() -> Path | None:
    """The user's own folder for what can be computed again (XDG base directories); None without a home."""
    configured = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(configured) if configured else Path.home() / ".cache") / "msnode"
    except RuntimeError:
        return None
