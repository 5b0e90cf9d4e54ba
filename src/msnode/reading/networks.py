"""Opens a bundle's networks: that of the lesions, and that of the brain where the recipe strips the skull."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msnode.preprocess import recipes
from msnode.preprocess.brain import LearnedBrain
from msnode.segment.bundle import BRAIN, load_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from msnode.domain.imaging import Prediction, Prepared
    from msnode.preprocess.brain import Extractor
    from msnode.segment.bundle import Bundle
    from msnode.segment.predict import Predictor

    OpenPredictor = Callable[[Bundle], Predictor]
    """How to open one bundle: device, preset, folds."""


@dataclass(frozen=True, eq=False)
class BundleNetworks:
    """A bundle's networks, ready to run.

    Attributes:
        lesions: the bundle's own.
        extract: the brain network of the bundle within it; None where the recipe strips no skull.
    """

    lesions: Predictor
    extract: Extractor | None

    @property
    def runtime_name(self) -> str:
        """What runs them and in which precision."""
        return self.lesions.runtime_name

    def predict(self, prepared: Prepared) -> Prediction:
        """Probability and spread of lesions on the prepared grid."""
        return self.lesions.predict(prepared)


def open_networks(bundle: Bundle, open_predictor: OpenPredictor) -> BundleNetworks:
    """Load a verified bundle's networks.

    Raises:
        ModelError: the bundle of the brain network is missing or damaged, or names an unknown recipe.
        ConfigurationError: the device is not there.
    """
    strips = recipes.get(bundle.manifest.recipe).strips_skull
    extract = open_brain(bundle.path / BRAIN, open_predictor) if strips else None
    return BundleNetworks(open_predictor(bundle), extract)


def open_brain(path: Path, open_predictor: OpenPredictor) -> LearnedBrain:
    """The brain extractor in the bundle at `path`.

    Raises:
        ModelError: it is missing or damaged, or names an unknown recipe.
        ConfigurationError: the device is not there.
    """
    bundle = load_bundle(path, recipes.names())
    recipe = recipes.get(bundle.manifest.recipe)
    return LearnedBrain(recipe.apply, open_predictor(bundle).predict, recipes.restore)
