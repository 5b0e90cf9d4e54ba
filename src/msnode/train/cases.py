"""Where training scans come from: folders of NIfTI images with expert masks, and synthetic ones.

A case is a folder with `FLAIR.nii.gz` and, on the same grid, `lesion_mask.nii.gz` or `brain_mask.nii.gz`
(with or without `ventricle_mask.nii.gz`).
"""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses

from msnode.domain.imaging import Grid, Volume
from msnode.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_itk: Any = sitk  # its functions carry no types
IMAGE, LESIONS, BRAIN, VENTRICLES = (
    f"{name}.nii.gz" for name in ("FLAIR", "lesion_mask", "brain_mask", "ventricle_mask")
)


@dataclass(frozen=True)
class Case:
    """One scan with its expert masks.

    Attributes:
        name: the folder's name.
        patient: whom it shows; scans of one patient share a fold.
        folder: where its files lie.
        synthetic: made by `train.synthetic`: shows nobody, and only ever trains.
    """

    name: str
    patient: str
    folder: Path
    synthetic: bool = False

    @property
    def image(self) -> Path:
        """The FLAIR."""
        return self.folder / IMAGE

    @property
    def mask(self) -> Path | None:
        """The expert's lesions; None where nobody drew them."""
        path = self.folder / LESIONS
        return path if path.exists() else None

    def brain(self) -> Volume:
        """Brain and ventricles, uint8 0, 1, 2 on the grid of the FLAIR (ventricles count as brain)."""
        brain = read_nifti(self.folder / BRAIN)
        labels = (brain.data > 0).astype(np.uint8)
        labels[brain.data > 1] = 2
        if (self.folder / VENTRICLES).exists():
            labels[read_nifti(self.folder / VENTRICLES).data > 0] = 2
        return Volume(labels, brain.grid)


def read_nifti(path: Path) -> Volume:
    """A NIfTI image as a volume, float32 (slice, row, column), LPS affine.

    Raises:
        ConfigurationError: the file is missing or cannot be read.
    """
    try:
        image: Any = sitk.ReadImage(str(path))  # untyped methods
    except RuntimeError as error:
        raise ConfigurationError(f"{path} cannot be read as a NIfTI image") from error
    scaled = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = scaled[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    data = sitk.GetArrayFromImage(image).astype(np.float32)
    return Volume(data, Grid((data.shape[0], data.shape[1], data.shape[2]), affine))


def write_nifti(volume: Volume, path: Path) -> None:
    """A volume as NIfTI; `read_nifti` gives it back."""
    spacing = np.array(volume.grid.spacing)
    image: Any = sitk.GetImageFromArray(volume.data)  # untyped methods
    image.SetSpacing(spacing[::-1].tolist())
    image.SetOrigin(volume.grid.affine[:3, 3].tolist())
    image.SetDirection((volume.grid.affine[:3, :3] / spacing)[:, ::-1].ravel().tolist())
    sitk.WriteImage(image, str(path))


def find_cases(
    folder: Path,
    same_patient: Iterable[Sequence[str]] = (),
    *,
    mask: str = LESIONS,
    masks_needed: bool = True,
) -> tuple[Case, ...]:
    """The cases of a data folder, by name.

    Args:
        folder: holds `*/FLAIR.nii.gz`, `*/MASK` and maybe `patients.json`.
        same_patient: groups of cases that show one patient; a `patients.json` (case → patient) goes first.
        mask: the file that a case must have; for the brain's, which exists for some scans only, a case
            without it is left out.
        masks_needed: whether a case without lesion mask is an error; else it is a scan to look at.

    Raises:
        ConfigurationError: no case there, one lacks its lesion mask, or a mask lies on another grid.
    """
    patients = patients_of(folder, same_patient)
    cases = []
    for image in sorted(folder.glob(f"*/{IMAGE}")):
        name, path = image.parent.name, image.parent / mask
        if path.exists():
            _check_grids(name, image, path)
        elif mask == BRAIN:
            continue
        elif masks_needed:
            raise ConfigurationError(f"{name} has no {mask}")
        cases.append(Case(name, patients.get(name, name), image.parent))
    if not cases:
        raise ConfigurationError(f"no */{IMAGE} with {mask} in {folder}")
    return tuple(cases)


def patients_of(folder: Path, same_patient: Iterable[Sequence[str]]) -> dict[str, str]:
    """Case → patient, for the cases of which more is known than their name."""
    patients = {case: group[0] for group in same_patient for case in group}
    listed = folder / "patients.json"
    if listed.exists():
        patients |= json.loads(listed.read_text(encoding="utf-8"))
    return patients


def _check_grids(name: str, image: Path, mask: Path) -> None:
    headers = []
    for path in (image, mask):
        reader = _itk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        headers.append((reader.GetSize(), (*reader.GetOrigin(), *reader.GetSpacing())))
    (size, place), (mask_size, mask_place) = headers
    if size != mask_size or not np.allclose(place, mask_place, atol=1e-2):
        raise ConfigurationError(
            f"{name}: {mask.name} lies on another grid than {image.name}; resample the mask to the image"
        )


def longitudinal_brains(source: Path, work: Path, names: Sequence[str]) -> tuple[Case, ...]:
    """Raw scans whose brain mask lies on a common grid, as cases on their own grid.

    Args:
        source: holds `PATIENT/STUDY_FLAIR.nii.gz`, `PATIENT/brainmask.nii.gz` and
            `PATIENT/STUDY_FLAIR_to_common_space.txt` (ITK: points of the common grid to the study).
        work: where the resampled masks go.
        names: "PATIENT/STUDY" each.

    Ventricles are not drawn there: they are taken as what is dark and deep inside the brain.
    """
    cases = []
    for name in names:
        patient, study = name.split("/")
        folder = work / f"{patient}_{study}"
        if not (folder / BRAIN).exists():
            folder.mkdir(parents=True, exist_ok=True)
            flair: Any = sitk.ReadImage(str(source / patient / f"{study}_FLAIR.nii.gz"), sitk.sitkFloat32)
            brain: Any = sitk.ReadImage(str(source / patient / "brainmask.nii.gz"), sitk.sitkFloat32)
            way = _itk.ReadTransform(str(source / patient / f"{study}_FLAIR_to_common_space.txt"))
            moved = sitk.Resample(brain, flair, way.GetInverse(), sitk.sitkLinear)
            mask = _itk.BinaryThreshold(moved, 0.5, 1e9)
            ventricles = _dark_and_deep(flair, mask)
            sitk.WriteImage(flair, str(folder / IMAGE))
            sitk.WriteImage(ventricles, str(folder / VENTRICLES))
            sitk.WriteImage(mask, str(folder / BRAIN))
        cases.append(Case(folder.name, f"longitudinal-{patient}", folder))
    return tuple(cases)


def _dark_and_deep(flair: Any, brain: Any) -> Any:
    """What is darker than 0.55 of the brain's median and deeper than 15 mm, without specks."""
    values, mask = sitk.GetArrayFromImage(flair), sitk.GetArrayFromImage(brain) > 0
    depth = sitk.GetArrayFromImage(
        _itk.SignedMaurerDistanceMap(brain, insideIsPositive=True, useImageSpacing=True)
    )
    dark = mask & (depth > 15) & (values < 0.55 * np.median(values[mask]))  # noqa: PLR2004 - mm, as the docstring says
    image: Any = sitk.GetImageFromArray(dark.astype(np.uint8))
    image.CopyInformation(brain)
    return _itk.BinaryMorphologicalOpening(image, [1, 1, 0])


def synthetic_cases(
    masks: Mapping[str, Path], count: int, seed: int, folder: Path, processes: int = 1
) -> tuple[Case, ...]:
    """`count` synthetic scans below `folder`, made where they do not exist yet.

    Args:
        masks: patient → lesion mask in MNI space.
        count: number of scans.
        seed: seed of the first; each scan has the next one.
        folder: where they are kept.
        processes: that make them.

    Raises:
        ConfigurationError: no lesion mask, or nilearn is not installed.
    """
    if count and not masks:
        raise ConfigurationError("synthetic scans need lesion masks in MNI space; none was found")
    names = [f"synthetic{number:03d}" for number in range(count)]
    cases = tuple(Case(name, name, folder / name, synthetic=True) for name in names)
    missing = [(one, seed + n) for n, one in enumerate(cases) if not (one.folder / BRAIN).exists()]
    make = partial(_make, tuple(masks.values()))
    if processes == 1 or len(missing) < 2:  # noqa: PLR2004 - one alone needs no company
        for one in missing:
            make(one)
    else:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(make, missing))
    return cases


def _make(masks: tuple[Path, ...], wanted: tuple[Case, int]) -> None:
    """One synthetic scan, of a case and a seed."""
    from msnode.train.synthetic import synthesise  # noqa: PLC0415 - only training with synthetic scans needs it

    case, seed = wanted
    case.folder.mkdir(parents=True, exist_ok=True)
    scan = synthesise(_volumes(masks), seed)
    write_nifti(scan.flair, case.image)
    write_nifti(scan.lesions, case.folder / LESIONS)
    write_nifti(scan.brain, case.folder / BRAIN)  # last: its presence says that the case is complete


@cache
def _volumes(paths: tuple[Path, ...]) -> tuple[Volume, ...]:
    return tuple(read_nifti(path) for path in paths)
