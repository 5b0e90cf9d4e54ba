"""From cases to the raw data set and the folds that nnU-Net trains on.

Images go through the same preprocessing recipe that the node applies to a received series.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from msnode.domain.imaging import Grid, Volume
from msnode.errors import ConfigurationError
from msnode.preprocess import recipes, steps
from msnode.segment.bundle import file_digest
from msnode.train.cases import BRAIN, IMAGE, LESIONS, VENTRICLES, read_nifti, write_nifti

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from msnode.domain.imaging import Prepared
    from msnode.preprocess.brain import Extractor
    from msnode.train.cases import Case
    from msnode.train.recipe import TrainingRecipe

DATASET_NAME = "Dataset001_MSLesionsFLAIR"
CLASSES = {"lesions": ("background", "lesion"), "brain": ("background", "brain", "ventricles")}
_PRETRAINING_HELD_OUT = 4  # synthetic scans that show how pretraining goes
_EDGE_PX = 2  # how far a synthetic scan's brain mask may be off, as a learned one is


@dataclass(frozen=True)
class Fold:
    """Names of the cases that train and of those that validate."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_folds(cases: Sequence[Case], count: int, patients: Iterable[str] = ()) -> tuple[Fold, ...]:
    """Folds disjoint by patient: patients in order of name are dealt round to the folds.

    Args:
        cases: every case; synthetic ones train in every fold.
        count: number of folds.
        patients: who is dealt; by default those of the cases. A longer list keeps the deal of another data
            set of the same patients.

    Raises:
        ConfigurationError: fewer patients than folds.
    """
    real = [case for case in cases if not case.synthetic]
    dealt = sorted(set(patients) or {case.patient for case in real})
    if len(dealt) < count:
        raise ConfigurationError(f"{len(dealt)} patients cannot fill {count} folds")
    folds = []
    for fold in range(count):
        held_out = set(dealt[fold::count])
        val = tuple(c.name for c in real if c.patient in held_out)
        folds.append(Fold(tuple(c.name for c in cases if c.patient not in held_out), val))
    return tuple(folds)


def check_folds(folds: Iterable[Fold], patient_of: Mapping[str, str]) -> None:
    """Refuse folds that show a patient both to training and to validation.

    Raises:
        ConfigurationError: a fold splits a patient or names an unknown case.
    """
    for number, fold in enumerate(folds):
        unknown = {*fold.train, *fold.val} - patient_of.keys()
        if unknown:
            raise ConfigurationError(f"fold {number} names unknown cases: {', '.join(sorted(unknown))}")
        both = {patient_of[c] for c in fold.train} & {patient_of[c] for c in fold.val}
        if both:
            cases = sorted(c for c in (*fold.train, *fold.val) if patient_of[c] in both)
            raise ConfigurationError(f"fold {number} splits a patient over training and validation: {cases}")


def choose_folds(
    cases: Sequence[Case], count: int, folder: Path, patients: Iterable[str] = ()
) -> tuple[Fold, ...]:
    """The folds of `folder`/splits_final.json (nnU-Net's format) if there is one, else by rule; checked.

    Synthetic cases join the training side of every fold.
    """
    listed = folder / "splits_final.json"
    if listed.exists():
        synthetic = tuple(case.name for case in cases if case.synthetic)
        entries = json.loads(listed.read_text(encoding="utf-8"))
        folds = tuple(Fold((*e["train"], *synthetic), tuple(e["val"])) for e in entries)
    else:
        folds = make_folds(cases, count, patients)
    check_folds(folds, {case.name: case.patient for case in cases})
    return folds


def pretraining_fold(cases: Sequence[Case]) -> Fold:
    """Synthetic scans alone; a few of them show how it goes."""
    names = tuple(case.name for case in cases if case.synthetic)
    return Fold(names[:-_PRETRAINING_HELD_OUT], names[-_PRETRAINING_HELD_OUT:])


def write_dataset(  # noqa: PLR0917 - each is needed, none has a default
    cases: Sequence[Case],
    folds: Sequence[Fold],
    work: Path,
    recipe: TrainingRecipe,
    extractor_of: Callable[[Case], Extractor | None],
    progress: Callable[[str], None],
) -> None:
    """Write nnU-Net's raw data set and folds below `work`.

    Images are prepared by the recipe that the bundle will name; the channel is called "noNorm" because the
    recipe has already normalised. Where the recipe asks for it, nearly empty slices are left out.

    Args:
        cases: all cases.
        folds: as nnU-Net shall number them.
        work: the training's folder.
        recipe: the training recipe.
        extractor_of: what finds the brain of a case; None where the recipe strips no skull.
        progress: told of each case.

    Raises:
        ConfigurationError: a mask has another grid than its image, or nothing is left to train on.
    """
    raw = work / "nnUNet_raw" / DATASET_NAME
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    marked = False
    for case in cases:
        progress(case.name)
        prepared, labels = prepare_case(case, recipe, extractor_of(case))
        kept = steps.slice_entropy(labels) >= recipe.dataset.min_slice_entropy
        marked |= bool(labels.data[kept].any())
        if not kept.any():
            raise ConfigurationError(f"{case.name}: no slice has a mask entropy of min_slice_entropy or more")
        grid = Grid((int(kept.sum()), *prepared.grid.shape[1:]), np.diag((*prepared.grid.spacing, 1.0))[_ZYX])
        write_nifti(Volume(prepared.data[0][kept], grid), raw / "imagesTr" / f"{case.name}_0000.nii.gz")
        write_nifti(Volume(labels.data[kept], grid), raw / "labelsTr" / f"{case.name}.nii.gz")
    if not marked:
        raise ConfigurationError("every training mask is empty: there is nothing to learn")
    names = CLASSES[recipe.dataset.target]
    description = {
        "channel_names": {"0": "noNorm"},
        "labels": {name: number for number, name in enumerate(names)},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    preprocessed = work / "nnUNet_preprocessed" / DATASET_NAME
    preprocessed.mkdir(parents=True, exist_ok=True)
    splits = [{"train": list(f.train), "val": list(f.val)} for f in folds]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits, indent=2), encoding="utf-8")


_ZYX = [2, 1, 0, 3]
"""Rows of a grid's matrix for axes that run slice, row, column along z, y, x."""


def prepare_case(case: Case, recipe: TrainingRecipe, extract: Extractor | None) -> tuple[Prepared, Volume]:
    """Image and labels of a case on the prepared grid.

    Raises:
        ConfigurationError: the mask has another grid than the image.
    """
    prepare = recipes.get(recipe.preprocess)
    image = read_nifti(case.image)
    target = case.brain() if recipe.dataset.target == "brain" else read_nifti(case.folder / LESIONS)
    if target.data.shape != image.data.shape:
        raise ConfigurationError(
            f"{case.name}: image and mask differ in shape; resample the mask to the image"
        )
    prepared = prepare.apply(image, extract)
    labels = prepare.apply_to_mask(target, prepared)
    if recipe.dataset.target == "brain":
        deep = prepare.apply_to_mask(Volume((target.data > 1).astype(np.uint8), target.grid), prepared)
        labels = Volume(np.where(deep.data > 0, 2, labels.data).astype(np.uint8), labels.grid)
    return prepared, labels


def known_brain(case: Case, brain: Volume) -> Extractor:
    """An extractor that gives the brain a synthetic case was made with, its border off by a pixel or two."""
    rng = np.random.default_rng(int(hashlib.sha256(case.name.encode()).hexdigest()[:8], 16))
    offset = int(rng.integers(-_EDGE_PX, _EDGE_PX + 1))

    def extract(volume: Volume) -> Volume:
        labels = _on_grid(brain, volume.grid)
        inside = labels > 0
        disc = ndimage.generate_binary_structure(2, 1)[np.newaxis]
        if offset > 0:
            inside = ndimage.binary_dilation(inside, disc, iterations=offset)
        elif offset < 0:
            inside = ndimage.binary_erosion(inside, disc, iterations=-offset)
        return Volume(np.where(inside, np.maximum(labels, 1), 0).astype(np.uint8), volume.grid)

    return extract


def _on_grid(labels: Volume, grid: Grid) -> Any:
    """Nearest label at each voxel of `grid` (both in axial order, axes parallel)."""
    way = np.linalg.inv(labels.grid.affine) @ grid.affine
    data = labels.data
    for axis in range(3):
        index = np.rint(way[axis, 3] + way[axis, axis] * np.arange(grid.shape[axis])).astype(int)
        data = np.take(data, np.clip(index, 0, labels.grid.shape[axis] - 1), axis=axis)
    return data


def data_digests(cases: Iterable[Case]) -> dict[str, dict[str, str]]:
    """Case → file → SHA-256: what a training really saw, and how a test recognises it under another name."""
    return {
        case.name: {
            file.name: file_digest(file)
            for file in sorted(case.folder.glob("*.nii.gz"))
            if file.name in {IMAGE, LESIONS, BRAIN, VENTRICLES}
        }
        for case in cases
    }
