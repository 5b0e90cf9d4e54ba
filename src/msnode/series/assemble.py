"""Decides when a study is complete. DICOM has no such signal: quiet time and even slice spacing decide.

This is pure logic on the arrivals and on a time that the caller gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datetime import datetime

    from msnode.domain.arrivals import SeriesArrivals, StudyArrivals

_EVEN_RELATIVE, _EVEN_MM = 0.05, 0.1


@dataclass(frozen=True)
class Timers:
    """Waiting times in seconds since the last instance, on any association.

    Attributes:
        series_quiet_s: a series with nothing new for this long is complete.
        study_quiet_s: a study with nothing new for this long is complete.
        after_release_s: replaces both if every association was released and no slice is missing.
        revision_quiet_s: replaces `study_quiet_s` for late slices of a study that was read before.
        interrupted_quiet_s: replaces all of them if an association was interrupted. The sender has this time
            to send the series again. Then the study is read as it is, since a sender may never send again.
    """

    series_quiet_s: float = 10
    study_quiet_s: float = 60
    after_release_s: float = 5
    revision_quiet_s: float = 120
    interrupted_quiet_s: float = 600

    @property
    def shortest_s(self) -> float:
        """The earliest time after its last instance at which a study can be complete, seconds."""
        return min(self.after_release_s, self.study_quiet_s, self.revision_quiet_s, self.interrupted_quiet_s)


@dataclass(frozen=True)
class SeriesVerdict:
    """Whether one series is complete, and why."""

    series_instance_uid: str
    complete: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Whether a study is complete, and why.

    Attributes:
        complete: every series is complete and the study was quiet long enough.
        reason: one line for the record.
        series: each series' own verdict.
        next_look_at: when time alone may change the verdict, UTC; None if the study is complete.
        held: whether the study waits for the sender of an interrupted association.
    """

    complete: bool
    reason: str
    series: tuple[SeriesVerdict, ...]
    next_look_at: datetime | None
    held: bool = False


def assess(study: StudyArrivals, now: datetime, timers: Timers) -> Verdict:
    """Decide whether a study is complete.

    Timers run from the last instance of a series or of the study. If every series is evenly spaced and every
    association was released, the wait is `after_release_s`. A series whose last association was aborted or
    lost is complete when instances of it came over an association that was released, else after
    `interrupted_quiet_s`.

    Args:
        study: what has arrived.
        now: current time, UTC.
        timers: waiting times.
    """
    shortened = (
        study.open_associations == 0
        and not any(s.interrupted for s in study.series)
        and all(evenly_spaced(s.slice_positions_mm) for s in study.series)
    )
    judged = [_assess_series(s, now, timers, shortened=shortened) for s in study.series]
    verdicts = tuple(verdict for verdict, _ in judged)
    if any(s.interrupted for s in study.series):
        return _assess_interrupted(study, now, timers, verdicts)
    wait, rule = _study_wait(study, timers, shortened=shortened)
    due = max([study.last_at + timedelta(seconds=wait), *(due for _, due in judged)])
    quiet = (now - study.last_at).total_seconds()
    if now < due:
        reason = f"last instance {quiet:.1f} s ago: waiting for {rule}"
        return Verdict(complete=False, reason=reason, series=verdicts, next_look_at=due)
    return Verdict(
        complete=True, reason=f"quiet for {quiet:.1f} s: {rule}", series=verdicts, next_look_at=None
    )


def _assess_interrupted(
    study: StudyArrivals, now: datetime, timers: Timers, verdicts: tuple[SeriesVerdict, ...]
) -> Verdict:
    cut_off = [s for s in study.series if s.interrupted]
    noticed = max(s.interrupted_at or s.last_at for s in cut_off)
    due = max(noticed, study.last_at) + timedelta(seconds=timers.interrupted_quiet_s)
    reason = f"{len(cut_off)} of {len(study.series)} series cut off by an interrupted association"
    if now < due:
        return Verdict(complete=False, reason=reason, series=verdicts, next_look_at=due, held=True)
    reason = f"{reason}, and nothing more for {timers.interrupted_quiet_s:g} s: read as it is"
    return Verdict(complete=True, reason=reason, series=verdicts, next_look_at=None)


def _study_wait(study: StudyArrivals, timers: Timers, *, shortened: bool) -> tuple[float, str]:
    if study.revision > 0:
        return timers.revision_quiet_s, f"{timers.revision_quiet_s:g} s after late instances"
    if shortened and timers.after_release_s < timers.study_quiet_s:
        return timers.after_release_s, f"{timers.after_release_s:g} s after release, no slice is missing"
    return timers.study_quiet_s, f"{timers.study_quiet_s:g} s without an instance of the study"


def _assess_series(
    series: SeriesArrivals, now: datetime, timers: Timers, *, shortened: bool
) -> tuple[SeriesVerdict, datetime]:
    """The verdict, and when the series' own timer ends."""
    wait = min(timers.after_release_s, timers.series_quiet_s) if shortened else timers.series_quiet_s
    due = series.last_at + timedelta(seconds=wait)
    if series.interrupted:
        complete, reason = False, "association interrupted: waiting for its instances to come again"
    elif now < due:
        complete, reason = False, f"{series.instance_count} instances: waiting for {wait:g} s without another"
    else:
        complete, reason = True, f"{series.instance_count} instances, none new for {wait:g} s"
    return SeriesVerdict(series.series_instance_uid, complete=complete, reason=reason), due


def evenly_spaced(positions_mm: tuple[float, ...]) -> bool:
    """Whether slice positions have no gap: all steps within 5 % or 0.1 mm of the median step.

    Equal positions count once, since a series may hold several contrasts. Fewer than three positions count as
    even, and so does a series without positions, such as a multi-frame one.

    Args:
        positions_mm: positions along the normal of the slices, mm, in any order.
    """
    places = np.unique(np.round(positions_mm, 2))
    steps = np.diff(places)
    if len(steps) < 2:  # noqa: PLR2004 - one step has nothing to be compared with
        return True
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    return bool(np.abs(steps - usual).max() <= max(_EVEN_RELATIVE * usual, _EVEN_MM))
