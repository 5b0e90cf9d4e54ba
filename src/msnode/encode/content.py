"""Content items of a structured report (PS3.3 C.17.3), each one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from msnode.encode.provenance import coded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.sr.coding import Code

CONTAINS = "CONTAINS"
CONTEXT = "HAS OBS CONTEXT"
MODIFIER = "HAS CONCEPT MOD"


def container(name: Code, children: Sequence[Dataset], *, template: str | None = None) -> Dataset:
    """A CONTAINER; `template` names the PS3.16 template that it follows."""
    item = _item("CONTAINER", name, CONTAINS)
    item.ContinuityOfContent = "SEPARATE"
    if template is not None:
        followed = Dataset()
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
    item.ConceptCodeSequence = [coded(value)]
    if children:
        item.ContentSequence = list(children)
    return item


def uidref(name: Code, value: str, relationship: str = CONTAINS) -> Dataset:
    """A UIDREF item."""
    item = _item("UIDREF", name, relationship)
    item.UID = value
    return item


def number(name: Code, value: float, unit: Code) -> Dataset:
    """A NUM item; a float is shown to a thousandth and carries its full precision in (0040,A161)."""
    measured = Dataset()
    measured.NumericValue = format_number_as_ds(round(value, 3)) if isinstance(value, float) else str(value)
    if isinstance(value, float):
        measured.FloatingPointValue = value
    measured.MeasurementUnitsCodeSequence = [coded(unit)]
    item = _item("NUM", name, CONTAINS)
    item.MeasuredValueSequence = [measured]
    return item


def segments(name: Code, segmentation: Dataset, numbers: Sequence[int]) -> Dataset:
    """An IMAGE item that references segments of a segmentation."""
    referenced = Dataset()
    referenced.ReferencedSOPClassUID = segmentation.SOPClassUID
    referenced.ReferencedSOPInstanceUID = segmentation.SOPInstanceUID
    referenced.ReferencedSegmentNumber = list(numbers)
    item = _item("IMAGE", name, CONTAINS)
    item.ReferencedSOPSequence = [referenced]
    return item


def _item(value_type: str, name: Code, relationship: str) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [coded(name)]
    return item
