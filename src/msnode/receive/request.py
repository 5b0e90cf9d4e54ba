"""A C-STORE request as it came in, and the response to it (PS3.7 9.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from msnode.errors import MsnodeError

if TYPE_CHECKING:
    from mmap import mmap

    Data = bytes | bytearray | mmap
    """An encoded data set, in memory or on disk."""

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
"""PS3.7 C.5.17."""
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
"""Statuses of C-STORE (PS3.4 Table B.2-1)."""


@dataclass(frozen=True)
class StoreRequest:
    """An instance that a peer asks to store. The UIDs are what the command says, unchecked.

    Attributes:
        transfer_syntax_uid: of the presentation context, which was negotiated.
        data: the encoded data set; None if there was no room for it in memory or on disk.
        file: what `data` maps, if it is on disk. It has no name and is closed when the request is answered.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: Data | None
    file: BinaryIO | None = None


@dataclass(frozen=True)
class Answer:
    """A C-STORE response: status, and Error Comment (0000,0902) of at most 64 characters."""

    status: int
    comment: str = ""


class Refused(MsnodeError):
    """Ends the handling of one instance with this answer. The comment is ours and names no patient."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.comment)
        self.answer = answer
