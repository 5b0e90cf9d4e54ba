"""Where the elements of an encoded data set lie (PS3.5 7), without decoding them.

pydicom makes an object of each of some hundred elements, which takes longer than storing the instance; a
dozen of them are looked at.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_EXPLICIT = struct.Struct("<HH2sH")  # group, element, VR, length or nothing
_IMPLICIT = struct.Struct("<HHL")
_LENGTH = struct.Struct("<L")
_SHORT_LENGTH = frozenset({
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
    b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
})  # fmt: skip
_LONG_LENGTH = frozenset({
    b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV",
})  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEEPEST = 16


@dataclass(frozen=True)
class PartOfHeader:
    """Some elements of a data set, encoded as they were, and where the elements before `stop` end."""

    wanted: bytes
    end: int


def part_of_header(data: bytes, wanted: Collection[int], stop: int, *, implicit: bool) -> PartOfHeader | None:
    """The `wanted` elements among those before the first whose tag is `stop` or higher.

    Args:
        data: an encoded data set, little endian.
        wanted: tags.
        stop: a tag.
        implicit: whether the value representations are.

    Returns:
        None where it is not written as the standard says, or is cut off before `stop`.
    """
    found, offset = [], 0
    try:
        while offset < len(data):
            group, element = _IMPLICIT.unpack_from(data, offset)[:2]
            tag = group << 16 | element
            if tag >= stop:
                break
            end = _element_end(data, offset, implicit=implicit, depth=0)
            if end > len(data):
                return None
            if tag in wanted:
                found.append(data[offset:end])
            offset = end
    except (struct.error, ValueError):
        return None
    return PartOfHeader(b"".join(found), offset)


def _element_end(data: bytes, offset: int, *, implicit: bool, depth: int) -> int:
    """Where the element at `offset` ends.

    Raises:
        ValueError, struct.error: nobody can say.
    """
    if implicit:
        length = _IMPLICIT.unpack_from(data, offset)[2]
        offset += _IMPLICIT.size
    else:
        _, _, vr, length = _EXPLICIT.unpack_from(data, offset)
        offset += _EXPLICIT.size
        if vr in _SHORT_LENGTH:
            return offset + int(length)
        if vr not in _LONG_LENGTH:
            raise ValueError("no value representation")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        if length == _UNDEFINED and vr not in {b"SQ", b"UN"}:
            raise ValueError("a value without an end")
        implicit = vr == b"UN"  # what is in it is (PS3.5 6.2.2)
    if length != _UNDEFINED:
        return offset + int(length)
    return _sequence_end(data, offset, implicit=implicit, depth=depth + 1)


def _sequence_end(data: bytes, offset: int, *, implicit: bool, depth: int) -> int:
    """Where a sequence of undefined length ends whose first item begins at `offset` (PS3.5 7.5)."""
    if depth > _DEEPEST:
        raise ValueError("sequences in sequences")
    while True:
        group, element, length = _IMPLICIT.unpack_from(data, offset)
        tag = group << 16 | element
        offset += _IMPLICIT.size
        if tag == _SEQUENCE_END:
            return offset
        if tag != _ITEM:
            raise ValueError("no item")
        if length != _UNDEFINED:
            offset += length
            continue
        while _IMPLICIT.unpack_from(data, offset)[:2] != divmod(_ITEM_END, 1 << 16):
            offset = _element_end(data, offset, implicit=implicit, depth=depth)
        offset += _IMPLICIT.size
