"""Arranges planes as one regular stack. Each geometric invariant of a volume is a check of its own."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msnode.errors import NotAVolume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from msnode.dicom.planes import Plane

MIN_SLICES = 3
"""With fewer slices, the regularity of their distance cannot be checked."""

_COSINE_TOLERANCE = 1e-3  # direction cosines are often written with three or four decimals
_SPACING_TOLERANCE = 1e-4  # relative
_SAME_PLACE_MM = 0.05
# unevenness allowed between slices: 1 % of the step, or 0.1 mm, but never over 5 % of the step
_EVEN_RELATIVE, _EVEN_MM, _EVEN_CAP = 0.01, 0.1, 0.05
_SAME_CONTRAST = 0.01  # relative; scanners round times, and write what was played out
_MAY_DIFFER = {"StackID", "TemporalPositionIndex", "TemporalPositionIdentifier"}
_LISTED = 5


@dataclass(frozen=True, eq=False)
class Stack:
    """Parallel, evenly spaced planes.

    Attributes:
        planes: ordered along the normal, row direction x column direction.
        origin: centre of the first voxel of the first plane, LPS mm.
        step: from one plane to the next, LPS mm.
        along_row: unit vector in which the column index grows, LPS.
        along_column: unit vector in which the row index grows, LPS.
        spacing: distance between rows, between columns, mm.
        rescale: slope and intercept of each plane, in their order.
    """

    planes: tuple[Plane, ...]
    origin: NDArray[np.float64]
    step: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    spacing: NDArray[np.float64]
    rescale: tuple[tuple[float, float], ...]


def arrange(planes: Sequence[Plane]) -> Stack:
    """Order planes along their normal, and check that they form one regular stack of one contrast.

    Raises:
        NotAVolume: names the invariant that is violated, and what is needed.
    """
    _enough_slices(planes)
    along_row, along_column = _one_orientation(planes)
    spacing = _one_pixel_spacing(planes)
    positions = _positions(planes)
    normal = np.cross(along_row, along_column)
    normal /= np.linalg.norm(normal)
    depths = positions @ normal
    order = np.argsort(depths, kind="stable")
    ordered, positions, depths = [planes[i] for i in order], positions[order], depths[order]
    _one_slice_a_place(ordered, depths)
    _one_contrast(ordered)
    _even_steps(depths)
    _steps_along_normal(positions, normal)
    return Stack(
        planes=tuple(ordered),
        origin=positions[0],
        step=(positions[-1] - positions[0]) / (len(ordered) - 1),
        along_row=along_row,
        along_column=along_column,
        spacing=spacing,
        rescale=_applicable_rescale(ordered),
    )


def _enough_slices(planes: Sequence[Plane]) -> None:
    if len(planes) < MIN_SLICES:
        noun = "slice" if len(planes) == 1 else "slices"
        raise NotAVolume(f"{len(planes)} {noun}: a volume needs at least {MIN_SLICES}")


def _one_orientation(planes: Sequence[Plane]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = [plane.orientation for plane in planes]
    present = [o for o in found if o is not None]
    if len(present) < len(found):
        raise NotAVolume(
            f"{len(found) - len(present)} of {len(found)} slices have no Image Orientation (Patient):"
            " six numbers are needed"
        )
    for orientation in present:
        row, column = orientation[:3], orientation[3:]
        lengths = np.linalg.norm(row), np.linalg.norm(column)
        if (
            max(abs(length - 1) for length in lengths) > _COSINE_TOLERANCE
            or abs(row @ column) > _COSINE_TOLERANCE
        ):
            raise NotAVolume(
                f"Image Orientation (Patient) has lengths {lengths[0]:.4f} and {lengths[1]:.4f} and product"
                f" {row @ column:.4f}: two perpendicular unit vectors are needed"
            )
    others = sum(bool(np.abs(o - present[0]).max() > _COSINE_TOLERANCE) for o in present)
    if others:
        raise NotAVolume(
            f"mixed orientations: {others} of {len(present)} slices do not lie parallel to the first"
        )
    mean = np.mean(present, axis=0)
    along_row = mean[:3] / np.linalg.norm(mean[:3])
    along_column = mean[3:] - (mean[3:] @ along_row) * along_row
    return along_row, along_column / np.linalg.norm(along_column)


def _one_pixel_spacing(planes: Sequence[Plane]) -> NDArray[np.float64]:
    found = [plane.spacing for plane in planes]
    present = [s for s in found if s is not None]
    if len(present) < len(found):
        raise NotAVolume(
            f"{len(found) - len(present)} of {len(found)} slices have no Pixel Spacing: nothing is assumed"
        )
    first = present[0]
    if min(float(s.min()) for s in present) <= 0:
        raise NotAVolume("Pixel Spacing is not positive: millimetres between rows and columns are needed")
    if max(float(np.abs(s / first - 1).max()) for s in present) > _SPACING_TOLERANCE:
        raise NotAVolume("Pixel Spacing differs between slices: all slices need one")
    return first


def _positions(planes: Sequence[Plane]) -> NDArray[np.float64]:
    present = [plane.position for plane in planes if plane.position is not None]
    if len(present) < len(planes):
        raise NotAVolume(
            f"{len(planes) - len(present)} of {len(planes)} slices have no Image Position (Patient):"
            " three numbers are needed"
        )
    return np.array(present)


def _applicable_rescale(ordered: Sequence[Plane]) -> tuple[tuple[float, float], ...]:
    applicable = tuple(plane.rescale for plane in ordered if plane.rescale is not None)
    if len(applicable) < len(ordered):
        raise NotAVolume(
            f"{len(ordered) - len(applicable)} of {len(ordered)} slices state a rescale that cannot be"
            " applied: Rescale Slope (0028,1053), not 0, and Intercept (0028,1052) must be one number each,"
            " without a Modality LUT"
        )
    rescaled = sum(plane.rescaled for plane in ordered)
    if 0 < rescaled < len(ordered):
        raise NotAVolume(
            f"{rescaled} of {len(ordered)} slices state a rescale (0028,1053) and the others none:"
            " all slices need one scale"
        )
    return applicable


def _one_slice_a_place(ordered: Sequence[Plane], depths: NDArray[np.float64]) -> None:
    same = np.flatnonzero(np.diff(depths) < _SAME_PLACE_MM)
    if not len(same):
        return
    first, second = ordered[same[0]], ordered[same[0] + 1]
    differs = [name for (name, a), (_, b) in zip(first.contrast, second.contrast, strict=False) if a != b]
    why = f"; they differ in {', '.join(differs)}" if differs else ""
    raise NotAVolume(
        f"two slices at one place ({len(same)} times, first at {depths[same[0]]:.2f} mm along"
        f" the normal){why}: one is needed"
    )


def _one_contrast(ordered: Sequence[Plane]) -> None:
    """Times, sequence, kind of image and unit agree; what the other slices state may not be absent."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for plane in ordered:
        for keyword, stated in plane.contrast:
            if keyword not in _MAY_DIFFER:
                values[keyword].append(_of_contrast(keyword, stated))
    others: set[int] = set()
    names = []
    for keyword, found in values.items():
        usual = max(found, key=found.count)
        differing = {k + 1 for k, each in enumerate(found) if not _agree(each, usual)}
        others |= differing
        names += [keyword] if differing else []
    if names:
        listed = ", ".join(map(str, sorted(others)[:_LISTED])) + (", …" if len(others) > _LISTED else "")
        raise NotAVolume(
            f"several contrasts in one stack: {len(others)} of {len(ordered)} slices ({listed}) differ from"
            f" the others in {', '.join(names)}"
        )


def _of_contrast(keyword: str, stated: str) -> str:
    """What of an attribute tells contrasts apart: of an Image Type the third value (PS3.3 C.7.6.1.1.2)."""
    if keyword == "ImageType":
        return "".join(stated.upper().split("\\")[2:3])
    return stated.upper()


def _agree(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        first, second = ([float(number) for number in each.split("\\")] for each in (one, other))
    except ValueError:
        return False
    return len(first) == len(second) and bool(np.allclose(first, second, rtol=_SAME_CONTRAST, atol=0))


def _even_steps(depths: NDArray[np.float64]) -> None:
    steps = np.diff(depths)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    tolerance = max(_EVEN_RELATIVE * usual, min(_EVEN_MM, _EVEN_CAP * usual))
    off = np.flatnonzero(np.abs(steps - usual) > tolerance)
    if not len(off):
        return
    k = off[0]
    what = "a slice is missing" if steps[k] > 1.5 * usual else "slices are unevenly spaced"
    raise NotAVolume(
        f"{what}: {steps[k]:.2f} mm between slices {k + 1} and {k + 2} (at {depths[k]:.2f} and"
        f" {depths[k + 1]:.2f} mm along the normal), {usual:.2f} mm elsewhere"
    )


def _steps_along_normal(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    steps = np.diff(positions, axis=0)
    along = steps @ normal
    aside = np.linalg.norm(steps - along[:, None] * normal, axis=1)
    usual = float(np.median(along))
    tolerance = max(_EVEN_RELATIVE * usual, min(_EVEN_MM, _EVEN_CAP * usual))
    if aside.max() > tolerance:
        angle = np.degrees(np.arctan2(float(np.median(aside)), usual))
        raise NotAVolume(
            f"sheared stack: slices shift {aside.max():.2f} mm sideways a step"
            f" (tilt about {angle:.1f} degrees); the step must lie along the normal"
        )
