"""A model bundle: a folder whose manifest names every file by SHA-256, the recipe and the scope of use.

manifest.json                     this module
model_card.md                     what people read
dataset.json, plans.json          nnU-Net's own: plain nnunetv2 loads the folder
fold_N/checkpoint_final.pth       weights
fold_N.xml, fold_N.bin            the same weights for OpenVINO
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import msnode
from msnode.domain import ModelIdentity
from msnode.errors import BundleCorrupt, BundleMissing, RecipeMismatch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

FORMAT = 1
MANIFEST = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scope(_Part):
    """What the model was made for and has seen.

    Attributes:
        plane: acquisition plane.
        slice_distance_mm: smallest and largest distance between slice centres.
        field_strength_t: magnetic field strengths seen in training, tesla.
        manufacturers: vendors seen in training, as in (0008,0070).
    """

    plane: Literal["axial", "sagittal", "coronal", "any"]
    slice_distance_mm: tuple[float, float]
    field_strength_t: tuple[float, ...]
    manufacturers: tuple[str, ...]


class Manifest(_Part):
    """What `manifest.json` holds.

    Attributes:
        format: version of this layout.
        recipe: preprocessing recipe the network was trained behind.
        channels: names of the input channels, in order.
        classes: label names by class index; 0 is background.
        activation: what turns logits into probabilities.
        patch: rows and columns the network sees at once.
        mirror_axes: in-plane axes (0 row, 1 column) whose mirror images are averaged in.
        folds: networks whose logits are averaged.
        threshold: smallest lesion probability that counts.
        min_volume_mm3: smallest lesion.
        attribution: whom the licence of the training data asks to name.
        evaluation: figures on held-out patients, with the command that made them.
        files: path in the bundle → SHA-256.
    """

    format: int
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    recipe: str
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
    """Read a bundle and verify every file.

    Args:
        path: the bundle's folder.
        recipes: names of the preprocessing recipes that this version has.

    Raises:
        BundleMissing: no manifest there.
        BundleCorrupt: the manifest cannot be read, is of a newer format, or a file differs from its digest.
        RecipeMismatch: the bundle's recipe is not among `recipes`.
    """
    manifest, identity = _read_manifest(path)
    for name, expected in manifest.files.items():
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise BundleCorrupt(f"{path.name}: the manifest names {name!r}, which lies outside the bundle")
        file = path / name
        if not file.is_file():
            raise BundleCorrupt(f"{path.name}: {name} is missing")
        if file_digest(file) != expected:
            raise BundleCorrupt(f"{path.name}: {name} does not have the digest that the manifest names")
    unnamed = {required_file for required_file in _required(manifest) if required_file not in manifest.files}
    if unnamed:
        raise BundleCorrupt(f"{path.name}: the manifest does not name {', '.join(sorted(unnamed))}")
    if manifest.recipe not in recipes:
        raise RecipeMismatch(
            f"{path.name} needs recipe {manifest.recipe!r}; this version has: {', '.join(recipes)}"
        )
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

    Raises:
        BundleCorrupt: a manifest cannot be read.
    """
    bundles: dict[tuple[str, str], tuple[Path, Manifest]] = {}
    for folder in folders:
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


def _required(manifest: Manifest) -> set[str]:
    return {"plans.json", "dataset.json"} | {
        name
        for fold in manifest.folds
        for name in (f"{fold}.xml", f"{fold}.bin", f"{fold}/checkpoint_final.pth")
    }


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
        raise BundleCorrupt(f"{path.name} has format {declared!r}; this version reads format {FORMAT}")
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleCorrupt(f"{path.name}: manifest: {key}: {first['msg']}") from error
    digest = hashlib.sha256(content).hexdigest()
    return manifest, ModelIdentity(name=manifest.name, version=manifest.version, sha256=digest)
