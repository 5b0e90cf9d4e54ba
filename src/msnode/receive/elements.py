"""Finds elements in an encoded data set (PS3.5 7) without decoding them.

pydicom creates an object for each of some hundred elements, which takes longer than storing the instance.
The receiver needs a dozen of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msnode.errors import NotReadable

if TYPE_CHECKING:
    from collections.abc import Collection

    from msnode.receive.request import Data

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
_DEEPEST, _MOST_ELEMENTS = 16, 2**20


class ElementCount:
    """Counts the elements of one data set, because walking through a gigabyte of empty ones takes minutes."""

    def __init__(self) -> None:
        self._left = _MOST_ELEMENTS

    def add(self) -> None:
        """Count one.

        Raises:
            NotReadable: that is too many.
        """
        self._left -= 1
        if self._left < 0:
            raise NotReadable(f"more than {_MOST_ELEMENTS} elements")


@dataclass(frozen=True)
class PartOfHeader:
    """Part of a data set.

    Attributes:
        wanted: the wanted elements, encoded as they were.
        end: offset at which the elements before `stop` end.
    """

    wanted: bytes
    end: int


def part_of_header(data: Data, wanted: Collection[int], stop: int, *, implicit: bool) -> PartOfHeader | None:
    """The `wanted` elements among those before the first whose tag is `stop` or higher.

    Args:
        data: an encoded data set, little endian.
        wanted: tags of the elements to find.
        stop: the tag before which to stop.
        implicit: whether value representations are implicit.

    Returns:
        None if the encoding violates the standard, or ends inside an element before `stop`.

    Raises:
        NotReadable: too many elements.
    """
    found, offset, count = [], 0, ElementCount()
    try:
        while offset < len(data):
            group, element = _IMPLICIT.unpack_from(data, offset)[:2]
            tag = group << 16 | element
            if tag >= stop:
                break
            end = _element_end(data, offset, count, implicit=implicit, depth=0)
            if end > len(data):
                return None
            if tag in wanted:
                found.append(data[offset:end])
            offset = end
    except (struct.error, ValueError):
        return None
    return PartOfHeader(b"".join(found), offset)


def _element_end(data: Data, offset: int, count: ElementCount, *, implicit: bool, depth: int) -> int:
    """Offset at which the element at `offset` ends.

    Raises:
        ValueError, struct.error: the encoding violates the standard.
        NotReadable: too many elements.
    """
    count.add()
    if implicit:
        length = _IMPLICIT.unpack_from(data, offset)[2]
        offset += _IMPLICIT.size
    else:
        _, _, vr, length = _EXPLICIT.unpack_from(data, offset)
        offset += _EXPLICIT.size
        if vr in _SHORT_LENGTH:
            return offset + int(length)
        if vr not in _LONG_LENGTH:
            raise ValueError("not a value representation")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        if length == _UNDEFINED and vr not in {b"SQ", b"UN"}:
            raise ValueError("a value of undefined length")
        implicit = vr == b"UN"  # its content has implicit VR (PS3.5 6.2.2)
    if length != _UNDEFINED:
        return offset + int(length)
    return _sequence_end(data, offset, count, implicit=implicit, depth=depth + 1)


def _sequence_end(data: Data, offset: int, count: ElementCount, *, implicit: bool, depth: int) -> int:
    """Offset at which a sequence of undefined length ends whose first item is at `offset` (PS3.5 7.5)."""
    if depth > _DEEPEST:
        raise ValueError("sequences nested too deeply")
    while True:
        count.add()
        group, element, length = _IMPLICIT.unpack_from(data, offset)
        tag = group << 16 | element
        offset += _IMPLICIT.size
        if tag == _SEQUENCE_END:
            return offset
        if tag != _ITEM:
            raise ValueError("not an item")
        if length != _UNDEFINED:
            offset += length
            continue
        while _IMPLICIT.unpack_from(data, offset)[:2] != divmod(_ITEM_END, 1 << 16):
            offset = _element_end(data, offset, count, implicit=implicit, depth=depth)
        offset += _IMPLICIT.size
