"""From a volume to its lesions: one path for the node, evaluation and training's validation."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msnode.measure.lesions import find_lesions
from msnode.preprocess import recipes
from msnode.segment.confidence import with_confidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from msnode.domain.findings import LesionMap
    from msnode.domain.imaging import Prediction, Prepared, Volume
    from msnode.preprocess.brain import Extractor
    from msnode.segment.bundle import Calibration, Manifest

    Stage = Callable[[str], AbstractContextManager[object]]
    """Marks the part of the work that goes on within it, by name."""


class Network(Protocol):
    """A model that is ready to run."""

    @property
    def runtime_name(self) -> str:
        """What runs it and in which precision."""

    @property
    def extract(self) -> Extractor | None:
        """Finds the brain for recipes that strip the skull; None where the bundle's does not."""

    def predict(self, prepared: Prepared) -> Prediction:
        """Probability and spread on the prepared grid; the last class is the lesion's."""


@dataclass(frozen=True)
class LesionRules:
    """How a bundle's output becomes lesions.

    Attributes:
        recipe: name of the preprocessing recipe.
        threshold: smallest lesion probability that counts, 0-1.
        min_volume_mm3: smallest lesion.
        calibration: from a lesion's numbers to its confidence; None gives no confidence.
    """

    recipe: str
    threshold: float
    min_volume_mm3: float
    calibration: Calibration | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> LesionRules:
        """As a bundle's manifest says."""
        return cls(manifest.recipe, manifest.threshold, manifest.min_volume_mm3, manifest.calibration)


@dataclass(frozen=True, eq=False)
class Segmented:
    """The lesions of one volume.

    Attributes:
        prepared: what the network saw.
        probability: float32 (slice, row, column), lesion probability 0-1 on the source grid.
        lesion_map: lesions on the source grid, with their confidence where the bundle is calibrated.
    """

    prepared: Prepared
    probability: Volume
    lesion_map: LesionMap


def segment_volume(
    volume: Volume,
    network: Network,
    rules: LesionRules,
    *,
    check: Callable[[Prepared], None] = lambda _: None,
    stage: Stage = nullcontext,
) -> Segmented:
    """Prepare a volume, run the network, and bring its lesions back to the volume's grid.

    Of a large volume the arrays on the source grid take most of the memory: of the classes only the lesion's
    is brought there, and the spread only where the ensemble's members differ.

    Args:
        volume: modality values (slice, row, column).
        network: the bundle's.
        rules: the bundle's.
        check: called with what the network is about to see; what it raises ends the work.
        stage: entered around "preprocess" (with `check`), "segment", "restore" and "lesions".

    Raises:
        ModelError, Transient: the model or the machine failed.
    """
    with stage("preprocess"):
        prepared = recipes.get(rules.recipe).apply(volume, network.extract)
        check(prepared)
    with stage("segment"):
        prediction = network.predict(prepared)
    with stage("restore"):
        probability = recipes.restore(prediction.probability[-1], prepared)
        spread = recipes.restore(prediction.spread, prepared) if prediction.spread.any() else None
    with stage("lesions"):
        found = find_lesions(
            probability, threshold=rules.threshold, min_volume_mm3=rules.min_volume_mm3, spread=spread
        )
        return Segmented(prepared, probability, with_confidence(found, rules.calibration))
