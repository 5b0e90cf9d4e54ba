"""Specific Character Set (0008,0005): the terms that the standard defines, and text that can be stored.

pydicom takes a term that it does not know for the name of a Python codec. Some of those make text that no
database or file can hold, such as lone surrogates.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT = "iso8859"
_SINGLE_BYTE = {
    "13": "shift_jis", "100": "latin_1", "101": "iso8859_2", "109": "iso8859_3", "110": "iso8859_4",
    "126": "iso_ir_126", "127": "iso_ir_127", "138": "iso_ir_138", "144": "iso_ir_144", "148": "iso_ir_148",
    "166": "iso_ir_166", "203": "iso8859_15",
}  # fmt: skip
_MULTI_BYTE = {"58": "iso_ir_58", "87": "iso2022_jp", "149": "euc_kr", "159": "iso2022_jp_2"}
CODEC_OF_TERM: Mapping[str, str] = MappingProxyType(
    {f"ISO_IR {number}": codec for number, codec in _SINGLE_BYTE.items()}
    | {f"ISO 2022 IR {number}": codec for number, codec in (_SINGLE_BYTE | _MULTI_BYTE).items()}
    | {"ISO 2022 IR 6": _DEFAULT, "ISO_IR 192": "UTF8", "GB18030": "GB18030", "GBK": "GBK"}
)
"""Defined Terms (PS3.3 C.12.1.1.2, Tables C.12-2 to C.12-5) → Python codec."""

_ASCII = {"", "ISO_IR 6", "ISO 2022 IR 6"}
"""First values under which text is ASCII. `ISO_IR 6` is no Defined Term, but plainly means the default."""
_MISSPELT = re.compile(r"ISO\D?(2022\D?)?IR\D?(\d{1,3})", re.IGNORECASE)
_CODECS = frozenset(CODEC_OF_TERM.values())
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class CodecOfAnyTerm(dict[str, str]):
    """The codec of any value that stands in a header; never one that the standard does not name."""

    def __missing__(self, term: object) -> str:
        """The codec of the term that was meant, if that is certain, else the one for ASCII.

        A codec is its own: pydicom converts some values twice.
        """
        if term in _CODECS:
            return str(term)
        return CODEC_OF_TERM.get(_meant(term), _DEFAULT)


def undefined_terms(values: tuple[str, ...]) -> tuple[str, ...]:
    """Those values of Specific Character Set that are not Defined Terms."""
    return tuple(v for v in values if v.strip() not in CODEC_OF_TERM and v.strip() not in _ASCII)


def declares_nothing(values: tuple[str, ...]) -> bool:
    """Whether the values leave bytes beyond ASCII without a meaning."""
    first = values[0].strip() if values else ""
    return first in _ASCII or (first not in CODEC_OF_TERM and _meant(first) not in CODEC_OF_TERM)


def storable(text: str) -> str:
    """Text as a database or a file takes it: without NUL, with `?` for each half of a surrogate pair."""
    if not _UNSTORABLE.search(text):
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _meant(term: object) -> str:
    """The Defined Term behind usual misspellings, such as `ISO-IR 100`; any other text as it is."""
    text = term.strip() if isinstance(term, str) else ""
    found = _MISSPELT.fullmatch(text)
    if found is None:
        return text
    return f"ISO 2022 IR {found[2]}" if found[1] else f"ISO_IR {found[2]}"
