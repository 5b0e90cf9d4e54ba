"""Which slices a training sees how often, on top of nnU-Net's drawing of cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


class Cases:
    """nnU-Net's training cases, read once and kept in memory.

    Args:
        source: its data set.
        identifiers: names of the cases to draw from, each as often as it shall count.
        even_slices: give the lesion voxels of one slice that holds any, each such slice as often. A forced
            lesion voxel is drawn from what is given: without it slices count by their lesion area.
    """

    def __init__(self, source: Any, identifiers: Sequence[str], *, even_slices: bool) -> None:
        self.identifiers = identifiers
        self._source, self._even_slices = source, even_slices
        self._read: dict[str, tuple[Any, ...]] = {}

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        """Image and labels (1, slice, row, column), nothing, and the case's properties."""
        if identifier not in self._read:
            data, labels, before, properties = self._source.load_case(identifier)
            self._read[identifier] = data[:], labels[:], before, properties
        data, labels, before, properties = self._read[identifier]
        if self._even_slices:
            found = properties["class_locations"]
            properties = properties | {"class_locations": {k: _of_one_slice(v) for k, v in found.items()}}
        return data, labels, before, properties


def _of_one_slice(voxels: Any) -> Any:
    """Those of the voxels (n, [channel, slice, row, column]) that lie in one of their slices."""
    if not len(voxels):
        return voxels
    chosen = np.random.choice(np.unique(voxels[:, 1]))  # noqa: NPY002 - the generator that batchgenerators uses
    return voxels[voxels[:, 1] == chosen]


def balanced(identifiers: Sequence[str], synthetic_share: float) -> list[str]:
    """Names of cases, real ones as often as it takes for the wanted share of synthetic draws."""
    real = [name for name in identifiers if not name.startswith("synthetic")]
    synthetic = [name for name in identifiers if name.startswith("synthetic")]
    if not real or not synthetic:
        return list(identifiers)
    if synthetic_share == 0:
        return real
    times = (1 - synthetic_share) / synthetic_share * len(synthetic) / len(real)
    return real * max(1, round(times)) + synthetic
