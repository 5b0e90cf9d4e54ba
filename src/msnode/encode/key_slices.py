"""The slices that the summary page shows: which, and how they are drawn there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageDraw

from msnode.encode.picture import BLACK, WHITE, draw_slice, font

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from msnode.domain.findings import LesionMap
    from msnode.domain.imaging import Grid

_MIDDLE = (0.25, 0.75)
"""The part of the stack from which slices without lesions are shown."""
_LIT = 32
"""Grey level, of 255, above which a pixel belongs to the head."""
_LIT_SLICES = 0.05
"""A pixel that is lit in fewer of the slices is noise."""
_NUMBER_SIZE = 15
_LETTER_SIZE = 20
_TILTED_DEGREES = 5
_PLANES = ("sagittal", "coronal", "axial")
_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Where the positive and the negative end of each LPS axis lie."""


@dataclass(frozen=True, eq=False)
class KeySlice:
    """One slice of the summary page.

    Attributes:
        rank: its Instance Number in the overlay.
        lesions: how many lesions it cuts.
        picture: drawn with square pixels, contours, lesion numbers and the letters of orientation.
    """

    rank: int
    lesions: int
    picture: Image.Image


def plane_name(grid: Grid) -> str:
    """The nearest of axial, coronal and sagittal, with the tilt where there is some."""
    normal = np.abs(np.cross(grid.affine[:3, 2], grid.affine[:3, 1]))
    normal /= np.linalg.norm(normal)
    tilt = float(np.degrees(np.arccos(min(1.0, normal.max()))))
    name = _PLANES[int(normal.argmax())]
    return name if tilt < _TILTED_DEGREES else f"{name}, tilted by {tilt:.0f} degrees"


def choose(labels: NDArray[np.int32], count: int) -> list[int]:
    """At most `count` slices with the largest lesion area, spread through the stack, in stack order.

    Args:
        labels: lesion labels, (slice, row, column).
        count: how many there is room for.

    Returns:
        Indices of slices; without lesions, slices spread evenly through the stack's middle.
    """
    areas = np.count_nonzero(labels, axis=(1, 2))
    if not areas.any():
        first, last = (round(part * (len(areas) - 1)) for part in _MIDDLE)
        return [int(k) for k in np.unique(np.linspace(first, last, count).round())]
    by_area = np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)].tolist()
    gap = max(1, len(by_area) // count)
    chosen: list[int] = []
    while len(chosen) < min(count, len(by_area)):
        for k in by_area:
            if len(chosen) < count and all(abs(k - other) >= gap for other in chosen):
                chosen.append(k)
        gap = max(1, gap // 2)
    return sorted(chosen)


def draw_key_slices(
    lesion_map: LesionMap,
    dashed: Mapping[int, bool],
    ranks: Sequence[int],
    *,
    chosen: Sequence[int],
    grey: NDArray[np.uint8],
    room: tuple[int, int],
) -> list[KeySlice]:
    """Draw the chosen slices, cut to the head, as large as `room` allows.

    Args:
        lesion_map: labels on the grid of the volume that was read.
        dashed: label → whether its contour is dashed.
        ranks: Instance Number in the overlay, by slice.
        chosen: indices of the slices, as `choose` gives them.
        grey: grey levels of the volume, (slice, row, column).
        room: width and height of the largest picture, pixels.

    Returns:
        The slices by rising rank.
    """
    grid = lesion_map.grid
    rows, columns = _head(grey, lesion_map.labels)
    height_mm = (rows.stop - rows.start) * grid.spacing[1]
    width_mm = (columns.stop - columns.start) * grid.spacing[2]
    scale = min(room[0] / width_mm, room[1] / height_mm)
    size = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    shown = []
    for k in chosen:
        labels = lesion_map.labels[k, rows, columns]
        picture = draw_slice(grey[k, rows, columns], labels, size, dashed, number_size=_NUMBER_SIZE)
        _write_letters(picture, grid)
        shown.append(KeySlice(ranks[k], len(np.unique(labels[labels > 0])), picture))
    return sorted(shown, key=lambda one: one.rank)


def _head(grey: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[slice, slice]:
    """Rows and columns in which there is something to see."""
    seen = ((grey > _LIT).mean(axis=0) > _LIT_SLICES) | labels.any(axis=0)
    if not seen.any():
        seen[:] = True
    ends = [np.flatnonzero(seen.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    (top, bottom), (left, right) = ((max(0, int(a) - 2), int(b) + 3) for a, b in ends)
    return slice(top, min(bottom, grey.shape[1])), slice(left, min(right, grey.shape[2]))


def edge_letters(grid: Grid) -> tuple[str, str, str, str]:
    """Which side of the patient lies at the left, right, top and bottom edge of a slice.

    A, P, R, L, H or F: anterior, posterior, right, left, head, feet (PS3.3 C.7.6.1.1.1).
    """
    right, down = grid.affine[:3, 2], grid.affine[:3, 1]
    return _letter(-right), _letter(right), _letter(-down), _letter(down)


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    return _LETTERS[axis][int(direction[axis] < 0)]


def _write_letters(picture: Image.Image, grid: Grid) -> None:
    width, height = picture.size
    places = (
        ((4, height // 2), "lm"),
        ((width - 4, height // 2), "rm"),
        ((width // 2, 4), "ma"),
        ((width // 2, height - 4), "md"),
    )
    pen, face = ImageDraw.Draw(picture), font(_LETTER_SIZE)
    for letter, (place, anchor) in zip(edge_letters(grid), places, strict=True):
        pen.text(place, letter, font=face, fill=WHITE, anchor=anchor, stroke_width=2, stroke_fill=BLACK)
