"""Which series of a study to read: rules on tags and geometry, a reason for each series not taken.

Only headers are read here. Geometry errors of the chosen series come later, when it becomes a volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from msnode.domain.imaging import FLAIR, PassedOver, Selection
from msnode.errors import AmbiguousSelection, NoEligibleSeries, NotReadable
from msnode.series.describe import Description, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.domain.imaging import Series


Kind = Literal["axial-2d", "3d", "other-2d"]
"""How a series was acquired: 2D in axial slices, 3D in any plane, 2D in another plane."""

KINDS: tuple[Kind, ...] = ("axial-2d", "3d", "other-2d")


@dataclass(frozen=True)
class SelectionRules:
    """What counts as a readable FLAIR, and which of several is read.

    Attributes:
        prefer: the kinds of acquisition, the best first; a kind that is left out comes last.
        inversion_time_ms: allowed range; fluid is nulled at 1650-2800 ms between 0.5 T and 3 T, and at
            1400 ms at 64 mT.
        min_echo_time_ms: shorter echo times are T1 or proton density weighted.
        min_repetition_time_ms: shorter repetition times are T1 weighted.
        min_slices: fewer are a localiser or a fragment.
        min_coverage_mm: smallest extent along the slice axis; less is not a head.
    """

    prefer: tuple[Kind, ...] = KINDS
    inversion_time_ms: tuple[float, float] = (1300, 3000)
    min_echo_time_ms: float = 70
    min_repetition_time_ms: float = 4000
    min_slices: int = 5
    min_coverage_mm: float = 40


def select(series: Sequence[Series], rules: SelectionRules | None = None) -> Selection:
    """Choose the FLAIR to read.

    Several eligible series: the kinds in the order of `rules.prefer`, then more slices, then smaller pixels,
    then with the vendor's distortion correction and normalisation, then what is called a repetition, since a
    scan is repeated where the first failed. What is still equal is refused.

    A FLAIR of which a part is missing is neither read nor passed over for another.

    Returns:
        The selection; where nothing can be read, `refusal` is NoEligibleSeries, AmbiguousSelection, or
        NotReadable where something is missing; `asked_for` says whether there was a FLAIR of a head at all.
    """
    rules = rules or SelectionRules()
    eligible: list[tuple[Description, Series]] = []
    passed: list[PassedOver] = []
    candidates: list[str] = []
    missing: list[str] = []
    for one in sorted(series, key=lambda s: s.series_instance_uid):
        described = describe(one)
        reason = _not_a_candidate(described, rules)
        if reason is None:
            reason = _not_eligible(described, rules, missing=one.missing)
            candidates.append(reason or "eligible")
            if reason and reason == one.missing:
                missing.append(reason)
        if reason is None:
            eligible.append((described, one))
        else:
            passed.append(PassedOver(one.series_instance_uid, reason))
    if missing:
        return _cannot_tell(missing, eligible, passed)
    if not eligible:
        reason = "; ".join(sorted(set(candidates))) or "no FLAIR series of a head"
        return Selection(
            series=MappingProxyType({}),
            passed_over=tuple(passed),
            reason=reason,
            refusal=NoEligibleSeries(f"no FLAIR series can be read: {reason}"),
            asked_for=bool(candidates),
        )
    return _prefer(eligible, passed, rules)


def _cannot_tell(
    missing: list[str], eligible: list[tuple[Description, Series]], passed: list[PassedOver]
) -> Selection:
    reason = "; ".join(missing)
    passed += [PassedOver(s.series_instance_uid, "a part of another FLAIR is missing") for _, s in eligible]
    return Selection(
        series=MappingProxyType({}), passed_over=tuple(passed), reason=reason, refusal=NotReadable(reason)
    )


def _prefer(
    eligible: list[tuple[Description, Series]], passed: list[PassedOver], rules: SelectionRules
) -> Selection:
    eligible = sorted(eligible, key=lambda pair: _preference(pair[0], rules))
    best, chosen = eligible[0]
    tied = [one for d, one in eligible if _preference(d, rules) == _preference(best, rules)]
    if len(tied) > 1:
        reason = f"{len(tied)} FLAIR series are equally suitable ({_in_words(best)})"
        passed += [PassedOver(one.series_instance_uid, "another series is equally suitable") for one in tied]
        passed += [
            PassedOver(one.series_instance_uid, _less(described, best, rules))
            for described, one in eligible[len(tied) :]
        ]
        return Selection(
            series=MappingProxyType({}),
            passed_over=tuple(passed),
            reason=reason,
            refusal=AmbiguousSelection(f"{reason}: one of them must be chosen by hand"),
        )
    passed += [PassedOver(one.series_instance_uid, _less(d, best, rules)) for d, one in eligible[1:]]
    how = flair_by_name(best) or flair_by_numbers(best, rules)
    return Selection(
        series=MappingProxyType({FLAIR: chosen}),
        passed_over=tuple(passed),
        reason=f"FLAIR {how}; {_in_words(best)}",
    )


def _preference(d: Description, rules: SelectionRules) -> tuple[int, int, float, int, bool]:
    kind: Kind = "3d" if d.is_3d else ("axial-2d" if d.plane == "axial" else "other-2d")
    rank = rules.prefer.index(kind) if kind in rules.prefer else len(rules.prefer)
    return rank, -d.slice_count, round(d.pixel_mm, 3), -d.corrections, not d.repeated


def _in_words(d: Description) -> str:
    return f"{'3D' if d.is_3d else '2D'} {d.plane}, {d.slice_count} slices, {d.pixel_mm:.2f} mm pixels"


def _less(d: Description, best: Description, rules: SelectionRules) -> str:
    names = (
        "its acquisition and plane",
        "its number of slices",
        "its pixel size",
        "its corrections",
        "being a repetition",
    )
    pairs = zip(names, _preference(d, rules), _preference(best, rules), strict=True)
    why = next(name for name, mine, theirs in pairs if mine != theirs)
    return f"another FLAIR is preferred for {why}: {_in_words(best)} before {_in_words(d)}"


def _not_a_candidate(d: Description, rules: SelectionRules) -> str | None:
    """Why a series is no FLAIR of a head at all; None where it is one, readable or not."""
    if d.own:
        return "made by this node"
    if not d.is_mr_image:
        return f"Modality {d.modality or 'missing'}, SOP class {d.sop_class_name}: not an MR image"
    if d.other_body_part:
        return f"not a head: {d.other_body_part}"
    if flair_by_name(d):
        return None
    if d.named_other:
        return f"another contrast: {d.named_other}"
    return None if flair_by_numbers(d, rules) else f"not a FLAIR: {_numbers_in_words(d)}"


def _not_eligible(d: Description, rules: SelectionRules, *, missing: str) -> str | None:
    """Why a candidate cannot be read; None where it can. Its extent says nothing while slices are missing."""
    checks = (
        (d.localiser, f"a localiser: {d.localiser}"),
        (d.diffusion, f"diffusion: {d.diffusion}"),
        (d.derived, f"derived images: {d.derived}"),
        (d.not_magnitude, f"not a magnitude image: {d.not_magnitude}"),
        (d.post_contrast, f"after contrast agent: {d.post_contrast}"),
        (_numbers_against(d, rules), f"named FLAIR, but {_numbers_against(d, rules)}"),
        (d.orientation_count > 1, f"{d.orientation_count} orientations in one series"),
        (missing, missing),
        (
            d.slice_count < rules.min_slices,
            f"{d.slice_count} slice(s), at least {rules.min_slices} are needed",
        ),
        (
            d.coverage_mm is not None and d.coverage_mm < rules.min_coverage_mm,
            f"slices cover {d.coverage_mm or 0:.0f} mm, at least {rules.min_coverage_mm:g} are needed",
        ),
    )
    return next((reason for applies, reason in checks if applies), None)


def flair_by_name(d: Description) -> str:
    """How the description or the contrast attribute names a T2 FLAIR; empty where it does not."""
    if d.named_other:
        return ""
    if d.contrast == "FLUID_ATTENUATED":
        return "by Acquisition Contrast"
    return f"by description ({d.flair_word})" if d.flair_word else ""


def flair_by_numbers(d: Description, rules: SelectionRules) -> str:
    """How inversion, echo and repetition time make a FLAIR; empty where they do not or one is missing."""
    if None in (d.inversion_time_ms, d.echo_time_ms, d.repetition_time_ms) or _numbers_against(d, rules):
        return ""
    return f"by numbers ({_numbers_in_words(d)})"


def _numbers_against(d: Description, rules: SelectionRules) -> str:
    """What among the numbers present speaks against a FLAIR; a missing number does not."""
    low, high = rules.inversion_time_ms
    if d.inversion_time_ms is not None and not low <= d.inversion_time_ms <= high:
        return f"TI {d.inversion_time_ms:g} ms lies outside {low:g}-{high:g}"
    if d.echo_time_ms is not None and d.echo_time_ms < rules.min_echo_time_ms:
        return f"TE {d.echo_time_ms:g} ms is under {rules.min_echo_time_ms:g}"
    if d.repetition_time_ms is not None and d.repetition_time_ms < rules.min_repetition_time_ms:
        return f"TR {d.repetition_time_ms:g} ms is under {rules.min_repetition_time_ms:g}"
    return ""


def _numbers_in_words(d: Description) -> str:
    named = (("TI", d.inversion_time_ms), ("TE", d.echo_time_ms), ("TR", d.repetition_time_ms))
    return ", ".join(f"{name} {'missing' if value is None else f'{value:g} ms'}" for name, value in named)
