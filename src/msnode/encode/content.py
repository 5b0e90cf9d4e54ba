"""Content items of a structured report (PS3.3 C.17.3), each one call."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import format_number_as_ds

from msnode.encode.provenance import coded, reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.sr.coding import Code

    from msnode.domain.imaging import Frame

CONTAINS = "CONTAINS"
CONTEXT = "HAS OBS CONTEXT"
MODIFIER = "HAS CONCEPT MOD"
SELECTED = "SELECTED FROM"

_NAME = Tag("ConceptNameCodeSequence")
_VALUE = Tag("ConceptCodeSequence")
_UNITS = Tag("MeasurementUnitsCodeSequence")
_SEQUENCE_HEADER = 12
"""Bytes of tag, VR and length before the items of a sequence (PS3.5 7.1.2)."""


def container(name: Code, children: Sequence[Dataset], *, template: str | None = None) -> Dataset:
    """A CONTAINER; `template` names the PS3.16 template that it follows."""
    item = _item("CONTAINER", name, CONTAINS)
    item.ContinuityOfContent = "SEPARATE"
    if template is not None:
        followed = _dataset()
        followed.MappingResource, followed.TemplateIdentifier = "DCMR", template
        item.ContentTemplateSequence = [followed]
    item.ContentSequence = list(children)
    return item


def text(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    """A TEXT item."""
    item = _item("TEXT", name, relationship)
    item.TextValue = value
    return item


def code(
    name: Code, value: Code, relationship: str = CONTAINS, *, children: Sequence[Dataset] = ()
) -> Dataset:
    """A CODE item."""
    item = _item("CODE", name, relationship)
    item[_VALUE] = _code_sequence(_VALUE, value)
    if children:
        item.ContentSequence = list(children)
    return item


def uidref(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    """A UIDREF item."""
    item = _item("UIDREF", name, relationship)
    item.UID = value
    return item


def number(name: Code, value: float, unit: Code, modifiers: Sequence[Dataset] = ()) -> Dataset:
    """A NUM item; a float is shown to a thousandth and carries its full precision in (0040,A161)."""
    measured = _dataset()
    measured.NumericValue = format_number_as_ds(round(value, 3)) if isinstance(value, float) else str(value)
    if isinstance(value, float):
        measured.FloatingPointValue = value
    measured[_UNITS] = _code_sequence(_UNITS, unit)
    item = _item("NUM", name, CONTAINS)
    item.MeasuredValueSequence = [measured]
    if modifiers:
        item.ContentSequence = list(modifiers)
    return item


def point_in_space(name: Code, position: tuple[float, float, float], frame_of_reference_uid: str) -> Dataset:
    """A SCOORD3D item with one POINT, LPS mm (PS3.3 C.18.9)."""
    item = _item("SCOORD3D", name, CONTAINS)
    item.GraphicType, item.GraphicData = "POINT", list(position)
    item.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    return item


def point_in_image(name: Code, column: float, row: float, frame: Frame) -> Dataset:
    """A SCOORD item with one POINT in a source plane (PS3.3 C.18.6).

    Args:
        name: what the point is.
        column: column index of the point, 0.0 at the centre of the first voxel.
        row: row index, likewise.
        frame: the plane.
    """
    item = _item("SCOORD", name, CONTAINS)
    item.GraphicType = "POINT"
    item.GraphicData = [column + 0.5, row + 0.5]  # counted from the outer corner of the first pixel
    image = _dataset()
    image.RelationshipType, image.ValueType = SELECTED, "IMAGE"
    image.ReferencedSOPSequence = [reference(frame)]
    item.ContentSequence = [image]
    return item


def segments(name: Code, segmentation: Dataset, numbers: Sequence[int]) -> Dataset:
    """An IMAGE item that references segments of a segmentation."""
    referenced = _dataset()
    referenced.ReferencedSOPClassUID = segmentation.SOPClassUID
    referenced.ReferencedSOPInstanceUID = segmentation.SOPInstanceUID
    referenced.ReferencedSegmentNumber = list(numbers)
    item = _item("IMAGE", name, CONTAINS)
    item.ReferencedSOPSequence = [referenced]
    return item


def written_as_is(ds: Dataset, encoding: str | list[str] = default_encoding) -> None:
    """Let `ds` be written with the elements that lie in it already encoded, explicit VR little endian."""
    ds.set_original_encoding(is_implicit_vr=False, is_little_endian=True, character_encoding=encoding)


def _dataset() -> Dataset:
    ds = Dataset()
    written_as_is(ds)
    return ds


@cache
def _code_sequence(tag: BaseTag, code: Code) -> RawDataElement:
    """A sequence of one code, already encoded.

    Codes are half of all items of a report, and few: encoded once each, 300 lesions take a third of the time.
    """
    holder = Dataset()
    holder.add_new(tag, "SQ", [coded(code)])
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, holder)
    value = buffer.getvalue()[_SEQUENCE_HEADER:]
    return RawDataElement(tag, "SQ", len(value), value, 0, is_implicit_VR=False, is_little_endian=True)


def _item(value_type: str, name: Code, relationship: str) -> Dataset:
    item = _dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item[_NAME] = _code_sequence(_NAME, name)
    return item
