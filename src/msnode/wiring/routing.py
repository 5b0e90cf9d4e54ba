"""The routing rules and what they apply to, made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msnode.errors import ModelError
from msnode.routing.file import read_rules
from msnode.segment.bundle import find_bundle
from msnode.series.select import SelectionRules
from msnode.services.explain_routing import Defaults
from msnode.services.router import Router
from msnode.wiring.model import bundle_folders

if TYPE_CHECKING:
    from collections.abc import Callable

    from msnode.record.database import Database
    from msnode.routing.rules import Rule
    from msnode.settings import Settings
    from msnode.store import Store


def rules_of(settings: Settings) -> tuple[Rule, ...]:
    """The rules of the configured file; none where none is configured.

    Raises:
        ConfigurationError: see `read_rules`.
    """
    return _read(settings)


def check_routing(settings: Settings) -> tuple[Rule, ...]:
    """The same rules, and whether the bundles that they name are there.

    Raises:
        ConfigurationError: see `read_rules`; every bundle that is missing is among what is wrong.
    """

    def problem(reference: str) -> str:
        try:
            folder = find_bundle(reference, bundle_folders(settings))
            return "" if folder.is_dir() else f"there is no folder {folder}"
        except ModelError as error:
            return str(error)

    return _read(settings, problem)


def _read(settings: Settings, bundle_problem: Callable[[str], str] = lambda _: "") -> tuple[Rule, ...]:
    if settings.node.routing is None:
        return ()
    return read_rules(settings.node.routing, [d.name for d in settings.destinations], bundle_problem)


def make_router(settings: Settings, database: Database, store: Store) -> Router:
    """What decides about complete studies.

    Raises:
        ConfigurationError: see `rules_of`.
    """
    return Router(rules_of(settings), selection_rules(settings), database, store)


def selection_rules(settings: Settings) -> SelectionRules:
    """What counts as a readable FLAIR; the same for a reading, for routing and for what explains them."""
    of = settings.selection
    return SelectionRules(
        min_slices=of.min_slices, prefer=of.prefer, after_contrast=of.after_contrast, reformats=of.reformats
    )


def routing_defaults(settings: Settings) -> Defaults:
    """What holds for a study where no rule says otherwise."""
    model = settings.model
    return Defaults(model.bundle, model.preset, tuple(each.name for each in settings.destinations))
