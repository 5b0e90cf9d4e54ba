"""A training recipe: one TOML file in `config/recipes`, read completely before anything starts."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msnode.errors import ConfigurationError
from msnode.segment.bundle import Scope  # noqa: TC001 - pydantic reads the annotation

if TYPE_CHECKING:
    from pathlib import Path

Span = tuple[float, float]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetTable(_Table):
    """Which cases belong together, and which slices train."""

    same_patient: tuple[tuple[str, ...], ...] = ()
    folds: Annotated[int, Field(ge=2)]
    min_slice_entropy: Annotated[float, Field(ge=0, le=1)]


class NetworkTable(_Table):
    """Features of each stage (each halves rows and columns of the one before) and patch (rows, columns)."""

    features: Annotated[tuple[int, ...], Field(min_length=2)]
    patch: tuple[int, int]


class TrainingTable(_Table):
    """Length, optimiser and sampling."""

    epochs: Annotated[int, Field(ge=1)]
    iterations_per_epoch: Annotated[int, Field(ge=1)]
    validation_iterations: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    initial_rate: float
    weight_decay: float
    oversample_lesion: Annotated[float, Field(ge=0, le=1)]
    seed: int


class AugmentationTable(_Table):
    """Ranges of the random changes; intensities are on the [0, 1] scale of the prepared image."""

    rotation_deg: float
    scale: Span
    gamma: Span
    contrast: Span
    brightness: Span
    noise_variance: float
    blur_sigma: Span
    low_resolution: Span
    bias_field: float


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
