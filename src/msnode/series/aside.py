"""Puts aside what is filed in a series but is no slice of its stack: scouts, screen captures, reformats.

Whatever is put aside is said. Slices that merely look odd stay, and the checks of the volume refuse them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.header import number, numbers, text, texts
from msnode.dicom.planes import is_enhanced
from msnode.dicom.uids import MR_IMAGE_CLASSES, sop_class_name

if TYPE_CHECKING:
    from msnode.domain.imaging import Instance, Series

DERIVED_TYPES = frozenset(
    {
        "MPR",
        "REFORMATTED",
        "MIP",
        "MIN IP",
        "PROJECTION IMAGE",
        "SUBTRACTION",
        "ADC",
        "MEAN",
        "AVERAGE",
        "CSA MPR",
    }
)
"""Values of Image Type (0008,0008) of images that are computed from others."""

PHASE_TYPES = frozenset({"P", "R", "I", "PHASE MAP", "REAL", "IMAGINARY", "PHASE", "PHASE_MAP"})
"""Values of Image Type (0008,0008) of images that do not show the magnitude."""

_NO_SLICE_TYPES = DERIVED_TYPES | PHASE_TYPES | {"LOCALIZER", "SECONDARY"}
_LEAST_STACK = 5
_MOST_REFERENCES = 3
"""So many images of another orientation or size are references to the stack; more are a second stack."""
_SAME_COSINE = 0.01


def without_strangers(series: Series) -> tuple[Series, tuple[str, ...]]:
    """The slices of a series' stack, and what was put aside, in words.

    Put aside are objects that are no MR images, images whose Image Type (0008,0008) says that they are no
    acquired magnitude image if the others' does not, and at most three images of another orientation or
    matrix. Nothing is put aside if fewer than five images would be left.
    """
    reasons = {id(i): reason for i in series.instances if (reason := _no_slice(i))}
    rest = [i for i in series.instances if id(i) not in reasons]
    stack = _largest(rest)
    if 0 < len(rest) - len(stack) <= _MOST_REFERENCES:
        members = set(map(id, stack))
        reasons |= {id(i): _ANOTHER_SHAPE for i in rest if id(i) not in members}
    kept = tuple(i for i in series.instances if id(i) not in reasons)
    if not reasons or not (len(kept) >= _LEAST_STACK or any(is_enhanced(i.header) for i in kept)):
        return series, ()
    said = Counter(reasons.values())
    remarks = tuple(
        f"{count} of {len(series.instances)} images of the series are put aside as no slices of it: {reason}"
        for reason, count in sorted(said.items())
    )
    return replace(series, instances=kept), remarks


_ANOTHER_SHAPE = "another orientation or matrix"


def _no_slice(instance: Instance) -> str:
    """How the header of one object says that it is no slice of an acquired stack; empty if it does not."""
    header = instance.header
    if text(header, "SOPClassUID") not in MR_IMAGE_CLASSES:
        return sop_class_name(text(header, "SOPClassUID"))
    named = {each.upper() for each in texts(header, "ImageType")} & _NO_SLICE_TYPES
    return f"Image Type {min(named)}" if named and not is_enhanced(header) else ""


def _largest(instances: list[Instance]) -> list[Instance]:
    """The instances of the commonest orientation and matrix; of two equally common, those that come first."""
    groups: list[list[Instance]] = []
    for instance in instances:
        same = next((g for g in groups if _same_shape(g[0], instance)), None)
        if same is None:
            groups.append([instance])
        else:
            same.append(instance)
    return max(groups, key=len, default=[])


def _same_shape(one: Instance, other: Instance) -> bool:
    if any(number(one.header, k) != number(other.header, k) for k in ("Rows", "Columns")):
        return False
    a, b = (numbers(i.header, "ImageOrientationPatient", 6) for i in (one, other))
    return (a is None and b is None) or (
        a is not None and b is not None and float(np.abs(a - b).max()) <= _SAME_COSINE
    )
