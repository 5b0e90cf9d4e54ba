"""Text that came from outside, made safe to show."""

from __future__ import annotations

import unicodedata

_HARMLESS = frozenset({"Zs"})
"""Categories of letters that `str.isprintable` refuses and a terminal shows as they are: spaces."""


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal or a page would obey instead of showing.

    Control characters, marks that reverse the direction of writing, lone surrogates and unassigned code
    points become escapes such as ``\x1b``; line breaks stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if _is_shown(letter) else _escaped(letter) for letter in text)


def _is_shown(letter: str) -> bool:
    return letter == "\n" or letter.isprintable() or unicodedata.category(letter) in _HARMLESS


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
