"""A bundle's reading of cases from NIfTI, by the node's own path, honest about who was seen in training."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from msnode.domain import Volume
from msnode.errors import ConfigurationError
from msnode.evaluate.cases import CaseResult
from msnode.lesions import find_lesions
from msnode.preprocess import recipes
from msnode.preprocess.brain import LearnedBrain
from msnode.segment.bundle import BRAIN, file_digest, load_bundle
from msnode.segment.confidence import with_confidence
from msnode.segment.predict import Predictor
from msnode.train.cases import IMAGE, read_nifti

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from msnode.domain import LesionMap, Prepared
    from msnode.preprocess.brain import Extractor
    from msnode.segment.bundle import Bundle
    from msnode.train.cases import Case

Mode = Literal["held-out", "ensemble"]


class CaseReader:
    """Reads cases with some folds of a bundle; the networks stay loaded.

    Args:
        path: the bundle's folder.
        preset: see `Predictor`.
        device: see `Predictor`.
    """

    def __init__(self, path: Path, preset: str = "standard", device: str = "cpu") -> None:
        self.bundle = load_bundle(path, recipes.names())
        self.recipe = recipes.get(self.bundle.manifest.recipe)
        self._open = partial(Predictor, device=device, preset=preset)
        self._networks: dict[tuple[str, ...] | None, tuple[Predictor, Extractor | None]] = {}

    def prepare(self, image: Volume, folds: tuple[str, ...] | None) -> Prepared:
        """The image as the networks see it, its brain found by the same folds of the brain's bundle."""
        return self.recipe.apply(image, self._network(folds)[1])

    def read(
        self, case: Case, folds: tuple[str, ...] | None, *, held_out: bool
    ) -> tuple[CaseResult, Prepared]:
        """One case; `folds` None means all of them."""
        manifest = self.bundle.manifest
        image = read_nifti(case.image)
        prepared = self.prepare(image, folds)
        prediction = self._network(folds)[0].predict(prepared)
        probability = recipes.restore(prediction.probability[-1], prepared)
        found = find_lesions(
            probability,
            threshold=manifest.threshold,
            min_volume_mm3=manifest.min_volume_mm3,
            spread=recipes.restore(prediction.spread, prepared),
        )
        truth = ceiling = None
        if case.mask is not None:
            mask = read_nifti(case.mask)
            truth = Volume((mask.data > 0).astype(np.uint8), image.grid)
            ceiling = self._ceiling(truth, prepared)
        result = CaseResult(
            case=case.name,
            patient=case.patient,
            fold=folds[0] if folds and len(folds) == 1 else None,
            image=image,
            truth=truth,
            lesions=with_confidence(found, manifest.calibration),
            probability=probability,
            held_out=held_out,
            ceiling=ceiling,
        )
        return result, prepared

    def _ceiling(self, truth: Volume, prepared: Prepared) -> LesionMap:
        """What would be found if the network gave the expert's mask."""
        manifest = self.bundle.manifest
        perfect = self.recipe.apply_to_mask(truth, prepared).data.astype(np.float32)
        return find_lesions(
            recipes.restore(perfect, prepared),
            threshold=manifest.threshold,
            min_volume_mm3=manifest.min_volume_mm3,
        )

    def _network(self, folds: tuple[str, ...] | None) -> tuple[Predictor, Extractor | None]:
        if folds not in self._networks:
            extract = None
            if self.recipe.strips_skull:
                extract = learned_brain(self.bundle.path / BRAIN, folds, self._open)
            self._networks[folds] = self._open(self.bundle, folds=folds), extract
        return self._networks[folds]


def learned_brain(
    path: Path, folds: tuple[str, ...] | None, open_: Callable[..., Predictor] = Predictor
) -> LearnedBrain:
    """The extractor of a brain bundle; `folds` None means all of them."""
    bundle = load_bundle(path, recipes.names())
    recipe = recipes.get(bundle.manifest.recipe)
    return LearnedBrain(recipe.apply, open_(bundle, folds=folds).predict, recipes.restore)


def predict_cases(
    path: Path,
    cases: Sequence[Case],
    *,
    mode: Mode,
    preset: str = "standard",
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[CaseResult]:
    """Read each case.

    Args:
        path: the bundle's folder.
        cases: with or without expert masks.
        mode: "held-out" reads a case by the folds that did not see its patient in training (all of them
            for a patient that none has seen); "ensemble" reads every case by all folds.
        preset: "fast", "standard" or "best".
        report: told the name of each case before it is read.

    Raises:
        ConfigurationError: held-out, and every fold trained on the patient.
    """
    reader = CaseReader(path, preset)
    for case in cases:
        report(case.name)
        unseen = unseen_folds(reader.bundle, case)
        if mode == "held-out" and not unseen:
            raise ConfigurationError(
                f"{case.name}: patient overlaps the training set of every fold of {reader.bundle.path.name}; "
                "leave the case out, or read it with --ensemble, which is no test"
            )
        everyone = len(unseen) == len(reader.bundle.manifest.folds)
        folds = None if everyone or mode == "ensemble" else unseen
        yield reader.read(case, folds, held_out=everyone or mode == "held-out")[0]


def unseen_folds(bundle: Bundle, case: Case) -> tuple[str, ...]:
    """The folds that did not train on the case's patient, by case name, patient and digest of the image."""
    training: dict[str, Any] = bundle.manifest.training
    patients: dict[str, str] = training.get("patients", {})
    digest = file_digest(case.image)
    same = {name for name, files in training.get("data", {}).items() if files.get(IMAGE) == digest}
    # another image under a known name counts as the same patient: nobody knows better
    who = {patients[name] for name in (*same, case.name) if name in patients}
    seen = {name for name, patient in patients.items() if patient in who}
    folds = training.get("folds", {})
    return tuple(f for f in bundle.manifest.folds if not seen & set(folds.get(f, {}).get("train", ())))
