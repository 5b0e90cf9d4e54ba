"""Reads of an encoded data set what the record needs, without decoding pixels."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from io import BytesIO
from mmap import mmap
from typing import TYPE_CHECKING, BinaryIO, cast

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import ImplicitVRLittleEndian

from msnode.dicom.header import MALFORMED, is_valid_uid, numbers, patient_key, text
from msnode.dicom.planes import frame_count
from msnode.dicom.uids import is_own
from msnode.domain.arrivals import Arrival
from msnode.errors import NotReadable
from msnode.receive.elements import ElementCount, part_of_header

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from msnode.domain.arrivals import AssociationFacts
    from msnode.receive.request import Data

_CS_LENGTH, _MOST_FRAMES = 16, 2**31 - 1
_NOT_A_DATA_SET = (*MALFORMED, InvalidDicomError)
_FIRST_PIXEL_TAG = 0x7FE00008  # Float Pixel Data; Pixel Data is (7FE0,0010)
_FILED = frozenset({
    0x00080005, 0x00080016, 0x00080018, 0x00080060, 0x00100020, 0x00100021, 0x0018A001, 0x0020000D,
    0x0020000E, 0x00200032, 0x00200037, 0x00280008,
})  # fmt: skip
"""Tags that `_arrival` reads, and Specific Character Set."""
_UNDEFINED = 0xFFFFFFFF
_MOST_ITEMS = 2**20  # of encapsulated pixel data; a frame takes one or a few
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_PADDING = {  # an empty Data Set Trailing Padding (FFFC,FFFC); key: whether VRs are implicit
    True: b"\xfc\xff\xfc\xff\x00\x00\x00\x00",
    False: b"\xfc\xff\xfc\xffOB\x00\x00\x00\x00\x00\x00",
}
_COSINE_TOLERANCE = 1e-2


def read_arrival(dataset_bytes: Data, transfer_syntax_uid: str, facts: AssociationFacts) -> Arrival:
    """Read the header of an encoded data set that an association brings.

    Args:
        dataset_bytes: the data set without file meta information.
        transfer_syntax_uid: a little endian transfer syntax.
        facts: the association.

    Raises:
        NotReadable: not a data set, truncated, or without valid study, series and instance UIDs.
    """
    implicit = transfer_syntax_uid == ImplicitVRLittleEndian
    try:
        header, end = _read_header(dataset_bytes, implicit=implicit)
        arrival = _arrival(header, transfer_syntax_uid, facts)
    except _NOT_A_DATA_SET as error:
        raise NotReadable("data set cannot be parsed") from error
    _check_uids(arrival)
    if not _pixel_data_complete(dataset_bytes, end, implicit=implicit):
        raise NotReadable("data set is cut off")
    return arrival


def read_stored_arrival(path: Path, facts: AssociationFacts) -> Arrival:
    """The arrival that a file of the spool holds; see `read_arrival`.

    Raises:
        NotReadable: the file is not one that the spool wrote.
    """
    try:
        header = dcmread(path, stop_before_pixels=True)
        arrival = _arrival(header, str(header.file_meta.TransferSyntaxUID), facts)
    except _NOT_A_DATA_SET as error:
        raise NotReadable("stored file cannot be parsed") from error
    _check_uids(arrival)
    return arrival


def _check_uids(arrival: Arrival) -> None:
    for name, uid in (
        ("Study", arrival.study_instance_uid),
        ("Series", arrival.series_instance_uid),
        ("SOP", arrival.sop_instance_uid),
    ):
        if not is_valid_uid(uid):
            raise NotReadable(f"{name} Instance UID is missing or invalid")


def _read_header(data: Data, *, implicit: bool) -> tuple[Dataset, int]:
    """The elements before pixel data, at least those of `_FILED`, and the offset at which all of them end."""
    part = part_of_header(data, _FILED, _FIRST_PIXEL_TAG, implicit=implicit)
    if part is not None:
        return read_dataset(BytesIO(part.wanted), implicit, is_little_endian=True), part.end
    # pydicom may still be able to read an unusual encoding.
    header, end = _read_unusual(data if isinstance(data, mmap) else BytesIO(data), implicit=implicit)
    if end < len(data):
        return header, end
    # No pixel data: did the last element end here, or was it truncated?
    if isinstance(data, mmap):
        raise NotReadable("an unusual encoding, large and without pixel data")
    _, end = _read_unusual(BytesIO(data + _PADDING[implicit]), implicit=implicit)
    return header, end


def _read_unusual(stream: BytesIO | mmap, *, implicit: bool) -> tuple[Dataset, int]:
    count = ElementCount()

    def is_pixel_data(tag: int, _vr: str | None, _length: int) -> bool:
        count.add()
        return tag >= _FIRST_PIXEL_TAG

    header = read_dataset(cast("BinaryIO", stream), implicit, is_little_endian=True, stop_when=is_pixel_data)
    return header, stream.tell()


def _arrival(header: Dataset, transfer_syntax_uid: str, facts: AssociationFacts) -> Arrival:
    return Arrival(
        sop_class_uid=text(header, "SOPClassUID").strip(),
        sop_instance_uid=text(header, "SOPInstanceUID").strip(),
        series_instance_uid=text(header, "SeriesInstanceUID").strip(),
        study_instance_uid=text(header, "StudyInstanceUID").strip(),
        transfer_syntax_uid=transfer_syntax_uid,
        modality=text(header, "Modality").strip()[:_CS_LENGTH],
        patient_key=patient_key(header),
        slice_position_mm=_slice_position(header),
        frame_count=min(frame_count(header), _MOST_FRAMES),
        own=is_own(header),
        association_id=facts.association_id,
        received_at=datetime.now(UTC),
    )


def _slice_position(header: Dataset) -> float | None:
    """Image Position projected on row x column direction, mm (PS3.3 C.7.6.2.1.1)."""
    position = numbers(header, "ImagePositionPatient", 3)
    orientation = numbers(header, "ImageOrientationPatient", 6)
    if position is None or orientation is None or frame_count(header) > 1:
        return None
    (a, b, c), (d, e, f) = orientation[:3].tolist(), orientation[3:].tolist()
    normal = b * f - c * e, c * d - a * f, a * e - b * d
    if abs(math.hypot(*normal) - 1) > _COSINE_TOLERANCE:
        return None
    return float(sum(x * y for x, y in zip(position.tolist(), normal, strict=True)))


def _pixel_data_complete(data: Data, offset: int, *, implicit: bool) -> bool:
    """Whether the pixel data element at `offset` ends inside `data`; True if there is none.

    An `offset` past the end means that the last element is truncated. Encapsulated pixel data is a sequence
    of items up to a delimiter (PS3.5 A.4).
    """
    if offset >= len(data):
        return offset == len(data)
    try:
        header = 8 if implicit else 12  # explicit VR: OB and OW have two reserved bytes and a long length
        (length,) = struct.unpack_from("<L", data, offset + header - 4)
        offset += header
        if length != _UNDEFINED:
            return offset + int(length) <= len(data)
        for _ in range(_MOST_ITEMS):
            group, element, length = struct.unpack_from("<HHL", data, offset)
            if (group, element) == _SEQUENCE_END:
                return True
            if (group, element) != _ITEM:
                return False
            offset += 8 + int(length)
    except struct.error:
        pass
    return False
