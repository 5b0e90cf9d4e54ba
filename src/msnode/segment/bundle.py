"""A model bundle: a folder whose manifest names every file by SHA-256, the recipe and the scope of use.

manifest.json               this module
model_card.md               what people read
plans.json, dataset.json    nnU-Net's own: the network's architecture, the labels
fold_N.safetensors          weights in half precision, each tensor once, under its name in torch
brain/                      where the recipe strips the skull: the bundle of the network that finds the brain

Nothing in it can run code: no file is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import msnode
from msnode.domain.provenance import ModelIdentity
from msnode.errors import BundleCorrupt, BundleMissing, RecipeMismatch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

FORMAT = 2
MANIFEST = "manifest.json"
BRAIN = "brain"
"""Folder of the bundle within a bundle."""

CONFIGURATION = "2d"
"""The one configuration of nnU-Net's plans that a bundle uses."""

_SUFFIXES = {".json", ".md", ".safetensors"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IntensityHistogram(_Part):
    """Intensities of brain voxels in the prepared images of training.

    Attributes:
        edges: limits of the bins, rising, n + 1.
        density: n densities; their sum over the widths of the bins is 1.
        largest_distance: an image further away than this gets a warning.
        refuse_distance: an image further away than this is not read.
    """

    edges: Annotated[tuple[float, ...], Field(min_length=2)]
    density: Annotated[tuple[float, ...], Field(min_length=1)]
    largest_distance: Annotated[float, Field(ge=0)]
    refuse_distance: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _bins_match(self) -> IntensityHistogram:
        if len(self.edges) != len(self.density) + 1:
            raise ValueError(f"{len(self.edges)} edges do not bound {len(self.density)} bins")
        return self


class Calibration(_Part):
    """From a lesion's numbers to the probability that an expert would mark it: sigmoid of a weighted sum.

    Attributes:
        intercept: of the sum.
        logit_mean_probability: weight of the logit of the mean probability inside the lesion.
        spread: weight of the mean spread over the ensemble's members inside the lesion.
        log_volume: weight of ln(volume in mm3).
    """

    intercept: float
    logit_mean_probability: float
    spread: float
    log_volume: float


class Scope(_Part):
    """What the model was made for and has seen.

    Attributes:
        plane: acquisition plane.
        slice_distance_mm: smallest and largest distance between slice centres.
        field_strength_t: magnetic field strengths seen in training, tesla.
        manufacturers: vendors seen in training, as in (0008,0070).
        min_age_years: age of the youngest patient in training; a manifest that states none is of adults.
        brain_volume_ml: smallest and largest volume of brain and ventricles; None is not judged.
        intensity_histogram: intensities seen in training; None is not judged.
    """

    plane: Literal["axial", "sagittal", "coronal", "any"]
    slice_distance_mm: tuple[float, float]
    field_strength_t: tuple[float, ...]
    manufacturers: tuple[str, ...]
    min_age_years: float = 18
    brain_volume_ml: tuple[float, float] | None = None
    intensity_histogram: IntensityHistogram | None = None


class Manifest(_Part):
    """What `manifest.json` holds.

    Attributes:
        format: version of this layout.
        recipe: preprocessing recipe the network was trained behind.
        strips_skull: whether that recipe needs a brain network, which then lies in `brain/`.
        channels: names of the input channels, in order.
        classes: label names by class index; 0 is background.
        activation: what turns logits into probabilities.
        patch: rows and columns the network sees at once.
        mirror_axes: in-plane axes (0 row, 1 column) whose mirror images are averaged in.
        folds: networks whose logits are averaged.
        threshold: smallest lesion probability that counts.
        min_volume_mm3: smallest lesion.
        attribution: whom the licence of the training data asks to name.
        calibration: what turns a lesion's numbers into its confidence; None where it was not fitted.
        training: what it was trained with: recipe, digests of the data, code version, seed, curves.
        evaluation: figures on held-out patients, with the command that made them.
        files: path in the bundle → SHA-256.
    """

    format: int
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    recipe: str
    strips_skull: bool
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    activation: Literal["softmax"]
    spatial_dims: Literal[2]
    patch: tuple[int, int]
    mirror_axes: tuple[int, ...]
    folds: Annotated[tuple[str, ...], Field(min_length=1)]
    threshold: Annotated[float, Field(gt=0, lt=1)]
    min_volume_mm3: Annotated[float, Field(ge=0)]
    scope: Scope
    licence: str
    attribution: str
    calibration: Calibration | None
    training: dict[str, Any]
    evaluation: dict[str, Any]
    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file has the digest that its manifest names.

    Attributes:
        path: its folder.
        manifest: what it declares.
        identity: name, version and SHA-256 of the manifest's bytes.
    """

    path: Path
    manifest: Manifest
    identity: ModelIdentity


def load_bundle(path: Path, recipes: Collection[str]) -> Bundle:
    """Read a bundle and verify every file, those of the brain network within it too.

    Args:
        path: the bundle's folder.
        recipes: names of the preprocessing recipes that this version has.

    Raises:
        BundleMissing: no manifest there.
        BundleCorrupt: the manifest cannot be read or is of another format, a file is missing, differs from
            its digest or is of a kind that could hold code.
        RecipeMismatch: the bundle's recipe is not among `recipes`.
    """
    manifest, identity = _read_manifest(path)
    for name, expected in manifest.files.items():
        _verify(path, name, expected)
    unnamed = _required(manifest) - manifest.files.keys()
    if unnamed:
        raise BundleCorrupt(f"{path.name}: the manifest does not name {', '.join(sorted(unnamed))}")
    if manifest.recipe not in recipes:
        raise RecipeMismatch(
            f"{path.name} needs recipe {manifest.recipe!r}; this version has: {', '.join(recipes)}"
        )
    if manifest.strips_skull and load_bundle(path / BRAIN, recipes).manifest.strips_skull:
        raise BundleCorrupt(f"{path.name}: its brain network asks for a brain network itself")
    return Bundle(path=path, manifest=manifest, identity=identity)


def find_bundle(reference: str, folders: Sequence[Path]) -> Path:
    """The folder of a bundle.

    Args:
        reference: "name" (the highest version), "name@1.2.3", or the path of a bundle's folder.
        folders: where bundles lie, each in a folder of its own.

    Raises:
        BundleMissing: there is none of that name and version.
        BundleCorrupt: a manifest in `folders` cannot be read.
    """
    if "/" in reference:
        return Path(reference)
    name, _, version = reference.partition("@")
    found = [
        (path, manifest)
        for path, manifest in list_bundles(folders)
        if manifest.name == name and version in {"", manifest.version}
    ]
    if not found:
        have = ", ".join(f"{m.name}@{m.version}" for _, m in list_bundles(folders)) or "none"
        raise BundleMissing(f"no bundle {reference!r}; there is: {have}")
    return max(found, key=lambda entry: [int(part) for part in entry[1].version.split(".")])[0]


def list_bundles(folders: Iterable[Path]) -> tuple[tuple[Path, Manifest], ...]:
    """Every bundle in `folders`, by folder and name; the first of two with one name and version counts.

    A folder that is a bundle itself holds none: the brain network within a bundle is not to be chosen.

    Raises:
        BundleCorrupt: a manifest cannot be read.
    """
    bundles: dict[tuple[str, str], tuple[Path, Manifest]] = {}
    for folder in folders:
        if (folder / MANIFEST).exists():
            continue
        for file in sorted(folder.glob(f"*/{MANIFEST}")):
            manifest, _ = _read_manifest(file.parent)
            bundles.setdefault((manifest.name, manifest.version), (file.parent, manifest))
    return tuple(bundles.values())


def builtin_folder() -> Path:
    """The folder of the bundles that are installed with the package."""
    return Path(msnode.__file__).parent / "bundles"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def architecture(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """Class name of the network and its arguments, as nnU-Net's plans have them.

    Raises:
        BundleCorrupt: the plans cannot be read, or lack them.
    """
    try:
        plans = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
        found = plans["configurations"][CONFIGURATION]["architecture"]
        return found["network_class_name"], found["arch_kwargs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleCorrupt(
            f"{folder.name}: plans.json does not describe a {CONFIGURATION} network"
        ) from error


def _verify(path: Path, name: str, expected: str) -> None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise BundleCorrupt(f"{path.name}: the manifest names {name!r}, which lies outside the bundle")
    if parts.suffix not in _SUFFIXES:
        raise BundleCorrupt(
            f"{path.name}: {name} could hold code and is not read; weights must be fold_N.safetensors"
        )
    file = path / name
    if not file.is_file():
        raise BundleCorrupt(f"{path.name}: {name} is missing")
    if file_digest(file) != expected:
        raise BundleCorrupt(f"{path.name}: {name} does not have the digest that the manifest names")


def _required(manifest: Manifest) -> set[str]:
    names = {"plans.json", "dataset.json", *(f"{fold}.safetensors" for fold in manifest.folds)}
    return names | {f"{BRAIN}/{MANIFEST}"} if manifest.strips_skull else names


def _read_manifest(path: Path) -> tuple[Manifest, ModelIdentity]:
    try:
        content = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleMissing(f"no bundle at {path}") from error
    try:
        raw = json.loads(content)
        declared = raw["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleCorrupt(f"{path.name}: the manifest is not JSON with a format number") from error
    if declared != FORMAT:
        older = isinstance(declared, int) and declared < FORMAT
        remedy = "train or promote it again with this version" if older else "update msnode"
        raise BundleCorrupt(
            f"{path.name} has format {declared!r}; this version reads format {FORMAT}: {remedy}"
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleCorrupt(f"{path.name}: manifest: {key}: {first['msg']}") from error
    digest = hashlib.sha256(content).hexdigest()
    return manifest, ModelIdentity(name=manifest.name, version=manifest.version, sha256=digest)
