"""What headers promise of a stack, compared with what came.

A stack can be even and parallel and still lack every second slice, its ends or a part that never arrived.
Where what lacks makes a number wrong, the series is refused; where the header may mean something else, the
report says what differs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.header import integer, text
from msnode.dicom.planes import frame_count, planes_of
from msnode.errors import NotAVolume
from msnode.series.stack import arrange

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydicom import Dataset

    from msnode.domain.imaging import Series
    from msnode.series.stack import Stack

_SAME_STEP = 0.05
"""Relative: Spacing Between Slices is often rounded."""

_WIDE_GAP = 1.5
"""Step over Slice Thickness from which a reader should know: gaps of 10 to 30 % are usual."""

_CLOSER = 0.8
"""Share of step and thickness under which slices that lie between others overlap them."""

_PROMISED_IMAGES = ("ImagesInAcquisition", "NumberOfSlices", "NumberOfSeriesRelatedInstances")


def check_promises(series: Series, stack: Stack) -> tuple[str, ...]:
    """Compare a stack with what its own headers promise.

    Returns:
        One sentence for each promise that was not kept and that may mean something else.

    Raises:
        NotAVolume: parts of a concatenation or slices of the stack are missing.
    """
    headers = [instance.header for instance in series.instances]
    _whole_concatenations(headers)
    return _step(stack) + _image_count(headers, len(stack.planes))


def _whole_concatenations(headers: Iterable[Dataset]) -> None:
    """Every part is there, by number, total and frame offset (PS3.3 C.7.6.16.1)."""
    concatenations: defaultdict[str, dict[int, Dataset]] = defaultdict(dict)
    for header in headers:
        uid, part = text(header, "ConcatenationUID"), integer(header, "InConcatenationNumber")
        if uid and part is None:
            raise NotAVolume("no In-concatenation Number (0020,9162): whether parts are missing is unknown")
        if uid and part is not None:
            concatenations[uid][part] = header
    for parts in concatenations.values():
        total = max([*parts, *(integer(h, "InConcatenationTotalNumber") or 0 for h in parts.values())])
        if sorted(parts) != list(range(1, total + 1)):
            raise NotAVolume(f"{len(parts)} of {total} parts of a concatenation came: all are needed")
        expected = 0
        for _, header in sorted(parts.items()):
            offset = integer(header, "ConcatenationFrameOffsetNumber")
            if offset is not None and offset != expected:
                raise NotAVolume(
                    f"frames are missing: a part of a concatenation begins at frame {offset + 1}, where frame"
                    f" {expected + 1} is next"
                )
            expected += frame_count(header)


def _step(stack: Stack) -> tuple[str, ...]:
    """Spacing Between Slices is centre to centre; some systems write the gap between slices instead."""
    step = float(np.linalg.norm(stack.step))
    stated = {abs(p.stated_step_mm) for p in stack.planes if p.stated_step_mm}
    thickness = _thickness(stack)
    for spacing in sorted(stated):
        times = round(step / spacing)
        if abs(step - spacing) <= _SAME_STEP * spacing:
            continue
        multiple = times > 1 and abs(step - times * spacing) <= _SAME_STEP * spacing
        if multiple and spacing >= thickness * (1 - _SAME_STEP):
            raise NotAVolume(
                f"slices are missing: {step:.2f} mm from slice to slice where Spacing Between Slices"
                f" (0018,0088) says {spacing:.2f} mm"
            )
        if abs(step - spacing - thickness) > _SAME_STEP * step:
            return (_doubt(step, f"Spacing Between Slices (0018,0088) says {spacing:.2f} mm"),)
    if not stated and thickness and step > _WIDE_GAP * thickness:
        return (_doubt(step, f"Slice Thickness (0018,0050) is {thickness:.2f} mm"),)
    return ()


def _doubt(step: float, promise: str) -> str:
    return f"slices lie {step:.2f} mm apart, {promise}: slices may be missing"


def _image_count(headers: Sequence[Dataset], slices: int) -> tuple[str, ...]:
    for keyword in _PROMISED_IMAGES:
        promised = max((integer(header, keyword) or 0 for header in headers), default=0)
        if promised > slices:
            return (
                f"{slices} slices came where {keyword} says {promised}: a part of the brain may be missing",
            )
    return ()


def check_siblings(series: Series, stack: Stack, study: Sequence[Series]) -> None:
    """Look for another series that continues the stack or lies between its slices.

    Raises:
        NotAVolume: there is one, with the same contrast, matrix and Frame of Reference.
    """
    mine = series.instances[0].header
    for other in study:
        if other.series_instance_uid == series.series_instance_uid or not _alike(mine, other):
            continue
        try:
            more = [plane for instance in other.instances for plane in planes_of(instance)]
            joined = arrange([*stack.planes, *more])
        except NotAVolume:
            continue
        if _overlap(stack, joined):
            continue
        raise NotAVolume(
            f"{len(stack.planes)} of {len(joined.planes)} slices of one stack: series"
            f" {other.series_instance_uid} has the others; send them as one series"
        )


def _overlap(stack: Stack, joined: Stack) -> bool:
    """Whether slices between those of the stack would overlap them: then they are another acquisition."""
    step, thickness = float(np.linalg.norm(joined.step)), _thickness(stack)
    return step < _CLOSER * float(np.linalg.norm(stack.step)) and step < _CLOSER * thickness


def _thickness(stack: Stack) -> float:
    """The largest Slice Thickness (0018,0050), mm; 0 where none is stated."""
    return max((p.thickness_mm for p in stack.planes if p.thickness_mm), default=0.0)


def _alike(mine: Dataset, other: Series) -> bool:
    theirs = other.instances[0].header
    same = ("Modality", "SOPClassUID", "FrameOfReferenceUID", "Rows", "Columns")
    return all(text(mine, keyword) == text(theirs, keyword) for keyword in same)
