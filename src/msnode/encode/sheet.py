"""A page while it is drawn: pixels, and the lines of text in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from msnode.encode.picture import WHITE, font, showable

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = (1240, 1754)
"""Width and height, pixels: A4 upright at 150 dots an inch."""
TEXT = 22
"""Size of running text, pixels."""
_GROUND = (18, 20, 24)
"""Dark, as everything else on a screen in a reading room."""
_PANEL = (34, 38, 46)


@dataclass(frozen=True)
class Words:
    """A line of text on the page: what it says, its left end and baseline, and its size, in pixels."""

    text: str
    left: float
    baseline: float
    size: float


@dataclass(frozen=True, eq=False)
class Page:
    """What is shown, (row, column, RGB), and the lines of text in it."""

    pixels: NDArray[np.uint8]
    words: tuple[Words, ...]


class Sheet:
    """A page while it is drawn."""

    def __init__(self) -> None:
        self.picture = Image.new("RGB", SIZE, _GROUND)
        self.pen = ImageDraw.Draw(self.picture)
        self.words: list[Words] = []

    def write(
        self,
        place: tuple[float, float],
        text: str,
        size: float = TEXT,
        *,
        colour: tuple[int, int, int] = WHITE,
        anchor: str = "ls",
        bold: bool = False,
    ) -> None:
        """Write one line; `place` is its baseline at the left, middle or right end, as `anchor` says."""
        line = "".join(showable(letter) or " " for letter in text)
        stroke = max(1, round(size / 36)) if bold else 0
        self.pen.text(place, line, font=font(size), fill=colour, anchor=anchor, stroke_width=stroke)
        shift = {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
        left = place[0] - shift * font(size).getlength(line)
        self.words.append(Words(line, left, place[1], size))

    def panel(self, left: int, top: int, right: int, bottom: int) -> None:
        """A field of a lighter ground."""
        self.pen.rounded_rectangle((left, top, right, bottom), radius=8, fill=_PANEL)

    def page(self) -> Page:
        """What has been drawn so far."""
        return Page(np.asarray(self.picture), tuple(self.words))


def wrap(text: str, size: float, width: float) -> list[str]:
    """Lines no wider than `width` pixels, as far as single words are not."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
