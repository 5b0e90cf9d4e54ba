"""Whether a series lies inside what a bundle has seen in training: read, read with a warning, or refused.

What training did not see (plane, slice distance, field strength, manufacturer, age) is read and said.
Refused is only what would give a meaningless result: intensities that are no FLAIR's, or a "brain" of a size
that no brain has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np

from msnode.dicom.header import number, text
from msnode.domain.findings import OUTSIDE_SCOPE
from msnode.errors import OutsideModelScope
from msnode.segment.contrast import not_a_flair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

    from msnode.domain.imaging import Grid, Prepared
    from msnode.segment.bundle import IntensityHistogram, Scope

IN_SCOPE: Literal["in scope"] = "in scope"
WARNING: Literal["warning"] = "warning"
REFUSAL: Literal["refusal"] = "refusal"

_PLANES = ("sagittal", "coronal", "axial")  # by the patient axis (x, y, z in LPS) closest to the slice axis
_FIELD_TOLERANCE_T = 0.2
_AGE = re.compile(r"(\d{1,3})([DWMY])")  # value representation AS, PS3.5 6.2
_A_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_OLDEST_YEARS = 120
_YEARS_FROM = 2
"""Younger patients' ages are given in months."""
_FAR_BELOW, _FAR_ABOVE = 1 / 3, 2.0
"""Shares of the smallest and the largest brain of training beyond which no brain can have been found."""
_CUT_SHARE = 0.4
"""An outermost slice with more than this share of the largest slice's brain area cuts the brain off; then a
small volume says nothing."""


@dataclass(frozen=True)
class ScopeVerdict:
    """What the comparison with a bundle's training range says.

    Attributes:
        kind: "in scope", "warning" (read, and said) or "refusal" (not read).
        sentences: why, one sentence each; of a refusal the reasons for refusing alone; empty in scope.
    """

    kind: Literal["in scope", "warning", "refusal"]
    sentences: tuple[str, ...] = ()

    def raise_refusal(self) -> None:
        """Do nothing, unless this is a refusal.

        Raises:
            OutsideModelScope: it is; the message holds every sentence.
        """
        if self.kind == REFUSAL:
            raise OutsideModelScope(" ".join(self.sentences))


def judge_scope(scope: Scope, grid: Grid, header: Dataset, prepared: Prepared) -> ScopeVerdict:
    """Compare a series with what the bundle declares, and its pixels with what a FLAIR looks like.

    Args:
        scope: what the bundle declares; what it does not state is not judged.
        grid: the source grid.
        header: of any instance; an attribute that is missing gives no sentence, since nothing is known.
        prepared: what the bundle's recipe made of the series.
    """
    refused: list[str] = []
    warned = _acquisition(scope, grid, header)
    for refusing, finding in (*_brain_volume(scope, prepared), *_intensities(scope, prepared)):
        (refused if refusing else warned).append(finding)
    if (another := not_a_flair(prepared)) is not None:
        refused.insert(0, another)
    if refused:
        return ScopeVerdict(REFUSAL, _sentences(refused))
    return ScopeVerdict(WARNING, _sentences(warned)) if warned else ScopeVerdict(IN_SCOPE)


def acquisition_plane(grid: Grid) -> str:
    """The anatomical plane closest to the slices of a grid."""
    return _PLANES[int(np.argmax(np.abs(grid.affine[:3, 0]) / grid.spacing[0]))]


def brain_volume_ml(prepared: Prepared) -> float | None:
    """Volume of brain and ventricles inside the stack, ml; None where the recipe strips no skull."""
    if prepared.brain is None:
        return None
    return int(np.count_nonzero(prepared.brain)) * prepared.grid.voxel_volume_mm3 / 1000


def brain_histogram(prepared: Prepared, edges: Sequence[float]) -> tuple[float, ...]:
    """Density of the first channel's intensities in the brain.

    Args:
        prepared: made by a recipe; where it strips no skull, every voxel above 0 counts.
        edges: limits of the bins in rising order, n + 1; values beyond them count in the outermost bins.

    Returns:
        n densities, whose sum over the bins' widths is 1; zeros where there is no such voxel.
    """
    data = prepared.data[0]
    values = data[data > 0 if prepared.brain is None else prepared.brain > 0]
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return tuple(float(d) for d in counts / np.diff(edges) / max(1, values.size))


def histogram_distance(edges: Sequence[float], a: Sequence[float], b: Sequence[float]) -> float:
    """Earth mover's distance (1-Wasserstein) of two densities: the integral of |F_a - F_b|.

    It says how far intensities must be moved on average, in the prepared image's units, where those of a
    bin count as its lower edge. Bin-wise distances do not know that neighbouring bins are nearly alike.

    Args:
        edges: limits of the bins, n + 1.
        a: n densities.
        b: n densities.
    """
    widths = np.diff(edges)
    apart: NDArray[np.float64] = np.cumsum((np.asarray(a) - np.asarray(b)) * widths)
    return float(np.abs(apart) @ widths)


def _sentences(found: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{OUTSIDE_SCOPE}{text}." for text in found)


def _acquisition(scope: Scope, grid: Grid, header: Dataset) -> list[str]:
    """What of an acquisition the model has not seen."""
    found = []
    plane = acquisition_plane(grid)
    if scope.plane not in {"any", plane}:
        found.append(f"{plane} acquisition; the model was trained on {scope.plane} slices")
    distance, (low, high) = grid.spacing[0], scope.slice_distance_mm
    if not low <= distance <= high:
        found.append(f"slice distance {distance:.1f} mm; the model was trained on {low:g} to {high:g} mm")
    field = number(header, "MagneticFieldStrength")
    if field and all(abs(field - seen) > _FIELD_TOLERANCE_T for seen in scope.field_strength_t):
        seen = ", ".join(f"{t:g}" for t in scope.field_strength_t)
        found.append(f"field strength {field:g} T; the model was trained on {seen} T")
    vendor = text(header, "Manufacturer").strip()
    if vendor and not any(known.casefold() in vendor.casefold() for known in scope.manufacturers):
        known = ", ".join(scope.manufacturers)
        found.append(f"a scanner's manufacturer that the model was not trained on ({known} only)")
    years = _age_years(header)
    if years is not None and years < scope.min_age_years:
        age = f"{years:.0f} years" if years >= _YEARS_FROM else f"{years * 12:.0f} months"
        found.append(f"patient aged {age}; the model was trained on ages from {scope.min_age_years:g} years")
    return found


def _age_years(header: Dataset) -> float | None:
    """Patient's Age (0010,1010), else from birth and study date; None where neither states a possible age."""
    stated = _AGE.fullmatch(text(header, "PatientAge").strip())
    if stated and 0 < (years := int(stated[1]) / _A_YEAR[stated[2]]) <= _OLDEST_YEARS:
        return years
    try:
        born, scanned = (
            datetime.strptime(text(header, keyword).strip(), "%Y%m%d").replace(tzinfo=UTC)
            for keyword in ("PatientBirthDate", "StudyDate")
        )
    except ValueError:
        return None
    years = (scanned - born).days / _A_YEAR["D"]
    return years if 0 < years <= _OLDEST_YEARS else None


def _brain_volume(scope: Scope, prepared: Prepared) -> list[tuple[bool, str]]:
    """At most one finding: whether it refuses, and its text."""
    volume = brain_volume_ml(prepared)
    if scope.brain_volume_ml is None or prepared.brain is None or volume is None:
        return []
    low, high = scope.brain_volume_ml
    if low <= volume <= high or (volume < low and _cut_off(prepared.brain)):
        return []
    refusing = not low * _FAR_BELOW <= volume <= high * _FAR_ABOVE
    return [(refusing, f"brain volume {volume:.0f} ml; the model was trained on {low:.0f} to {high:.0f} ml")]


def _cut_off(brain: NDArray[np.uint8]) -> bool:
    """Whether the brain goes on below the first or above the last slice."""
    area = np.count_nonzero(brain, axis=(1, 2))
    return bool(max(area[0], area[-1]) > _CUT_SHARE * area.max())


def _intensities(scope: Scope, prepared: Prepared) -> list[tuple[bool, str]]:
    """At most one finding: whether it refuses, and its text."""
    seen: IntensityHistogram | None = scope.intensity_histogram
    if seen is None:
        return []
    distance = histogram_distance(seen.edges, brain_histogram(prepared, seen.edges), seen.density)
    figures = f"histogram distance {distance:.3f}, in training at most {seen.largest_distance:.3f}"
    if distance > seen.refuse_distance:
        return [(True, f"the brain's intensities are not those of a FLAIR ({figures})")]
    if distance > seen.largest_distance:
        return [(False, f"the brain's intensities differ from those of training ({figures})")]
    return []
