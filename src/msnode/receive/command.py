"""Encodes and decodes C-STORE command sets (PS3.7 9.3.1), and encodes file meta information (PS3.10 7.1).

pydicom would take longer for these few values than it takes to store the instance.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

_STORE_RQ, _STORE_RSP = 0x0001, 0x8001
_NO_DATA_SET = 0x0101
_GROUP_LENGTH, _SOP_CLASS, _FIELD, _MESSAGE_ID = 0x0000, 0x0002, 0x0100, 0x0110
_RESPONDED_TO, _DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0120, 0x0800, 0x0900, 0x0902, 0x1000
_P_DATA, _LAST_COMMAND, _COMMAND = 0x04, 3, 1  # PS3.8 9.3.5, E.2
_COMMENT_LENGTH = 64


@dataclass(frozen=True)
class StoreCommand:
    """The command of a C-STORE request. Its UIDs are unchecked and may hold anything, at any length."""

    message_id: int
    sop_class: bytes
    sop_instance: bytes
    has_data_set: bool

    @property
    def sop_class_uid(self) -> str:
        """Affected SOP Class UID (0000,0002)."""
        return _text(self.sop_class)

    @property
    def sop_instance_uid(self) -> str:
        """Affected SOP Instance UID (0000,1000)."""
        return _text(self.sop_instance)

    def response(self, status: int, comment: str) -> bytes:
        """The command set of the response, with at most 64 characters of the comment (0000,0902)."""
        elements = [
            (_SOP_CLASS, _padded(self.sop_class)),
            (_FIELD, struct.pack("<H", _STORE_RSP)),
            (_RESPONDED_TO, struct.pack("<H", self.message_id)),
            (_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
            (_STATUS, struct.pack("<H", status)),
            *(
                [(_COMMENT, _padded(comment[:_COMMENT_LENGTH].encode("ascii", "replace"), b" "))]
                if comment
                else []
            ),
            (_SOP_INSTANCE, _padded(self.sop_instance)),
        ]
        body = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)
        return struct.pack("<HHLL", 0, _GROUP_LENGTH, 4, len(body)) + body


def store_command(command_set: bytes) -> StoreCommand | None:
    """Decode the command set of a C-STORE request; None for any other message.

    Raises:
        ValueError: not a command set, or a required element is missing.
    """
    try:
        elements = _elements(command_set)
        (field,) = struct.unpack("<H", elements[_FIELD])
        if field != _STORE_RQ:
            return None
        message_id, data_set_type = (
            struct.unpack("<H", elements[element])[0] for element in (_MESSAGE_ID, _DATA_SET_TYPE)
        )
        return StoreCommand(
            message_id, elements[_SOP_CLASS], elements[_SOP_INSTANCE], data_set_type != _NO_DATA_SET
        )
    except (struct.error, KeyError) as error:
        raise ValueError("not a command set") from error


def _elements(command_set: bytes) -> Mapping[int, bytes]:
    """Element number → value; implicit VR little endian, group 0000 alone (PS3.7 6.3.1)."""
    found, offset = {}, 0
    while offset < len(command_set):
        group, element, length = struct.unpack_from("<HHL", command_set, offset)
        offset += 8 + length
        if group or offset > len(command_set):
            raise ValueError("not a command set")
        found[element] = command_set[offset - length : offset]
    return found


def command_pdus(context_id: int, command_set: bytes, max_pdu_bytes: int) -> bytes:
    """P-DATA-TF PDUs with a command set (PS3.8 9.3.5).

    Args:
        context_id: presentation context ID.
        command_set: encoded.
        max_pdu_bytes: the peer's maximum PDU length; 0 is no limit.
    """
    most = max_pdu_bytes - 6 if max_pdu_bytes else len(command_set)
    pdus = []
    for begin in range(0, len(command_set), most):
        part = command_set[begin : begin + most]
        control = _LAST_COMMAND if begin + most >= len(command_set) else _COMMAND
        pdus.append(
            struct.pack(">BBLLBB", _P_DATA, 0, len(part) + 6, len(part) + 2, context_id, control) + part
        )
    return b"".join(pdus)


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """File meta information in Explicit VR Little Endian, from its group length on, without preamble."""
    elements = [
        (0x0001, b"OB\0\0" + struct.pack("<L", 2) + b"\0\1"),
        (0x0002, _short(b"UI", _padded(sop_class_uid.encode()))),
        (0x0003, _short(b"UI", _padded(sop_instance_uid.encode()))),
        (0x0010, _short(b"UI", _padded(transfer_syntax_uid.encode()))),
        (0x0012, _short(b"UI", _padded(PYNETDICOM_IMPLEMENTATION_UID.encode()))),
        (0x0013, _short(b"SH", _padded(PYNETDICOM_IMPLEMENTATION_VERSION.encode(), b" "))),
    ]
    body = b"".join(struct.pack("<HH", 2, element) + value for element, value in elements)
    return struct.pack("<HH", 2, 0) + _short(b"UL", struct.pack("<L", len(body))) + body


def _short(vr: bytes, value: bytes) -> bytes:
    return vr + struct.pack("<H", len(value)) + value


def _padded(value: bytes, pad: bytes = b"\0") -> bytes:
    return value + pad * (len(value) % 2)


def _text(uid: bytes) -> str:
    return uid.rstrip(b"\0 ").decode("ascii", "replace")
