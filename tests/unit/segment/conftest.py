"""Bundles of tiny networks."""

from support.bundles import (  # noqa: F401 - fixtures
    stripping_bundle,
    stripping_recipe,
    tiny_brain,
    tiny_bundle,
    tiny_checkpoints,
    tiny_plans,
    tiny_recipe,
)
