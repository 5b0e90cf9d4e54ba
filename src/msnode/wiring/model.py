"""Which bundle and device the settings mean; light, so that it can be checked before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msnode.errors import BundleMissing, ConfigurationError
from msnode.runtime import choose_device
from msnode.segment.bundle import builtin_folder, find_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from msnode.settings import Settings


def bundle_folders(settings: Settings) -> list[Path]:
    """Where bundles lie: the configured folder goes before the built-in one."""
    configured = settings.model.bundles_dir
    return [configured, builtin_folder()] if configured else [builtin_folder()]


def check_model(settings: Settings) -> None:
    """Whether device and bundle are there, before the first job finds out.

    Raises:
        ConfigurationError: the configured one is not.
    """
    choose_device(settings.model.device)
    try:
        find_bundle(settings.model.bundle, bundle_folders(settings))
    except BundleMissing as error:
        raise ConfigurationError(f"model.bundle: {error}") from None
