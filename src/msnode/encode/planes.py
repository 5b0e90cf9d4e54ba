"""Where a source plane lies, as its header says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msnode.dicom.header import number, texts
from msnode.dicom.planes import functional_group, is_enhanced

if TYPE_CHECKING:
    from pydicom import Dataset

    from msnode.domain.imaging import Frame


@dataclass(frozen=True)
class Plane:
    """Position and orientation of one plane (PS3.3 C.7.6.2.1.1), the numbers that the header holds.

    Attributes:
        position: LPS mm, centre of the first voxel.
        orientation: direction cosines of the row, then of the column.
        spacing: distance between rows, then between columns, mm.
        thickness: Slice Thickness, mm; None where the header has none.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float | None


def plane_of(frame: Frame) -> Plane:
    """Read the plane of a source frame, classic (at the root) or Enhanced (in functional groups).

    Position, orientation and spacing are there: the loader of the volume has checked them.
    """
    return Plane(
        position=_floats(_place(frame, "PlanePositionSequence"), "ImagePositionPatient"),
        orientation=_floats(_place(frame, "PlaneOrientationSequence"), "ImageOrientationPatient"),
        spacing=_floats(_place(frame, "PixelMeasuresSequence"), "PixelSpacing"),
        thickness=_thickness(frame),
    )


def _place(frame: Frame, group: str) -> Dataset | None:
    """Where the attributes of a functional group stand: an Enhanced image's group, else the root."""
    header = frame.instance.header
    return functional_group(header, frame.frame_number - 1, group) if is_enhanced(header) else header


def _floats(place: Dataset | None, keyword: str) -> tuple[float, ...]:
    return tuple(map(float, texts(place, keyword)))


def _thickness(frame: Frame) -> float | None:
    """Slice Thickness where it is a positive number: it plays no part in the geometry of the grid."""
    thickness = number(_place(frame, "PixelMeasuresSequence"), "SliceThickness")
    return thickness if thickness is not None and thickness > 0 else None
