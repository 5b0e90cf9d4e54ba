"""Where a source plane lies, as its header says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        position=_numbers(_find(frame, "PlanePositionSequence", "ImagePositionPatient")),
        orientation=_numbers(_find(frame, "PlaneOrientationSequence", "ImageOrientationPatient")),
        spacing=_numbers(_find(frame, "PixelMeasuresSequence", "PixelSpacing")),
        thickness=_thickness(frame),
    )


def _find(frame: Frame, group: str, keyword: str) -> Any:
    """The attribute in the frame's own functional group, else in the shared one, else at the root."""
    header = frame.instance.header
    places = []
    if is_enhanced(frame):
        places.append(header.PerFrameFunctionalGroupsSequence[frame.frame_number - 1])
        places.extend(header.get("SharedFunctionalGroupsSequence") or [])
    for place in places:
        items = place.get(group) or []
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return header.get(keyword)


def is_enhanced(frame: Frame) -> bool:
    """Whether the source instance is a multi-frame image with functional groups (PS3.3 C.7.6.16)."""
    return "PerFrameFunctionalGroupsSequence" in frame.instance.header


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _thickness(frame: Frame) -> float | None:
    """Slice Thickness where it is a positive number: it plays no part in the geometry of the grid."""
    try:
        thickness = float(_find(frame, "PixelMeasuresSequence", "SliceThickness"))
    except (TypeError, ValueError):
        return None
    return thickness if 0 < thickness < math.inf else None
