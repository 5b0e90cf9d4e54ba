"""What reads studies, made from the settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msnode.preprocess import recipes
from msnode.reading.networks import open_networks
from msnode.reading.reader import Reader, Readers
from msnode.segment.bundle import find_bundle, load_bundle
from msnode.segment.cache import cache_folder
from msnode.segment.predict import Predictor
from msnode.wiring.destinations import result_rules
from msnode.wiring.model import bundle_folders
from msnode.wiring.routing import selection_rules

if TYPE_CHECKING:
    from pathlib import Path

    from msnode.reading.networks import BundleNetworks
    from msnode.segment.bundle import Bundle
    from msnode.settings import Settings


def make_reader(
    settings: Settings, cache: Path | None = None, bundle: str | None = None, preset: str | None = None
) -> Reader:
    """What reads with one bundle.

    Args:
        settings: what is in force.
        cache: where compiled networks are kept, unless the settings name a folder; by default in data_dir.
        bundle: name of the bundle; as configured where it is None.
        preset: how much of it reads; likewise.

    Raises:
        ModelError: the bundle is missing or damaged, or names a recipe this version does not have.
        ConfigurationError: the configured device is not there.
    """
    model = settings.model.model_copy(
        update={"bundle": bundle or settings.model.bundle, "preset": preset or settings.model.preset}
    )
    settings = settings.model_copy(update={"model": model})
    opened = load_bundle(find_bundle(model.bundle, bundle_folders(settings)), recipes.names())
    return Reader(
        opened,
        partial(_open, opened, settings, cache or settings.node.data_dir / "cache"),
        selection=selection_rules(settings),
        results=result_rules(settings),
        settings_digest=settings.results_digest,
    )


def _open(bundle: Bundle, settings: Settings, cache: Path) -> BundleNetworks:
    model = settings.model
    return open_networks(
        bundle,
        partial(
            Predictor,
            device=model.device,
            threads=model.threads or None,
            preset=model.preset,
            cache_dir=cache_folder(model.cache_dir, cache),
        ),
    )


def make_readers(settings: Settings, cache: Path) -> Readers:
    """What reads with the bundle and preset that a job was routed to; see `make_reader`."""
    return Readers(partial(make_reader, settings, cache), settings.model.bundle, settings.model.preset)
