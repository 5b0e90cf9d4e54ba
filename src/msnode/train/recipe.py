"""A training recipe: one TOML file in `config/recipes`, read completely before anything starts."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msnode.errors import ConfigurationError
from msnode.segment.bundle import Scope  # noqa: TC001 - pydantic reads the annotation

if TYPE_CHECKING:
    from pathlib import Path

Span = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetTable(_Table):
    """What is learned, which cases belong together, and which slices train.

    Attributes:
        target: "lesions" (background, lesion) or "brain" (background, brain, ventricles).
        same_patient: groups of cases that show one patient.
        folds: number of folds, disjoint by patient.
        min_slice_entropy: slices whose mask has a smaller Shannon entropy (bits) leave the training set.
        longitudinal: folder, relative to the data folder, of further scans with a brain mask ("brain" only).
        longitudinal_train: "PATIENT/STUDY" that train in every fold.
        longitudinal_held_out: "PATIENT/STUDY" that never train.
    """

    target: Literal["lesions", "brain"] = "lesions"
    same_patient: tuple[tuple[str, ...], ...] = ()
    folds: Annotated[int, Field(ge=2)]
    min_slice_entropy: Share
    longitudinal: str = ""
    longitudinal_train: tuple[str, ...] = ()
    longitudinal_held_out: tuple[str, ...] = ()


class SyntheticTable(_Table):
    """Synthetic scans that train beside the real ones.

    Attributes:
        scans: how many.
        share: share of the slices drawn in training that are synthetic.
        seed: of the first scan.
        lesion_masks: folder of lesion masks in MNI space, relative to the data folder.
        leave_out: patients whose masks are not used, because their images test the model.
    """

    scans: Annotated[int, Field(ge=0)] = 0
    share: Annotated[float, Field(ge=0, lt=1)] = 0
    seed: int = 1000
    lesion_masks: str = ""
    leave_out: tuple[str, ...] = ()


class NetworkTable(_Table):
    """Features of each stage (each halves rows and columns of the one before) and patch (rows, columns)."""

    features: Annotated[tuple[int, ...], Field(min_length=2)]
    patch: tuple[int, int]


class TrainingTable(_Table):
    """Length, optimiser and sampling.

    Attributes:
        pretraining_epochs: epochs on synthetic scans alone, once, before the folds; 0 for none.
        epochs: epochs of each fold.
        optimiser: "sgd" (Nesterov momentum 0.99, as nnU-Net) or "adamw", which needs fewer iterations.
        oversample_lesion: share of the slices of a batch that show a lesion for certain.
        even_slices: of a case's slices with lesions, draw these evenly; else by their lesion area.
        averaging: decay of the exponential moving average of the weights over the iterations, which is what
            validates and what a bundle gets; 0 takes the weights as they are.
    """

    pretraining_epochs: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=1)]
    iterations_per_epoch: Annotated[int, Field(ge=1)]
    validation_iterations: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    optimiser: Literal["sgd", "adamw"] = "sgd"
    initial_rate: float
    weight_decay: float
    oversample_lesion: Share
    even_slices: bool = False
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: int


class AugmentationTable(_Table):
    """Ranges of the random changes; intensities are on the [0, 1] scale of the prepared image.

    Attributes:
        rotation_deg: largest rotation to either side.
        rotation_chance: how often a slice is rotated, zoomed, shifted or sheared.
        shift: largest shift, as a share of rows and columns.
        shear_deg: largest shear angle.
        scale: zoom.
        elastic: how often a slice is bent.
        gamma, contrast, brightness: factors; `noise_variance`, `blur_sigma` (pixels), `low_resolution`
            (share of the pixels that stay) as in nnU-Net.
        bias_field: standard deviation of the coefficients of a cubic log bias field.
        intensity_chance: how often each of these is applied.
        lesion_contrast: factors on the difference between a lesion and the brain around it.
        brain_edge_px: pixels that an imprecise brain mask may lose.
        strip_chance: how often everything but the brain is set to 0 ("brain" only).
    """

    rotation_deg: float
    rotation_chance: Share = 0.4
    shift: Share = 0.0
    shear_deg: Annotated[float, Field(ge=0, lt=90)] = 0.0
    scale: Span
    elastic: Share = 0.1
    gamma: Span = (1.0, 1.0)
    contrast: Span = (1.0, 1.0)
    brightness: Span = (1.0, 1.0)
    noise_variance: float = 0.0
    blur_sigma: Span = (0.0, 0.0)
    low_resolution: Span = (1.0, 1.0)
    bias_field: float = 0.0
    intensity_chance: Share = 0.0
    lesion_contrast: Span = (1.0, 1.0)
    brain_edge_px: Annotated[int, Field(ge=0)] = 0
    strip_chance: Share = 0.0


class BundleTable(_Table):
    """What the bundle will be called and declare, and what counts as a lesion in its output."""

    name: str
    version: str
    licence: str
    attribution: str
    scope: Scope
    threshold: Annotated[float, Field(gt=0, lt=1)]
    min_volume_mm3: Annotated[float, Field(ge=0)]


class TrainingRecipe(_Table):
    """Everything that decides a training run, the data apart."""

    name: str
    preprocess: str
    dataset: DatasetTable
    synthetic: SyntheticTable = SyntheticTable()
    network: NetworkTable
    training: TrainingTable
    augmentation: AugmentationTable
    bundle: BundleTable


def load_recipe(path: Path) -> TrainingRecipe:
    """Read and check a recipe.

    Raises:
        ConfigurationError: the file is missing, is no TOML, or has a wrong, missing or unknown key.
    """
    try:
        return TrainingRecipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"no training recipe at {path}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {key}: {first['msg']}") from error
