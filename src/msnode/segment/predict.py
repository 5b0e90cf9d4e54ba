"""Batched 2D inference as nnU-Net does it: Gaussian tile weights, logits averaged over mirrors and folds."""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from msnode.errors import RecipeMismatch
from msnode.runtime import open_runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain import Prepared
    from msnode.runtime import Runtime
    from msnode.segment.bundle import Bundle

_BATCH = 4
_TILE_STEP = 0.5


class Predictor:
    """A bundle's networks, loaded once and kept.

    Args:
        bundle: what to run.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; None means all cores.

    Raises:
        ConfigurationError: the device is not there.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None) -> None:
        self.bundle = bundle
        self._runtimes = [self._open(fold, device, threads) for fold in bundle.manifest.folds]
        self._weight = tile_weight(bundle.manifest.patch)

    @property
    def runtime_name(self) -> str:
        """Engine, device and precision, such as "openvino-cpu-f32"."""
        return self._runtimes[0].name

    def predict(self, prepared: Prepared) -> NDArray[np.float32]:
        """Class probabilities.

        Args:
            prepared: made by the bundle's recipe.

        Returns:
            float32 (class, slice, row, column) on `prepared.grid`; classes sum to 1.

        Raises:
            RecipeMismatch: another recipe made `prepared`.
        """
        manifest = self.bundle.manifest
        if prepared.recipe != manifest.recipe:
            raise RecipeMismatch(f"{manifest.name} needs recipe {manifest.recipe!r}, not {prepared.recipe!r}")
        slices = np.moveaxis(prepared.data, 0, 1)
        batches = [self._logits(slices[i : i + _BATCH]) for i in range(0, len(slices), _BATCH)]
        return _softmax(np.moveaxis(np.concatenate(batches), 1, 0))

    def _open(self, fold: str, device: str, threads: int | None) -> Runtime:
        bundle = self.bundle

        def module():  # type: ignore[no-untyped-def] # noqa: ANN202 - its type is torch's, which only CUDA loads
            from msnode.segment.nnunet import build_network  # noqa: PLC0415 - torch: CUDA only

            manifest = bundle.manifest
            return build_network(bundle.path, fold, len(manifest.channels), len(manifest.classes))

        return open_runtime(device, bundle.path / f"{fold}.xml", module, threads)

    def _logits(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, class, row, column) of slices (n, channel, row, column) of any size."""
        patch = self.bundle.manifest.patch
        padded, inner = _pad(slices, patch)
        rows, columns = (tile_starts(n, p) for n, p in zip(padded.shape[2:], patch, strict=True))
        if len(rows) == len(columns) == 1:
            return self._mirrored(padded)[inner]
        total = np.zeros(
            (len(slices), len(self.bundle.manifest.classes), *padded.shape[2:]), dtype=np.float32
        )
        weight = np.zeros(padded.shape[2:], dtype=np.float32)
        for row in rows:
            for column in columns:
                tile = (..., slice(row, row + patch[0]), slice(column, column + patch[1]))
                total[tile] += self._mirrored(padded[tile]) * self._weight
                weight[tile] += self._weight
        return np.asarray((total / weight)[inner])

    def _mirrored(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean logits over folds and over the mirror images that the bundle asks for."""
        axes = [axis + 2 for axis in self.bundle.manifest.mirror_axes]
        views = list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))
        outputs = [
            np.flip(runtime.run(np.flip(tiles, view)), view) for runtime in self._runtimes for view in views
        ]
        return np.asarray(np.mean(outputs, axis=0, dtype=np.float32))


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


def _pad(
    slices: NDArray[np.float32], patch: tuple[int, int]
) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Zero-pad rows and columns to at least the patch; also the index that undoes it."""
    before = [max(0, p - n) // 2 for n, p in zip(slices.shape[2:], patch, strict=True)]
    after = [max(0, p - n) - b for n, p, b in zip(slices.shape[2:], patch, before, strict=True)]
    padded = np.pad(slices, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    inner = tuple(slice(b, b + n) for b, n in zip(before, slices.shape[2:], strict=True))
    return padded, (slice(None), slice(None), *inner)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=0))
    return np.asarray(exponentials / exponentials.sum(axis=0), dtype=np.float32)
