"""Which bundle and device the settings mean; light, so that it can be checked before anything starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from msnode.errors import BundleMissing, ConfigurationError
from msnode.segment.bundle import builtin_folder, find_bundle
from msnode.segment.runtime import choose_device

if TYPE_CHECKING:
    from msnode.settings import Settings


def bundle_folders(settings: Settings) -> list[Path]:
    """Where bundles lie: the configured folder goes before the built-in one."""
    configured = settings.model.bundles_dir
    return [configured, builtin_folder()] if configured else [builtin_folder()]


def cache_folder(settings: Settings, default: Path | None) -> Path | None:
    """Where compiled networks are kept, made where it is absent.

    Args:
        settings: `model.cache_dir` goes before the default.
        default: the folder where none is configured.

    Returns:
        The folder; None where there is no default, or it cannot be written: then each start compiles anew.

    Raises:
        ConfigurationError: the configured folder cannot be made or written.
    """
    folder = settings.model.cache_dir or default
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        problem = "cannot be written"
    except OSError as error:
        problem = str(error.strerror)
    if settings.model.cache_dir is None:
        return None
    raise ConfigurationError(f"model.cache_dir {folder}: {problem}")


def user_cache() -> Path | None:
    """The user's own folder for what can be computed again (XDG base directories); None without a home."""
    configured = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(configured) if configured else Path.home() / ".cache") / "msnode"
    except RuntimeError:
        return None


def check_model(settings: Settings) -> None:
    """Whether device, bundle and a configured cache are there, before the first job finds out.

    Raises:
        ConfigurationError: the configured one is not.
    """
    choose_device(settings.model.device)
    cache_folder(settings, None)
    try:
        find_bundle(settings.model.bundle, bundle_folders(settings))
    except BundleMissing as error:
        raise ConfigurationError(f"model.bundle: {error}") from None
