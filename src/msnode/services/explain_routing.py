"""What would become of the studies in a folder, and why; nothing is read, sent or recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from msnode.dicom.uids import is_own
from msnode.domain.imaging import FLAIR
from msnode.routing.rules import Rule, StudyFacts, decide
from msnode.series.copies import same_volume, without_copies
from msnode.series.folder import instances_below
from msnode.series.select import select
from msnode.series.volume import group_series
from msnode.services.router import geometry_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from pydicom import Dataset

    from msnode.domain.imaging import Selection, Series
    from msnode.domain.provenance import PassedOver
    from msnode.routing.rules import Decision, Missed
    from msnode.series.select import SelectionRules


@dataclass(frozen=True)
class Defaults:
    """What holds where no rule says otherwise: bundle, preset, and the names of all destinations."""

    bundle: str
    preset: str
    destinations: tuple[str, ...]


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
        remarks: what a reader of the results should know of the files and of the choice.
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
    remarks: tuple[str, ...]
    bundle: str
    preset: str
    priority: str
    destinations: tuple[str, ...]


def explain_folder(
    path: Path,
    rules: Sequence[Rule],
    selection: SelectionRules,
    defaults: Defaults,
    *,
    calling_aes: frozenset[str],
    at: datetime,
) -> tuple[Explanation, ...]:
    """Every study in the files below `path`, by Study Instance UID.

    Args:
        path: a folder, or one file.
        rules: tried in order.
        selection: limits of the rules that pick the FLAIR.
        defaults: what holds where no rule says otherwise.
        calling_aes: AE titles under which the studies would be sent.
        at: when they would be complete, local time.

    Raises:
        NotReadable: see `instances_below`.
    """
    instances, left_out = instances_below(path)
    series = group_series(instances)
    explained = []
    for _, grouped in groupby(series, key=lambda each: each.study_instance_uid):
        study = tuple(grouped)
        chosen = select(study, selection, same_volume=same_volume)
        copies = [said for one in chosen.series.values() for said in without_copies(one)[1]]
        chosen = replace(chosen, remarks=(*left_out, *chosen.remarks, *copies))
        facts = StudyFacts(
            calling_aes,
            at,
            headers=partial(_headers, study),
            geometry=partial(geometry_of, chosen),
        )
        explained.append(_explain(study[0].study_instance_uid, chosen, decide(rules, facts), defaults))
    return tuple(explained)


def _headers(study: Sequence[Series]) -> list[Dataset]:
    return [header for each in study if not is_own(header := each.instances[0].header)]


def _explain(
    study_instance_uid: str, selection: Selection, decision: Decision, defaults: Defaults
) -> Explanation:
    rule = decision.rule or Rule("")
    reads, outcome = _outcome(rule, selection)
    chosen = selection.series.get(FLAIR)
    return Explanation(
        study_instance_uid=study_instance_uid,
        rule=rule.name or None,
        missed=decision.missed,
        reads=reads,
        outcome=outcome,
        series=ChosenSeries(chosen.series_instance_uid, selection.reason) if chosen and reads else None,
        passed_over=selection.passed_over,
        remarks=selection.remarks,
        bundle=rule.bundle or defaults.bundle,
        preset=rule.preset or defaults.preset,
        priority="stat" if rule.urgent else "routine",
        destinations=rule.destinations or defaults.destinations,
    )


def _outcome(rule: Rule, selection: Selection) -> tuple[bool, str]:
    if rule.read is False:
        return False, "passed over: the rule says that it is not to be read"
    if selection.refusal is None:
        return True, "read"
    if rule.read or selection.asked_for:
        return True, f"rejected, which a report says: {selection.refusal}"
    return False, f"passed over in silence: {selection.refusal}"
