"""A slice as a colour picture with its lesions outlined and numbered, and text that its font can show."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from msnode.encode import codes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)

_Box = tuple[int, int, int, int]
"""Left, top, right, bottom; the last two outside."""

_DISPLAYED_PERCENT = (1.0, 99.7)
"""Grey levels are stretched between these percentiles of the volume, whatever window the header names."""
_SAMPLES = 2_000_000
"""About so many voxels, evenly spread, are enough for the percentiles."""
_DASH_PIXELS = 5
"""About so long is a dash, and the gap after it, in pixels of the picture."""
_CORNERS = ("lb", "rb", "lt", "rt")
"""Where a number may stand: its corner that touches the lesion's box, the best place first."""
_NO_GLYPH = "\uffff"
"""A code point that no font shows: what is drawn for it is drawn for every missing letter."""


@lru_cache(maxsize=32)
def font(size: float) -> ImageFont.FreeTypeFont:
    """The font that comes with Pillow, so that every machine draws the same; decoded once a size."""
    loaded = ImageFont.load_default(size=size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise TypeError("this build of Pillow has no FreeType")
    return loaded


def showable(text: str) -> str | None:
    """`text` in letters that the font can show, accents left out where need be; None where it cannot.

    The font has ASCII and little else: "Schädel" becomes "Schadel", Japanese has no counterpart.
    """
    shown = ""
    for letter in text:
        plain = letter if _has_glyph(letter) else unicodedata.normalize("NFKD", letter)
        shown += "".join(c for c in plain if not unicodedata.combining(c))
    shown = " ".join(shown.split())
    return shown if all(map(_has_glyph, shown)) else None


@lru_cache(maxsize=1024)
def _has_glyph(letter: str) -> bool:
    face = font(20)
    return letter == " " or (
        letter.isprintable() and bytes(face.getmask(letter)) != bytes(face.getmask(_NO_GLYPH))
    )


def grey_levels(data: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A volume as grey levels, 0-255, the same stretch for all slices; any shape."""
    step = max(1, data.size // _SAMPLES)
    low, high = np.percentile(data.reshape(-1)[::step], _DISPLAYED_PERCENT).astype(np.float32)
    levels = data - low
    levels *= np.float32(255.0) / max(high - low, np.float32(1e-6))
    np.clip(levels, 0, 255, out=levels)
    shown: NDArray[np.uint8] = levels.astype(np.uint8)
    return shown


def draw_slice(
    grey: NDArray[np.uint8],
    labels: NDArray[np.int32],
    size: tuple[int, int],
    dashed: Mapping[int, bool],
    *,
    number_size: float,
    reserved: tuple[_Box, ...] = (),
) -> Image.Image:
    """One slice, enlarged to `size`, with a contour and a number for each part of a lesion.

    A contour runs just outside its lesion, so that the lesion itself stays visible.

    Args:
        grey: grey levels, (row, column).
        labels: lesion labels, (row, column), 0 where there is none.
        size: width and height of the picture, pixels.
        dashed: label → whether its contour is dashed; every label of `labels` is in it.
        number_size: font size of the numbers, pixels.
        reserved: boxes (left, top, right, bottom) in which numbers do not stand.
    """
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    if not labels.any():
        return picture
    rows, columns = (np.arange(n) * m // n for n, m in zip(size[::-1], labels.shape, strict=True))
    large = labels[rows][:, columns]
    pixels = np.array(picture)
    outside = np.where(large == 0, _largest_neighbour(large), 0)
    for label in np.unique(large[large > 0]).tolist():
        if dashed[label]:
            contour = outside == label
            outside[contour & ~_dashes(contour)] = 0
    drawn = outside > 0
    colours = np.array([codes.lesion_colour(n) for n in range(1, int(labels.max()) + 1)], np.uint8)
    pixels[drawn] = colours[outside[drawn] - 1]
    picture = Image.fromarray(pixels)
    _write_numbers(picture, large, drawn, number_size, list(reserved))
    return picture


def _largest_neighbour(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The largest label among a pixel and its eight neighbours: a 3 x 3 maximum filter, only faster."""
    padded = np.pad(labels, 1)
    tall = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return np.maximum(np.maximum(tall[:, :-2], tall[:, 1:-1]), tall[:, 2:])


def _dashes(contour: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every other stretch of a contour, cut by the angle seen from its middle: dashes on any closed shape."""
    rows, columns = np.nonzero(contour)
    turn = np.arctan2(rows - rows.mean(), columns - columns.mean()) / (2 * np.pi) + 0.5
    stretches = 2 * max(3, round(len(rows) / (2 * _DASH_PIXELS)))
    drawn = np.floor(turn * stretches).astype(int) % 2 == 0
    kept = np.zeros_like(contour)
    kept[rows[drawn], columns[drawn]] = True
    return kept


def _parts(labels: NDArray[np.int32]) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Each connected part of each lesion in a slice: the lesion's label, and the box around the part."""
    boxes = {n: box for n, box in enumerate(ndimage.find_objects(labels), start=1) if box is not None}
    for label, box in boxes.items():
        parts, _ = ndimage.label(labels[box] == label, structure=np.ones((3, 3)))
        for part in ndimage.find_objects(parts):
            yield (
                label,
                tuple(slice(b.start + p.start, b.start + p.stop) for b, p in zip(box, part, strict=True)),
            )


def _write_numbers(
    picture: Image.Image,
    labels: NDArray[np.int32],
    contours: NDArray[np.bool_],
    size: float,
    taken: list[_Box],
) -> None:
    """Write a number beside each part of a lesion, where it covers other numbers and lesions least."""
    pen = ImageDraw.Draw(picture)
    occupied = contours | (labels > 0)
    for label, (rows, columns) in _parts(labels):
        text = str(label)
        width, height = round(font(size).getlength(text)) + 2, round(size)
        around = columns.start - 2, rows.start - 2, columns.stop + 2, rows.stop + 2
        places = [_beside(around, corner, width, height, picture.size) for corner in _CORNERS]
        costs = [_cost(place, occupied, taken) for place in places]
        best = places[costs.index(min(costs))]
        taken.append(best)
        pen.text(
            (best[0] + 1, best[3] - 1),
            text,
            font=font(size),
            fill=codes.lesion_colour(label),
            anchor="lb",
            stroke_width=1,
            stroke_fill=BLACK,
        )


def _beside(around: _Box, corner: str, width: int, height: int, size: tuple[int, int]) -> _Box:
    """A box of text whose `corner` (l or r, t or b) lies at the opposite corner, or edge, of `around`."""
    left = around[2] if corner[0] == "l" else around[0] - width
    top = around[1] + 2 - (height if corner[1] == "b" else 0)
    if corner[1] == "t":
        top = around[3] - 2
    left = min(max(left, 0), size[0] - width)
    top = min(max(top, 0), size[1] - height)
    return left, top, left + width, top + height


def _cost(box: _Box, lesions: NDArray[np.bool_], taken: list[_Box]) -> int:
    """How many pixels of numbers, which weigh four times, and of lesions a box covers."""
    left, top, right, bottom = box
    covered = int(np.count_nonzero(lesions[top:bottom, left:right]))
    for other in taken:
        wide = min(right, other[2]) - max(left, other[0])
        high = min(bottom, other[3]) - max(top, other[1])
        covered += 4 * max(wide, 0) * max(high, 0)
    return covered


def set_pixels(ds: Dataset, picture: NDArray[np.uint8]) -> None:
    """Make (row, column, RGB) the pixel data of a true colour image (PS3.3 C.7.6.3)."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    data = picture.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB"
