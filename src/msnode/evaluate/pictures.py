"""Slices of a scan to look at: turned as a radiologist sees them, cropped to the head, small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain.findings import LesionMap
    from msnode.domain.imaging import Grid, Volume

WITH_TRUTH = 3
"""Slices shown of a scan with an expert's mask: those with most lesion."""
WITHOUT_TRUTH = 8
"""Slices shown of a scan without one: spread over the stack, since an eye must accept the whole."""

_APART_MM = 12.0
_BLACK = 1.0
"""Percentile of all intensities shown as black."""
_WHITE = 99.8
"""Percentile of the head's intensities shown as white."""
_HEAD = 0.15
"""Share of the 99th percentile above which a voxel belongs to the head, for the crop."""
_MARGIN = 4
_STACK = (0.2, 0.85)
"""Part of the stack that is shown where nothing was found."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice in radiological orientation.

    Attributes:
        number: slice number in the source stack, from 1.
        image: uint8 (row, column).
        truth: bool (row, column), or None without an expert's mask.
        predicted: bool (row, column).
        aspect: height of a pixel over its width.
    """

    number: int
    image: NDArray[np.uint8]
    truth: NDArray[np.bool_] | None
    predicted: NDArray[np.bool_]
    aspect: float


def choose_pictures(image: Volume, truth: Volume | None, lesions: LesionMap) -> tuple[Picture, ...]:
    """The slices of a scan that are worth a look, in the order of the stack."""
    predicted = lesions.labels > 0
    marked = predicted if truth is None else predicted | (truth.data > 0)
    area = np.count_nonzero(marked, axis=(1, 2))
    if truth is None:
        numbers = _spread(area)
    else:
        apart = max(1, round(_APART_MM / image.grid.spacing[0]))
        numbers = _largest(area, apart) or _spread(area)[:: max(1, WITHOUT_TRUTH // WITH_TRUTH)][:WITH_TRUTH]
    grey = _grey(image.data)
    rows, columns = _head(image.data)
    spacing = image.grid.spacing

    def view(values: NDArray[Any], k: int) -> NDArray[Any]:
        return _radiological(values[k, rows, columns], image.grid)

    height, width = spacing[1:] if not _transposed(image.grid) else spacing[:0:-1]
    return tuple(
        Picture(
            number=k + 1,
            image=view(grey, k),
            truth=None if truth is None else view(truth.data > 0, k),
            predicted=view(predicted, k),
            aspect=height / width,
        )
        for k in numbers
    )


def _largest(area: NDArray[np.intp], apart: int) -> list[int]:
    """Up to `WITH_TRUTH` slices with most lesion, at least `apart` slices from each other."""
    chosen: list[int] = []
    for k in np.argsort(-area, kind="stable").tolist():
        if area[k] and len(chosen) < WITH_TRUTH and all(abs(k - c) >= apart for c in chosen):
            chosen.append(k)
    return sorted(chosen)


def _spread(area: NDArray[np.intp]) -> list[int]:
    """Up to `WITHOUT_TRUTH` slices, evenly over those with lesion, or over the middle of the stack."""
    found = np.flatnonzero(area)
    first, last = (found[0], found[-1]) if len(found) else (share * (len(area) - 1) for share in _STACK)
    return sorted({round(k) for k in np.linspace(first, last, WITHOUT_TRUTH).tolist()})


def _grey(data: NDArray[Any]) -> NDArray[np.uint8]:
    finite = _finite(data)
    low = float(np.percentile(finite, _BLACK))
    inside = finite[finite > _HEAD * np.percentile(finite, 99)]
    high = float(np.percentile(inside, _WHITE)) if inside.size else low
    return np.asarray(np.clip((finite - low) / max(high - low, 1e-6), 0, 1) * 255, dtype=np.uint8)


def _head(data: NDArray[Any]) -> tuple[slice, slice]:
    """Rows and columns that hold the head in any slice, with a margin."""
    finite = _finite(data)
    head = finite > _HEAD * np.percentile(finite, 99)
    spans = []
    for axis, size in ((1, data.shape[1]), (2, data.shape[2])):
        other = tuple({0, 1, 2} - {axis})
        filled = np.flatnonzero(head.mean(axis=other) > 0.01)  # noqa: PLR2004 - noise in the air stays below
        spans.append(
            slice(max(filled[0] - _MARGIN, 0), min(filled[-1] + 1 + _MARGIN, size))
            if len(filled)
            else slice(0, size)
        )
    return spans[0], spans[1]


def _finite(data: NDArray[Any]) -> NDArray[np.float32]:
    return np.nan_to_num(data.astype(np.float32), posinf=0, neginf=0)


def _transposed(grid: Grid) -> bool:
    row, column = _dominant(grid)
    return row < column


def _dominant(grid: Grid) -> tuple[int, int]:
    """Patient axis (0 left, 1 posterior, 2 superior) along which rows and columns are counted most."""
    directions = np.abs(grid.affine[:3, 1:3])
    column = int(np.argmax(directions[:, 1]))
    others = directions[:, 0].copy()
    others[column] = -1
    return int(np.argmax(others)), column


def _radiological(values: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Turn a slice (row, column): patient's left on the right, posterior or inferior below.

    Sagittal slices have anterior on the left.
    """
    row, column = _dominant(grid)
    row_up = grid.affine[row, 1] > 0
    column_up = grid.affine[column, 2] > 0
    # along x and y the picture counts with LPS, along z against it: superior is on top
    if row_up != (row < 2):  # noqa: PLR2004 - axis 2 is superior
        values = values[::-1]
    if column_up != (column < 2):  # noqa: PLR2004 - axis 2 is superior
        values = values[:, ::-1]
    return np.ascontiguousarray(values.T if row < column else values)
