"""Which bundle and device the settings mean; light, so that it can be checked before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msnode.errors import BundleMissing, ConfigurationError
from msnode.segment.bundle import builtin_folder, find_bundle
from msnode.segment.cache import cache_folder
from msnode.segment.runtime import choose_device

if TYPE_CHECKING:
    from pathlib import Path

    from msnode.settings import Settings


def bundle_folders(settings: Settings) -> list[Path]:
    """Where bundles lie: the configured folder goes before the built-in one."""
    configured = settings.model.bundles_dir
    return [configured, builtin_folder()] if configured else [builtin_folder()]


def check_model(settings: Settings) -> None:
    """Whether device, bundle and a configured cache are there, before the first job finds out.

    Raises:
        ConfigurationError: the configured one is not.
    """
    choose_device(settings.model.device)
    cache_folder(settings.model.cache_dir, None)
    try:
        find_bundle(settings.model.bundle, bundle_folders(settings))
    except BundleMissing as error:
        raise ConfigurationError(f"model.bundle: {error}") from None
