"""Finds copies: the same pixels at the same place are one image, whatever UIDs they have."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.header import numbers
from msnode.dicom.planes import is_enhanced
from msnode.errors import Rejected
from msnode.series.comparison import same_image
from msnode.series.volume import to_volume

if TYPE_CHECKING:
    from msnode.domain.imaging import Instance, Series

_RELATIVE = 1e-5
"""A rescale in decimal digits (DS) and one in binary (FD) give values that differ by less."""


def same_volume(one: Series, other: Series) -> bool:
    """Whether two series hold the same values at the same places, in classic or multi-frame images.

    Frames of Reference are not compared: who gives new UIDs gives new ones there too. False if either is no
    volume or cannot be decoded.
    """
    try:
        first, second = to_volume(one).volume, to_volume(other).volume
    except Rejected:
        return False
    return first.grid.same_as(second.grid, tolerance_mm=0.01) and np.allclose(
        first.data, second.data, rtol=_RELATIVE, atol=0
    )


def without_copies(series: Series) -> tuple[Series, tuple[str, ...]]:
    """A series with one classic image a place where the others there are copies, and what was left out.

    Images at one place that differ all stay; the checks of the volume refuse them.
    """
    places: defaultdict[tuple[float, ...], list[Instance]] = defaultdict(list)
    kept = []
    for instance in series.instances:
        position = numbers(instance.header, "ImagePositionPatient", 3)
        if position is None or is_enhanced(instance.header):
            kept.append(instance)
            continue
        there = places[tuple((np.round(position, 2) + 0.0).tolist())]
        if not any(same_image(known.path, instance.path) for known in there):
            there.append(instance)
            kept.append(instance)
    count = len(series.instances)
    if len(kept) == count:
        return series, ()
    said = f"{count - len(kept)} of {count} images of the series have the pixels and the place of another one"
    return replace(series, instances=tuple(kept)), (said,)
