"""A bundle's reading of cases from NIfTI, by the node's own path, honest about who was seen in training."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from msnode.domain.imaging import Volume
from msnode.errors import ConfigurationError
from msnode.evaluate.cases import CaseResult
from msnode.measure.lesions import find_lesions
from msnode.preprocess import recipes
from msnode.reading.networks import open_networks
from msnode.reading.segment_volume import LesionRules, segment_volume
from msnode.segment.bundle import file_digest, load_bundle
from msnode.segment.predict import Predictor
from msnode.train.cases import IMAGE, read_nifti

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from msnode.domain.findings import LesionMap
    from msnode.domain.imaging import Prepared
    from msnode.reading.networks import BundleNetworks
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
        self._rules = LesionRules.of(self.bundle.manifest)
        self._preset = preset
        self._device = device
        self._networks: dict[tuple[str, ...] | None, BundleNetworks] = {}

    def networks(self, folds: tuple[str, ...] | None) -> BundleNetworks:
        """The networks of these folds, those of the brain among them; None means all folds."""
        if folds not in self._networks:
            opener = partial(Predictor, device=self._device, preset=self._preset, folds=folds)
            self._networks[folds] = open_networks(self.bundle, opener)
        return self._networks[folds]

    def read(
        self, case: Case, folds: tuple[str, ...] | None, *, held_out: bool
    ) -> tuple[CaseResult, Prepared]:
        """One case; `folds` None means all of them."""
        image = read_nifti(case.image)
        segmented = segment_volume(image, self.networks(folds), self._rules)
        truth = ceiling = None
        if case.mask is not None:
            mask = read_nifti(case.mask)
            truth = Volume((mask.data > 0).astype(np.uint8), image.grid)
            ceiling = self._ceiling(truth, segmented.prepared)
        result = CaseResult(
            case=case.name,
            patient=case.patient,
            fold=folds[0] if folds and len(folds) == 1 else None,
            image=image,
            truth=truth,
            lesions=segmented.lesion_map,
            probability=segmented.probability,
            held_out=held_out,
            ceiling=ceiling,
        )
        return result, segmented.prepared

    def _ceiling(self, truth: Volume, prepared: Prepared) -> LesionMap:
        """What would be found if the network gave the expert's mask."""
        perfect = recipes.get(self._rules.recipe).apply_to_mask(truth, prepared).data.astype(np.float32)
        return find_lesions(
            recipes.restore(perfect, prepared),
            threshold=self._rules.threshold,
            min_volume_mm3=self._rules.min_volume_mm3,
        )


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
