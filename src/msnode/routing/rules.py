"""Routing: rules as data that say what becomes of a study. Pure: files and headers are read elsewhere.

The first rule whose conditions all hold decides. A condition says in words why it does not hold, without
a value of the study: what it compares may name the patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msnode.dicom.header import texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, time

    from pydicom import Dataset

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
PLANES = ("axial", "sagittal", "coronal", "oblique")


@dataclass(frozen=True)
class Geometry:
    """The series that would be read, as rules see it.

    Attributes:
        plane: one of `PLANES`.
        acquisition: "2d" or "3d".
        slice_count: distinct slices.
        slice_distance_mm: between slice centres, mm; None where there is only one.
    """

    plane: str
    acquisition: str
    slice_count: int
    slice_distance_mm: float | None


@dataclass(frozen=True, eq=False)
class StudyFacts:
    """What rules may ask of a study.

    Attributes:
        calling_aes: AE titles under which it was sent.
        at: when it was complete, local time.
        headers: brings one header a series; called only where a rule asks for a tag.
        geometry: brings the geometry of the series that would be read, None where none would be; called only
            where a rule asks for it.
    """

    calling_aes: frozenset[str]
    at: datetime
    headers: Callable[[], Sequence[Dataset]]
    geometry: Callable[[], Geometry | None]


class Condition(Protocol):
    """One thing that a rule asks of a study."""

    def mismatch(self, study: StudyFacts) -> str:
        """Why it does not hold, in words; empty where it holds."""


@dataclass(frozen=True)
class CallingAe:
    """Some association that brought the study was opened under one of these AE titles."""

    titles: tuple[str, ...]

    def mismatch(self, study: StudyFacts) -> str:
        """See `Condition`."""
        if not study.calling_aes.isdisjoint(self.titles):
            return ""
        sent_as = ", ".join(sorted(study.calling_aes)) or "an AE title that is not known"
        return f"it was sent by {sent_as}, not by {_either(self.titles)}"


@dataclass(frozen=True)
class LocalTime:
    """The study was complete within these hours, on a day of these.

    Attributes:
        hours: begin and end, the end excluded; past midnight where the end comes first; None is all day.
        weekdays: 0 is Monday; the day on which the hours begin, also past midnight. Empty is any day.
    """

    hours: tuple[time, time] | None = None
    weekdays: frozenset[int] = frozenset()

    def mismatch(self, study: StudyFacts) -> str:
        """See `Condition`."""
        clock, day = study.at.time().replace(tzinfo=None), study.at.weekday()
        if self.hours is not None:
            begin, end = self.hours
            past_midnight = end < begin and clock < end
            if not (past_midnight or (begin <= clock and (clock < end or end < begin))):
                return f"it was complete at {clock:%H:%M}, outside {begin:%H:%M}-{end:%H:%M}"
            day = (day - past_midnight) % len(WEEKDAYS)
        if self.weekdays and day not in self.weekdays:
            wanted = _either([WEEKDAYS[each] for each in sorted(self.weekdays)])
            return f"it was complete on {WEEKDAYS[day]}, not on {wanted}"
        return ""


@dataclass(frozen=True)
class Tag:
    """Some series has one of these values in this attribute, letter case and outer blanks aside.

    Attributes:
        name: keyword, or eight hexadecimal digits (00401003).
        values: of an attribute with several values any one counts.
    """

    name: str
    values: tuple[str, ...]

    def mismatch(self, study: StudyFacts) -> str:
        """See `Condition`."""
        there = [_values(header, self.name) for header in study.headers()]
        wanted = {value.strip().lower() for value in self.values}
        if any(values & wanted for values in there):
            return ""
        if not any(there):
            return f"no series has a value for {self.name}"
        return f"in no series is {self.name} {_either(self.values)}"


@dataclass(frozen=True)
class Shape:
    """The series that would be read is such; None is any, distances in mm between slice centres."""

    plane: str | None = None
    acquisition: str | None = None
    min_slices: int | None = None
    min_slice_distance_mm: float | None = None
    max_slice_distance_mm: float | None = None

    def mismatch(self, study: StudyFacts) -> str:
        """See `Condition`."""
        found = study.geometry()
        if found is None:
            return "no series would be read, so there is no geometry to compare"
        distance = found.slice_distance_mm
        least, most = self.min_slice_distance_mm, self.max_slice_distance_mm
        apart = "alone" if distance is None else f"{distance:.2f} mm apart"
        checks = (
            (self.plane in {None, found.plane}, f"{found.plane}, not {self.plane}"),
            (self.acquisition in {None, found.acquisition}, f"{found.acquisition}, not {self.acquisition}"),
            (
                found.slice_count >= (self.min_slices or 0),
                f"{found.slice_count} slices, fewer than {self.min_slices}",
            ),
            (
                least is None or (distance is not None and distance >= least),
                f"slices {apart}, less than {least}",
            ),
            (
                most is None or (distance is not None and distance <= most),
                f"slices {apart}, not within {most}",
            ),
        )
        wrong = next((why for holds, why in checks if not holds), "")
        return wrong and f"of the series that would be read: {wrong}"


@dataclass(frozen=True)
class Rule:
    """Conditions, and what becomes of a study that satisfies them; None is as the settings say.

    Attributes:
        name: for people.
        when: all of them have to hold; those that cost most come last.
        read: False: the study is taken and not read. True: it was asked for, so that a report says so where
            nothing in it can be read. None: a study without a FLAIR is passed over in silence.
        bundle: what reads it.
        preset: how much of the bundle reads.
        urgent: it is read and delivered before the others.
        destinations: names of those that get the results.
    """

    name: str
    when: tuple[Condition, ...] = ()
    read: bool | None = None
    bundle: str | None = None
    preset: str | None = None
    urgent: bool = False
    destinations: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Missed:
    """A rule that did not match, and the first of its conditions that did not hold, in words."""

    rule: str
    why: str


@dataclass(frozen=True)
class Decision:
    """The rule that decides, None where none matched and the settings do; and those before it."""

    rule: Rule | None = None
    missed: tuple[Missed, ...] = ()


def decide(rules: Sequence[Rule], study: StudyFacts) -> Decision:
    """The first rule of which every condition holds."""
    missed: list[Missed] = []
    for rule in rules:
        why = next((text for each in rule.when if (text := each.mismatch(study))), "")
        if not why:
            return Decision(rule, tuple(missed))
        missed.append(Missed(rule.name, why))
    return Decision(None, tuple(missed))


def _either(values: Sequence[str]) -> str:
    return " or ".join(f'"{value}"' for value in values)


def _values(header: Dataset, tag: str) -> set[str]:
    """The attribute's values as text; nothing where it is absent or malformed."""
    return {each.strip().lower() for each in texts(header, tag)} - {""}
