"""From a folder of cases to the raw data set and the folds that nnU-Net trains on.

A case is a folder with `FLAIR.nii.gz` and `lesion_mask.nii.gz` on one grid. Images go through the
same preprocessing recipe that the node applies to a received series.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from msnode.domain import Grid, Volume
from msnode.errors import ConfigurationError
from msnode.preprocess import recipes, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from msnode.train.recipe import TrainingRecipe

DATASET_NAME = "Dataset001_MSLesionsFLAIR"


@dataclass(frozen=True)
class Case:
    """One scan with its expert mask."""

    name: str
    patient: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Fold:
    """Names of the cases that train and of those that validate."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def read_nifti(path: Path) -> Volume:
    """A NIfTI image as a volume, float32 (slice, row, column), LPS affine."""
    image: Any = sitk.ReadImage(str(path))  # untyped methods
    scaled = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = scaled[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    data = sitk.GetArrayFromImage(image).astype(np.float32)
    return Volume(data, Grid((data.shape[0], data.shape[1], data.shape[2]), affine))


def find_cases(folder: Path, same_patient: Iterable[Sequence[str]] = ()) -> tuple[Case, ...]:
    """The cases of a data folder, by name.

    Args:
        folder: holds `*/FLAIR.nii.gz`, `*/lesion_mask.nii.gz` and maybe `patients.json`.
        same_patient: groups of cases that show one patient; a `patients.json` (case → patient) goes first.

    Raises:
        ConfigurationError: no case there, or one lacks its mask.
    """
    patients = {case: group[0] for group in same_patient for case in group}
    listed = folder / "patients.json"
    if listed.exists():
        patients |= json.loads(listed.read_text(encoding="utf-8"))
    cases = []
    for image in sorted(folder.glob("*/FLAIR.nii.gz")):
        name, mask = image.parent.name, image.parent / "lesion_mask.nii.gz"
        if not mask.exists():
            raise ConfigurationError(f"{name} has no lesion_mask.nii.gz")
        cases.append(Case(name, patients.get(name, name), image, mask))
    if not cases:
        raise ConfigurationError(f"no */FLAIR.nii.gz in {folder}")
    return tuple(cases)


def make_folds(cases: Sequence[Case], count: int) -> tuple[Fold, ...]:
    """Folds disjoint by patient: patients in order of name are dealt round to the folds.

    Raises:
        ConfigurationError: fewer patients than folds.
    """
    patients = sorted({case.patient for case in cases})
    if len(patients) < count:
        raise ConfigurationError(f"{len(patients)} patients cannot fill {count} folds")
    folds = []
    for fold in range(count):
        held_out = set(patients[fold::count])
        val = tuple(c.name for c in cases if c.patient in held_out)
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


def choose_folds(cases: Sequence[Case], count: int, folder: Path) -> tuple[Fold, ...]:
    """The folds of `folder`/splits_final.json (nnU-Net's format) if there is one, else by rule; checked."""
    listed = folder / "splits_final.json"
    if listed.exists():
        entries = json.loads(listed.read_text(encoding="utf-8"))
        folds = tuple(Fold(tuple(e["train"]), tuple(e["val"])) for e in entries)
    else:
        folds = make_folds(cases, count)
    check_folds(folds, {case.name: case.patient for case in cases})
    return folds


def write_dataset(
    cases: Sequence[Case],
    folds: Sequence[Fold],
    work: Path,
    recipe: TrainingRecipe,
    progress: Callable[[str], None],
) -> None:
    """Write nnU-Net's raw data set and folds below `work`.

    Images are prepared by the recipe that the bundle will name; the channel is called "noNorm" because the
    recipe has already normalised. Where the recipe asks for it, nearly empty slices are left out.
    """
    prepare = recipes.get(recipe.preprocess)
    raw = work / "nnUNet_raw" / DATASET_NAME
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    for case in cases:
        progress(case.name)
        prepared = prepare.apply(read_nifti(case.image))
        mask = prepare.apply_to_mask(read_nifti(case.mask))
        kept = steps.slice_entropy(mask) >= recipe.dataset.min_slice_entropy
        spacing = prepared.grid.spacing
        _write_nifti(prepared.data[0][kept], spacing, raw / "imagesTr" / f"{case.name}_0000.nii.gz")
        _write_nifti(mask.data[kept], spacing, raw / "labelsTr" / f"{case.name}.nii.gz")
    description = {
        "channel_names": {"0": "noNorm"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    preprocessed = work / "nnUNet_preprocessed" / DATASET_NAME
    preprocessed.mkdir(parents=True, exist_ok=True)
    splits = [{"train": list(f.train), "val": list(f.val)} for f in folds]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits, indent=2), encoding="utf-8")


def _write_nifti(values: NDArray[np.generic], spacing: tuple[float, float, float], path: Path) -> None:
    image: Any = sitk.GetImageFromArray(values)  # untyped methods
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(path))
