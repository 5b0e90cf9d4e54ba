"""Selects the series to read by rules on headers and geometry, with a reason for each other series.

Only headers are read here. The geometry of the selected series is checked later, when it becomes a volume.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from msnode.dicom.header import number
from msnode.domain.imaging import FLAIR, Selection
from msnode.domain.provenance import PassedOver
from msnode.errors import AmbiguousSelection, NoEligibleSeries, NotReadable
from msnode.series.aside import without_strangers
from msnode.series.describe import Description, describe
from msnode.series.rejected import rejections, without_rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from msnode.domain.imaging import Series


Kind = Literal["axial-2d", "3d", "other-2d"]
"""Kind of acquisition: 2D in axial slices, 3D in any plane, 2D in another plane."""

KINDS: tuple[Kind, ...] = ("axial-2d", "3d", "other-2d")


@dataclass(frozen=True)
class SelectionRules:
    """What counts as a readable FLAIR, and which of several is read.

    Attributes:
        prefer: kinds of acquisition, best first; a kind that is not listed comes last.
        inversion_time_ms: allowed range, ms; fluid is nulled at 1650-2800 ms between 0.5 T and 3 T, and at
            1400 ms at 64 mT.
        min_echo_time_ms: images with shorter echo times are T1 or proton density weighted, ms.
        min_repetition_time_ms: images with shorter repetition times are T1 weighted, ms.
        min_slices: series with fewer slices are localisers or fragments.
        min_coverage_mm: smallest extent of a head along the slice axis, mm.
        min_whole_head_mm: the same for a series whose description names a second region: orbits or an inner
            ear are imaged in a thinner stack, a brain is not, mm.
        after_contrast: whether a FLAIR after contrast agent is read where there is none before it.
        reformats: whether a reformatted FLAIR is read where there is no acquired one.
    """

    prefer: tuple[Kind, ...] = KINDS
    inversion_time_ms: tuple[float, float] = (1300, 3000)
    min_echo_time_ms: float = 70
    min_repetition_time_ms: float = 4000
    min_slices: int = 5
    min_coverage_mm: float = 40
    min_whole_head_mm: float = 90
    after_contrast: bool = False
    reformats: bool = False


def select(
    series: Sequence[Series],
    rules: SelectionRules | None = None,
    *,
    refused: Mapping[str, str] = MappingProxyType({}),
    same_volume: Callable[[Series, Series], bool] | None = None,
) -> Selection:
    """Select the FLAIR to read.

    Of several eligible series, the best is the first by: no contrast agent, being acquired, evidence of its
    own (its numbers, or a name that is not the examination's), naming no second region, kind in the order of
    `rules.prefer`, more slices, smaller pixels, the vendor's distortion correction and normalisation, being
    a repetition (a scan is repeated if the first one failed). If two are equal in all of these, none is read,
    unless they are copies.

    If bytes of a FLAIR are missing, neither that series nor another one is read.

    Args:
        series: all series of the study.
        rules: the defaults if None.
        refused: Series Instance UID → why its images were refused although its headers are eligible.
        same_volume: whether two series of the same geometry hold the same image, so that one may stand for
            both; None takes each for an image of its own.

    Returns:
        The selection. If nothing can be read, `refusal` is NoEligibleSeries, AmbiguousSelection, or
        NotReadable if bytes are missing. `asked_for` says whether the study has a FLAIR of a head at all.
    """
    rules = rules or SelectionRules()
    eligible: list[tuple[Description, Series]] = []
    passed: list[PassedOver] = []
    candidates: list[str] = []
    missing: list[str] = []
    remarks: list[str] = []
    stacks, rejected = _stacks(series)
    refused = {**rejected, **refused}
    for described, one in _described([one for one, _ in stacks], rules):
        reason = _not_a_candidate(described, rules)
        if reason is None:
            reason = _not_eligible(described, rules, missing=one.missing)
            if reason is None and (reason := refused.get(one.series_instance_uid)):
                remarks.append(f"another FLAIR was not read: {reason}")
            candidates.append(reason or "eligible")
            if reason and reason == one.missing:
                missing.append(reason)
        if reason is None:
            eligible.append((described, one))
        else:
            passed.append(PassedOver(one.series_instance_uid, reason))
    if missing:
        return _refuse_incomplete(missing, eligible, passed)
    if not eligible:
        reason = "; ".join(sorted(set(candidates))) or "no FLAIR series of a head"
        return Selection(
            series=MappingProxyType({}),
            passed_over=tuple(passed),
            reason=reason,
            refusal=NoEligibleSeries(f"no FLAIR series can be read: {reason}"),
            asked_for=bool(candidates),
        )
    chosen = _choose(_without_copies(eligible, passed, rules, same_volume), passed, rules)
    aside = [said for one, strangers in stacks if one is chosen.series.get(FLAIR) for said in strangers]
    return replace(chosen, remarks=(*chosen.remarks, *aside, *remarks))


def _stacks(
    study: Sequence[Series],
) -> tuple[list[tuple[Series, tuple[str, ...]]], dict[str, str]]:
    """Each series without what is no slice of it or rejected, with remarks; and why series are rejected."""
    stacks, rejected = [], {}
    by_key_objects = rejections(study)
    for one in sorted(study, key=lambda s: s.series_instance_uid):
        left, said, whole = without_rejected(one, by_key_objects)
        if whole:
            rejected[one.series_instance_uid] = whole
        stack, aside = without_strangers(left)
        stacks.append((stack, (*said, *aside)))
    return stacks, rejected


def _refuse_incomplete(
    missing: list[str], eligible: list[tuple[Description, Series]], passed: list[PassedOver]
) -> Selection:
    reason = "; ".join(missing)
    passed += [PassedOver(s.series_instance_uid, "a part of another FLAIR is missing") for _, s in eligible]
    return Selection(
        series=MappingProxyType({}), passed_over=tuple(passed), reason=reason, refusal=NotReadable(reason)
    )


def _choose(
    eligible: list[tuple[Description, Series]], passed: list[PassedOver], rules: SelectionRules
) -> Selection:
    best, chosen = eligible[0]
    tied = [one for d, one in eligible if _preference(d, rules) == _preference(best, rules)]
    if len(tied) > 1:
        reason = f"{len(tied)} FLAIR series are equally suitable ({_in_words(best)})"
        passed += [PassedOver(one.series_instance_uid, "another series is equally suitable") for one in tied]
        passed += [
            PassedOver(one.series_instance_uid, _why_passed_over(described, best, rules))
            for described, one in eligible[len(tied) :]
        ]
        return Selection(
            series=MappingProxyType({}),
            passed_over=tuple(passed),
            reason=reason,
            refusal=AmbiguousSelection(f"{reason}: one of them must be chosen by hand"),
        )
    passed += [
        PassedOver(one.series_instance_uid, _why_passed_over(d, best, rules)) for d, one in eligible[1:]
    ]
    how = flair_by_name(best) or flair_by_numbers(best, rules)
    return Selection(
        series=MappingProxyType({FLAIR: chosen}),
        passed_over=tuple(passed),
        reason=f"FLAIR {how}; {_in_words(best)}",
        remarks=_remarks(best),
    )


def _remarks(d: Description) -> tuple[str, ...]:
    """What a reader should know of a series that is read because the site chose so."""
    remarks = []
    if d.post_contrast:
        remarks.append(
            f"read after contrast agent ({d.post_contrast}): what enhances may count as a lesion, and the"
            " model was not trained on such images"
        )
    if d.derived:
        remarks.append(f"read from reformatted images ({d.derived}): small lesions may be blurred or lost")
    return tuple(remarks)


def _without_copies(
    eligible: list[tuple[Description, Series]],
    passed: list[PassedOver],
    rules: SelectionRules,
    same_volume: Callable[[Series, Series], bool] | None,
) -> list[tuple[Description, Series]]:
    """What is eligible, best first, without the copies of the best, which are passed over."""
    eligible = _without_borrowed_names(eligible, rules)
    best, *others = sorted(eligible, key=lambda pair: (_preference(pair[0], rules), _series_number(pair[1])))
    kept = [best]
    for described, one in others:
        if same_volume and _same_geometry(described, best[0]) and same_volume(best[1], one):
            why = f"the same image as series {best[1].series_instance_uid}: the same pixels at the same place"
            passed.append(PassedOver(one.series_instance_uid, why))
        else:
            kept.append((described, one))
    return kept


def _series_number(one: Series) -> float:
    """Series Number (0020,0011): whoever copies a series gives it a higher one."""
    found = number(one.instances[0].header, "SeriesNumber")
    return float("inf") if found is None else found


def _same_geometry(one: Description, other: Description) -> bool:
    return (one.plane, one.slice_count, round(one.pixel_mm, 2)) == (
        other.plane,
        other.slice_count,
        round(other.pixel_mm, 2),
    )


def _described(series: Sequence[Series], rules: SelectionRules) -> list[tuple[Description, Series]]:
    """Series in the terms of the rules.

    A name that a FLAIR by numbers shares with a series whose numbers are no FLAIR's names the examination.
    """
    described = [describe(one) for one in series]
    named = [d for d in described if d.flair_word]
    proven = {d.words for d in named if flair_by_numbers(d, rules)}
    exam_names = frozenset(proven & {d.words for d in named if _numbers_against(d, rules)})
    return [
        (describe(one, exam_names) if d.words in exam_names else d, one)
        for d, one in zip(described, series, strict=True)
    ]


def _without_borrowed_names(
    eligible: list[tuple[Description, Series]], rules: SelectionRules
) -> list[tuple[Description, Series]]:
    """With names marked as the examination's that a series shares with a FLAIR by numbers."""
    proven = {d.words for d, _ in eligible if flair_by_numbers(d, rules)}
    return [(replace(d, exam_name=d.exam_name or d.words in proven), one) for d, one in eligible]


def _preference(
    d: Description, rules: SelectionRules
) -> tuple[bool, bool, bool, bool, int, int, float, int, bool]:
    reads_as_3d = d.is_3d and not d.derived  # a reformat has the plane that it was made in
    kind: Kind = "3d" if reads_as_3d else ("axial-2d" if d.plane == "axial" else "other-2d")
    rank = rules.prefer.index(kind) if kind in rules.prefer else len(rules.prefer)
    by_exam = d.exam_name and d.contrast != "FLUID_ATTENUATED" and not flair_by_numbers(d, rules)
    return (
        bool(d.post_contrast),
        bool(d.derived),
        by_exam,
        bool(d.second_region),
        rank,
        -d.slice_count,
        round(d.pixel_mm, 3),
        -d.corrections,
        not d.repeated,
    )


def _in_words(d: Description) -> str:
    return f"{'3D' if d.is_3d else '2D'} {d.plane}, {d.slice_count} slices, {d.pixel_mm:.2f} mm pixels"


def _why_passed_over(d: Description, best: Description, rules: SelectionRules) -> str:
    names = (
        "being free of contrast agent",
        "being acquired, not reformatted",
        "being a FLAIR by its numbers, not by the name of the examination",
        "naming no second region",
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
    """Why a series is not a FLAIR of a head; None if it is one, readable or not."""
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
    """Why a candidate cannot be read; None if it can. Extent is checked last: slices may be missing."""
    checks = (
        (d.localiser, f"a localiser: {d.localiser}"),
        (d.diffusion, f"diffusion: {d.diffusion}"),
        (d.derived and not (rules.reformats and d.reformat), f"derived images: {d.derived}"),
        (d.not_magnitude, f"not a magnitude image: {d.not_magnitude}"),
        (d.post_contrast and not rules.after_contrast, f"after contrast agent: {d.post_contrast}"),
        (_numbers_against(d, rules), f"named FLAIR, but {_numbers_against(d, rules)}"),
        (d.orientation_count > 1, f"{d.orientation_count} orientations in one series"),
        (missing, missing),
        (
            d.slice_count < rules.min_slices,
            f"too few slices: {d.slice_count}, at least {rules.min_slices} are needed",
        ),
        (
            d.coverage_mm is not None and d.coverage_mm < rules.min_coverage_mm,
            f"slices cover {d.coverage_mm or 0:.0f} mm, at least {rules.min_coverage_mm:g} are needed",
        ),
        (
            bool(d.second_region) and d.coverage_mm is not None and d.coverage_mm < rules.min_whole_head_mm,
            _too_thin(d, rules),
        ),
    )
    return next((reason for applies, reason in checks if applies), None)


def _too_thin(d: Description, rules: SelectionRules) -> str:
    needed = f"at least {rules.min_whole_head_mm:g} are needed to show the whole head"
    return f"{d.second_region}: slices cover {d.coverage_mm or 0:.0f} mm, {needed}"


def flair_by_name(d: Description) -> str:
    """How the description or Acquisition Contrast names a T2 FLAIR; empty if neither does."""
    if d.named_other:
        return ""
    if d.contrast == "FLUID_ATTENUATED":
        return "by Acquisition Contrast"
    return f"by description ({d.flair_word})" if d.flair_word else ""


def flair_by_numbers(d: Description, rules: SelectionRules) -> str:
    """How inversion, echo and repetition time show a FLAIR; empty if they do not, or if one is missing."""
    if None in (d.inversion_time_ms, d.echo_time_ms, d.repetition_time_ms) or _numbers_against(d, rules):
        return ""
    return f"by numbers ({_numbers_in_words(d)})"


def _numbers_against(d: Description, rules: SelectionRules) -> str:
    """The first number that contradicts a FLAIR, in words; empty if none does. A missing number does not."""
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
