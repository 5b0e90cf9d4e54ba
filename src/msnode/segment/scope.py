"""Whether a series lies inside what a bundle has seen in training; outside it, a result says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

    from msnode.domain import Grid
    from msnode.segment.bundle import Scope

_PLANES = ("sagittal", "coronal", "axial")  # by the patient axis (x, y, z in LPS) closest to the slice axis
_FIELD_TOLERANCE_T = 0.2


def acquisition_plane(grid: Grid) -> str:
    """The anatomical plane closest to the slices of a grid."""
    return _PLANES[int(np.argmax(np.abs(grid.affine[:3, 0]) / grid.spacing[0]))]


def outside_scope(scope: Scope, grid: Grid, header: Dataset) -> tuple[str, ...]:
    """What of an acquisition the model has not seen, one sentence each; empty inside its scope.

    Args:
        scope: what the bundle declares.
        grid: the source grid.
        header: of any instance; an attribute that is missing gives no sentence, since nothing is known.
    """
    found = []
    plane = acquisition_plane(grid)
    if scope.plane not in {"any", plane}:
        found.append(f"{plane} acquisition; the model was trained on {scope.plane} slices")
    distance, (low, high) = grid.spacing[0], scope.slice_distance_mm
    if not low <= distance <= high:
        found.append(f"slice distance {distance:.1f} mm; the model was trained on {low:g} to {high:g} mm")
    field = _number(header, "MagneticFieldStrength")
    if field is not None and all(abs(field - seen) > _FIELD_TOLERANCE_T for seen in scope.field_strength_t):
        seen = ", ".join(f"{t:g}" for t in scope.field_strength_t)
        found.append(f"field strength {field:g} T; the model was trained on {seen} T")
    vendor = str(header.get("Manufacturer") or "").strip()
    if vendor and not any(known.casefold() in vendor.casefold() for known in scope.manufacturers):
        found.append(f"a scanner's manufacturer that the model was not trained on ({_known(scope)} only)")
    return tuple(f"Outside the model's scope: {text}." for text in found)


def _known(scope: Scope) -> str:
    return ", ".join(scope.manufacturers)


def _number(header: Dataset, keyword: str) -> float | None:
    try:
        return float(header.get(keyword))
    except (TypeError, ValueError):
        return None
