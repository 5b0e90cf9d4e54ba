"""What would become of the studies in a folder, and why; nothing is read, sent or recorded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from msnode.dicom.uids import is_own
from msnode.domain.imaging import FLAIR, PassedOver
from msnode.routing.rules import Rule, StudyFacts, decide
from msnode.series.volume import group_series
from msnode.wiring.folder import instances_below
from msnode.wiring.routing import check_routing, geometry_of, selection_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from msnode.domain.imaging import Selection, Series
    from msnode.routing.rules import Missed
    from msnode.settings import Settings


@dataclass(frozen=True)
class ChosenSeries:
    """The series that would be read, and why it and no other."""

    series_instance_uid: str
    reason: str


@dataclass(frozen=True)
class Explanation:
    """What would become of one study.

    Attributes:
        rule: name of the rule that decides; None where none matches.
        missed: the rules before it, and why each does not match.
        reads: whether something would be made for the destinations: results, or a report of rejection.
        outcome: the same in words.
        series: what would be read; None where no series can be.
        passed_over: every other series, and why.
        bundle: what reads, `preset` how much of it.
        priority: "stat" or "routine".
        destinations: who gets the results.
    """

    study_instance_uid: str
    rule: str | None
    missed: tuple[Missed, ...]
    reads: bool
    outcome: str
    series: ChosenSeries | None
    passed_over: tuple[PassedOver, ...]
    bundle: str
    preset: str
    priority: str
    destinations: tuple[str, ...]


def explain_folder(
    path: Path, settings: Settings, calling_aes: frozenset[str], at: datetime
) -> tuple[Explanation, ...]:
    """Every study in the files below `path`, by Study Instance UID.

    Args:
        path: a folder, or one file.
        settings: rules, bundle, destinations, limits of the selection.
        calling_aes: AE titles under which the studies would be sent.
        at: when they would be complete, local time.

    Raises:
        NotReadable: no DICOM file, or a DICOM file that is damaged.
        ConfigurationError: the routing rules are wrong.
    """
    rules = check_routing(settings)
    series = group_series(instances_below(path))
    studies = groupby(series, key=lambda each: each.study_instance_uid)
    return tuple(_explain(tuple(study), rules, settings, calling_aes, at) for _, study in studies)


def _explain(
    study: Sequence[Series],
    rules: Sequence[Rule],
    settings: Settings,
    calling_aes: frozenset[str],
    at: datetime,
) -> Explanation:
    selection = selection_of(study, settings)
    facts = StudyFacts(
        calling_aes,
        at,
        headers=lambda: [h for each in study if not is_own(h := each.instances[0].header)],
        geometry=lambda: geometry_of(selection),
    )
    decision = decide(rules, facts)
    rule = decision.rule or Rule("")
    reads, outcome = _outcome(rule, selection)
    chosen = selection.series.get(FLAIR)
    return Explanation(
        study_instance_uid=study[0].study_instance_uid,
        rule=rule.name or None,
        missed=decision.missed,
        reads=reads,
        outcome=outcome,
        series=ChosenSeries(chosen.series_instance_uid, selection.reason) if chosen and reads else None,
        passed_over=selection.passed_over,
        bundle=rule.bundle or settings.model.bundle,
        preset=rule.preset or settings.model.preset,
        priority="stat" if rule.urgent else "routine",
        destinations=rule.destinations or tuple(each.name for each in settings.destinations),
    )


def _outcome(rule: Rule, selection: Selection) -> tuple[bool, str]:
    if rule.read is False:
        return False, "passed over: the rule says that it is not to be read"
    if selection.refusal is None:
        return True, "read"
    if rule.read or selection.asked_for:
        return True, f"rejected, which a report says: {selection.refusal}"
    return False, f"passed over in silence: {selection.refusal}"
