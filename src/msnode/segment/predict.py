"""2D inference as nnU-Net does it: Gaussian tile weights, logits averaged over mirrors and folds.

Slices go through in slabs of bounded memory: what remains of one is the mean of the members (folds x mirror
images) and how far they differ, never a map for each of them.
"""

from __future__ import annotations

from itertools import chain, combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from msnode.domain.imaging import Prediction
from msnode.errors import ConfigurationError, RecipeMismatch
from msnode.segment.runtime import open_runtime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from msnode.domain.imaging import Prepared
    from msnode.segment.bundle import Bundle
    from msnode.segment.runtime import Runtime

PRESETS = ("fast", "standard", "best")
"""The first fold; all folds; all folds with the mirror images that the bundle declares."""

_TILE_STEP = 0.5
_SLAB_BYTES = 32 * 2**20
"""Logits of all folds that are held at once."""


class Predictor:
    """A bundle's networks, loaded once and kept.

    Args:
        bundle: what to run.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; None means all cores.
        preset: one of `PRESETS`.
        folds: names of the folds that take part; None means all of the bundle's.
        cache_dir: where compiled networks are kept for the next start; None compiles them anew.

    Raises:
        ConfigurationError: the device is not there, or preset or fold do not exist.
        BundleCorrupt: weights and plans do not fit each other.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        threads: int | None = None,
        *,
        preset: str = "standard",
        folds: Sequence[str] | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self.bundle = bundle
        manifest = bundle.manifest
        if preset not in PRESETS:
            raise ConfigurationError(f"preset is {preset!r}; it must be one of: {', '.join(PRESETS)}")
        chosen = manifest.folds if folds is None else tuple(folds)
        if not chosen or not set(chosen) <= set(manifest.folds):
            have, asked = ", ".join(manifest.folds), ", ".join(chosen) or "none"
            raise ConfigurationError(f"{manifest.name} has the folds {have}; asked for: {asked}")
        self._folds = chosen[:1] if preset == "fast" else chosen
        axes = manifest.mirror_axes if preset == "best" else ()
        self._views = list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))
        self._weight = tile_weight(manifest.patch)
        self._runtime = self._open(device, threads, cache_dir)

    @property
    def runtime_name(self) -> str:
        """Engine, device and precision, such as "openvino-cpu-f32"."""
        return self._runtime.name

    def predict(self, prepared: Prepared) -> Prediction:
        """Class probabilities and their spread; slices without brain are background and cost nothing.

        Args:
            prepared: made by the bundle's recipe.

        Raises:
            RecipeMismatch: another recipe made `prepared`.
        """
        manifest = self.bundle.manifest
        if prepared.recipe != manifest.recipe:
            raise RecipeMismatch(f"{manifest.name} needs recipe {manifest.recipe!r}, not {prepared.recipe!r}")
        shape = prepared.data.shape[1:]
        probability = np.zeros((len(manifest.classes), *shape), dtype=np.float32)
        probability[0] = 1
        spread = np.zeros(shape, dtype=np.float32)
        wanted, rows, columns = _contents(prepared)
        for slab in self._slabs(wanted, (rows.stop - rows.start, columns.stop - columns.start)):
            slices = np.moveaxis(prepared.data[:, slab, rows, columns], 0, 1)
            mean, spread[slab, rows, columns] = self._members(slices)
            probability[:, slab, rows, columns] = mean
        return Prediction(probability=probability, spread=spread)

    def _open(self, device: str, threads: int | None, cache_dir: Path | None) -> Runtime:
        bundle, folds = self.bundle, self._folds
        channels, classes = len(bundle.manifest.channels), len(bundle.manifest.classes)

        def model():  # type: ignore[no-untyped-def] # noqa: ANN202 - its type is OpenVINO's, which only the CPU loads
            from msnode.segment.openvino_unet import read_model  # noqa: PLC0415 - OpenVINO: CPU only

            return read_model(bundle.path, folds, channels, classes, bundle.manifest.patch)

        def modules():  # type: ignore[no-untyped-def] # noqa: ANN202 - its type is torch's, which only CUDA loads
            from msnode.segment.nnunet import build_network  # noqa: PLC0415 - torch: CUDA only

            return [build_network(bundle.path, fold, channels, classes) for fold in folds]

        return open_runtime(device, model, modules, threads, cache_dir)

    def _slabs(self, wanted: NDArray[np.intp], size: Sequence[int]) -> list[NDArray[np.intp]]:
        """Indices of slices of some rows and columns, in groups of about equal size."""
        patch = self.bundle.manifest.patch
        tiles = np.prod([len(tile_starts(max(n, p), p)) for n, p in zip(size, patch, strict=True)])
        a_slice = int(tiles) * len(self._folds) * len(self.bundle.manifest.classes) * int(np.prod(patch)) * 4
        slabs = -(-len(wanted) // max(1, _SLAB_BYTES // a_slice))
        return np.array_split(wanted, slabs) if slabs else []

    def _members(self, slices: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Softmax (class, n, row, column) of the members' mean logits, and the spread (n, row, column)."""
        padded, inner = _pad(slices, self.bundle.manifest.patch)
        total: NDArray[np.float32] | None = None
        first: NDArray[np.float32] | None = None
        for view in self._views:
            for logits in self._fold_logits(padded, view):
                member = logits[inner]
                last = _last_class(member)
                if total is None or first is None:
                    # sums of differences from the first member keep their digits where members agree
                    total, first = np.array(member), last
                    differences, squares = np.zeros_like(last), np.zeros_like(last)
                    continue
                total += member
                difference = last - first
                differences += difference
                squares += difference**2
        assert total is not None  # noqa: S101 - there is a fold and a view: tells the type checker
        count = len(self._views) * len(self._folds)
        variance = squares / count - (differences / count) ** 2
        return _softmax(np.moveaxis(total / np.float32(count), 1, 0)), np.sqrt(np.maximum(variance, 0))

    def _fold_logits(self, padded: NDArray[np.float32], view: tuple[int, ...]) -> NDArray[np.float32]:
        """Logits (fold, n, class, row, column) of slices (n, channel, row, column), mirrored and back."""
        patch, count = self.bundle.manifest.patch, len(padded)
        starts = product(*(tile_starts(n, p) for n, p in zip(padded.shape[2:], patch, strict=True)))
        places: list[Any] = [(..., slice(r, r + patch[0]), slice(c, c + patch[1])) for r, c in starts]
        axes = tuple(axis - 2 for axis in view)  # of rows and columns, counted from the end
        tiles = np.concatenate([padded[place] for place in places])
        outputs = np.flip(self._runtime.run(np.flip(tiles, axes)), axes)
        if len(places) == 1:
            return outputs
        total = np.zeros((len(outputs), count, outputs.shape[2], *padded.shape[2:]), dtype=np.float32)
        weight = np.zeros(padded.shape[2:], dtype=np.float32)
        for i, place in enumerate(places):
            total[place] += outputs[:, i * count : (i + 1) * count] * self._weight
            weight[place] += self._weight
        total /= weight
        return total


def tile_starts(size: int, patch: int) -> list[int]:
    """First indices of tiles that cover `size`, at most half a patch apart, evenly spread."""
    count = int(np.ceil((size - patch) / (patch * _TILE_STEP))) + 1
    return [round((size - patch) * i / max(1, count - 1)) for i in range(count)]


def tile_weight(patch: tuple[int, int]) -> NDArray[np.float32]:
    """Gaussian weight of each pixel of a tile, sigma an eighth of its side, nowhere 0 (nnU-Net's)."""
    impulse = np.zeros(patch)
    impulse[patch[0] // 2, patch[1] // 2] = 1
    weight = ndimage.gaussian_filter(impulse, [side / 8 for side in patch], mode="constant")
    weight /= weight.max()
    return np.asarray(np.maximum(weight, weight[weight > 0].min()), dtype=np.float32)


def _contents(prepared: Prepared) -> tuple[NDArray[np.intp], slice, slice]:
    """Slices to compute, and the rows and columns beyond which the volume is 0 throughout.

    nnU-Net cuts its input to that box, in training and in prediction; a box placed otherwise in the patch
    meets the strides of the network otherwise, which moves the outlines of lesions.
    """
    filled = (prepared.data != 0).any(axis=0)
    wanted = filled if prepared.brain is None else prepared.brain > 0
    box = []
    for axis in (1, 2):
        found = np.flatnonzero(filled.any(axis=(0, 3 - axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0))
    slices = np.flatnonzero(wanted.any(axis=(1, 2)) & filled.any(axis=(1, 2)))
    return slices, box[0], box[1]


def _pad(
    slices: NDArray[np.float32], patch: tuple[int, int]
) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Zero-pad rows and columns to at least the patch; also the index that undoes it."""
    before = [max(0, p - n) // 2 for n, p in zip(slices.shape[2:], patch, strict=True)]
    after = [max(0, p - n) - b for n, p, b in zip(slices.shape[2:], patch, before, strict=True)]
    padded = np.pad(slices, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    inner = tuple(slice(b, b + n) for b, n in zip(before, slices.shape[2:], strict=True))
    return padded, (slice(None), slice(None), *inner)


def _last_class(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability (n, row, column) of the last class of logits (n, class, row, column)."""
    with np.errstate(over="ignore"):  # exp → inf gives probability 0, which is right
        others = sum(np.exp(logits[:, i] - logits[:, -1]) for i in range(logits.shape[1] - 1))
        return np.asarray(1 / (1 + others), dtype=np.float32)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=0))
    return np.asarray(exponentials / exponentials.sum(axis=0), dtype=np.float32)
