"""Figures of a fresh bundle on the patients that each fold held out, and what follows from them.

Cross-validation gives the figures of the model card, the calibration of the confidences, and the range of
intensities and brain volumes that the scope check compares with.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from msnode.evaluate import metrics
from msnode.preprocess import recipes, steps
from msnode.reading.networks import open_brain
from msnode.segment.bundle import IntensityHistogram, load_bundle
from msnode.segment.confidence import fit_calibration
from msnode.segment.predict import Predictor
from msnode.segment.scope import brain_histogram, brain_volume_ml, histogram_distance
from msnode.train import cases as sources
from msnode.train.promote import record
from msnode.train.reading import CaseReader, unseen_folds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from msnode.domain.findings import Lesion
    from msnode.domain.imaging import Prepared
    from msnode.preprocess.brain import LearnedBrain
    from msnode.train.cases import Case
    from msnode.train.recipe import TrainingRecipe

_BINS = 32
_WARN, _REFUSE = 1.5, 3.0
_LEAST_WARN, _LEAST_REFUSE = 0.03, 0.06
"""At which multiples of the largest distance among the training scans intensities are strange, and at which
no FLAIR's; but never under these distances. Measured with `brain_unit_range`: FLAIR of two scanners
0.005-0.021, T1 0.015-0.025 (not told apart), T2 0.072-0.085."""
_VOLUME_MARGIN = 0.25
"""Training saw few brains: its range of volumes is widened by this share on either side."""


def validate(
    bundle: Path,
    recipe: TrainingRecipe,
    held_out: Sequence[Case],
    command: str,
    report: Callable[[str], None],
) -> None:
    """Evaluate each held-out case by the folds that did not see its patient, and complete the manifest.

    Args:
        bundle: the bundle's folder.
        recipe: what it was trained with.
        held_out: cases; none may have been seen by all folds.
        command: what the operator typed.
        report: told of each case.
    """
    if recipe.dataset.target == "brain":
        evaluation = _evaluate_brain(bundle, held_out, report)
        record(bundle, recipe, evaluation=evaluation | {"command": command})
        return
    reader, mirrored = CaseReader(bundle), CaseReader(bundle, "best")
    scores: dict[str, metrics.Scores] = {}
    prepared: list[Prepared] = []
    lesions: list[Lesion] = []
    marked: list[bool] = []
    for case in held_out:
        report(case.name)
        folds = unseen_folds(reader.bundle, case)
        result, seen = reader.read(case, folds, held_out=True)
        prepared.append(seen)
        if result.truth is None:
            continue
        scores[case.name] = metrics.score(result.truth, result.lesions)
        # mirror images are the only members of a held-out reading that differ: they show the spread
        found = mirrored.read(case, folds, held_out=True)[0].lesions
        touched = set(np.unique(found.labels[result.truth.data > 0]).tolist())
        lesions += found.lesions
        marked += [lesion.label in touched for lesion in found.lesions]
    evaluation = {
        "protocol": _protocol(held_out),
        "cases": {name: _rounded(asdict(value)) for name, value in scores.items()},
        "mean": _rounded(metrics.mean(list(scores.values()))),
        "command": command,
    }
    scope = recipe.bundle.scope.model_copy(update=_range(prepared))
    calibration = fit_calibration(lesions, marked) if lesions else None
    record(bundle, recipe, evaluation=evaluation, calibration=calibration, scope=scope)


def _range(prepared: Sequence[Prepared]) -> dict[str, Any]:
    """Brain volumes and intensities of the training scans, as the scope check compares them."""
    edges = tuple(round(float(e), 4) for e in np.linspace(0, 1, _BINS + 1))
    densities = [brain_histogram(one, edges) for one in prepared if one.brain is not None]
    volumes = [v for one in prepared if (v := brain_volume_ml(one)) is not None]
    if not densities or not volumes:
        return {}
    mean = tuple(round(float(d), 6) for d in np.mean(densities, axis=0))
    largest = max(histogram_distance(edges, mean, density) for density in densities)
    low, high = min(volumes) * (1 - _VOLUME_MARGIN), max(volumes) * (1 + _VOLUME_MARGIN)
    return {
        "brain_volume_ml": (round(low), round(high)),
        "intensity_histogram": IntensityHistogram(
            edges=edges,
            density=mean,
            largest_distance=round(max(_LEAST_WARN, _WARN * largest), 5),
            refuse_distance=round(max(_LEAST_REFUSE, _REFUSE * largest), 5),
        ),
    }


def _evaluate_brain(bundle: Path, held_out: Sequence[Case], report: Callable[[str], None]) -> dict[str, Any]:
    """Dice of brain and ventricles for each held-out case."""
    extractors: dict[tuple[str, ...], LearnedBrain] = {}
    figures = {}
    loaded = load_bundle(bundle, recipes.names())
    for case in dict.fromkeys(held_out):
        report(case.name)
        folds = unseen_folds(loaded, case)
        if folds not in extractors:
            extractors[folds] = open_brain(bundle, partial(Predictor, folds=folds))
        found = extractors[folds](steps.to_axial(sources.read_nifti(case.image)))
        truth = steps.to_axial(case.brain())
        figures[case.name] = {
            "brain_dice": _dice(found.data > 0, truth.data > 0),
            "ventricle_dice": _dice(found.data == 2, truth.data == 2),  # noqa: PLR2004 - the label
        }
    mean = {
        key: float(np.mean([f[key] for f in figures.values()])) for key in ("brain_dice", "ventricle_dice")
    }
    return {
        "protocol": "Each scan by the folds that did not see its patient (longitudinal scans: by all).",
        "cases": {name: _rounded(value) for name, value in figures.items()},
        "mean": _rounded(mean),
    }


def _dice(a: Any, b: Any) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _protocol(held_out: Sequence[Case]) -> str:
    patients = {case.patient for case in held_out}
    return (
        f"Cross-validation, folds disjoint by patient: {len(held_out)} scans of {len(patients)} patients, "
        "each read by the one fold (lesions and brain) that did not see the patient, without mirroring. "
        "Computed on the source grid through the shipped path (recipe, OpenVINO, lesion definition)."
    )


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
