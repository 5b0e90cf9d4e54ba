"""The stages in order for one reading of one study; no I/O of its own beyond reading source pixels."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.header import integer, patient_key
from msnode.domain.findings import LOW_QUALITY
from msnode.domain.imaging import FLAIR
from msnode.encode import encode_rejection, encode_rejection_note, encode_results, normalise
from msnode.errors import NoEligibleSeries, NotReadable, OutsideModelScope, Rejected, SeveralPatients
from msnode.measure.burden import measure
from msnode.reading.identity import SEVERAL_PATIENTS, several_patients, with_one_identity
from msnode.reading.outcome import Found, Reading, selection_digest
from msnode.reading.segment_volume import segment_volume
from msnode.reading.summary import ReadingStatus
from msnode.segment.scope import IN_SCOPE, REFUSAL, ScopeVerdict, brain_volume_ml, judge_scope
from msnode.series.copies import same_volume, without_copies
from msnode.series.select import select
from msnode.series.volume import to_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from msnode.domain.imaging import Instance, Prepared, Selection, Series, SourceVolume
    from msnode.domain.provenance import Provenance
    from msnode.encode import Replaced, ResultRules
    from msnode.reading.outcome import Former, ReadingRules
    from msnode.reading.segment_volume import Network


class _Clock:
    """Collects seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.seconds[name] = round(taken, 4)


def read_study(
    study: Sequence[Series],
    rules: ReadingRules,
    provenance: Provenance,
    load_network: Callable[[], Network],
    *,
    asked_for: bool = False,
    former: Former | None = None,
    replaced: Sequence[Replaced] = (),
    remarks: Sequence[str] = (),
) -> Reading:
    """Read one study: select, volume, preprocess, segment, measure, encode.

    An image that the revision before has read is not read again: where the identity has changed, what was
    found is encoded again under the new one; where it has not, the results stand.

    If the images of the selected series are refused, the next candidate is read, with a remark.

    Args:
        study: every series of the study that is known, without objects a node made.
        rules: selection rules, recipe and lesion definition.
        provenance: identity of model and settings, recorded start; its `runtime` is filled in here.
        load_network: gives the model, resident or not; called only when a network is to run.
        asked_for: a person asked for this reading, so that silence is never an answer.
        former: the revision before, if any.
        replaced: what destinations have of earlier revisions; rejected where this reading replaces it.
        remarks: what a reader of the results should know of how the study came.

    Returns:
        A reading of any status. Input that cannot be read is a status, not an exception.

    Raises:
        ModelError, Transient: the model or the machine failed; nothing is known about the study.
    """
    clock = _Clock()
    numbers = frozenset(
        n for s in study for i in s.instances if (n := integer(i.header, "SeriesNumber")) is not None
    )
    provenance = replace(provenance, known_series_numbers=provenance.known_series_numbers | numbers)
    contradiction = several_patients(study)
    if not contradiction:
        study = with_one_identity(study)
    with clock.stage("select"):
        selection = select(study, rules.selection, same_volume=same_volume)
    removed = _removed(selection, former)
    if (
        former is not None
        and (same := _nothing_new(selection, former, contradiction))
        and not (former.status == ReadingStatus.REJECTED and _has_another(study, selection, rules))
    ):
        return Reading(ReadingStatus.UNCHANGED, same, selection, provenance)
    if removed:  # what cannot be read replaces nothing
        provenance, replaced = replace(provenance, replaced_reports={}), ()
    why = NotReadable(removed) if removed else selection.refusal
    if why is None and contradiction:
        why = SeveralPatients(contradiction)
    outcome = (
        _Refused(selection, None, why)
        if why is not None
        else _read_candidates(
            study, selection, rules, provenance, load_network, former=former, remarks=remarks, clock=clock
        )
    )
    if isinstance(outcome, _Refused):
        selection = outcome.selection
        if not (asked_for or selection.asked_for):
            return Reading(
                ReadingStatus.PASSED_OVER, str(outcome.why), selection, provenance, timings_s=clock.seconds
            )
        candidates = _candidates(study, selection, outcome.source)
        reading = _reject(
            outcome.why, candidates, selection, provenance, rules.results, former=former, clock=clock
        )
        outcome = replace(reading, source=outcome.source, removed=bool(removed))
    return _reject_replaced(outcome, replaced)


@dataclass(frozen=True, eq=False)
class _Refused:
    """A selection that could not be read: its series as a volume, if it is one, and why."""

    selection: Selection
    source: SourceVolume | None
    why: Rejected


def _read_candidates(
    study: Sequence[Series],
    selection: Selection,
    rules: ReadingRules,
    provenance: Provenance,
    load_network: Callable[[], Network],
    *,
    former: Former | None,
    remarks: Sequence[str],
    clock: _Clock,
) -> Reading | _Refused:
    """Read the best series; if its images are refused, the next one. If all are, the first refusal counts."""
    read = partial(
        _read_candidate, study, rules, provenance, load_network, former=former, remarks=remarks, clock=clock
    )
    first = outcome = read(selection)
    refused: dict[str, str] = {}
    while isinstance(outcome, _Refused):
        refused[outcome.selection.series[FLAIR].series_instance_uid] = str(outcome.why)
        selection = select(study, rules.selection, refused=refused, same_volume=same_volume)
        if not selection.series:
            break
        if former is not None and (same := _nothing_new(selection, former, "")):
            return Reading(ReadingStatus.UNCHANGED, same, selection, provenance)
        outcome = read(selection)
    if isinstance(outcome, Reading) or isinstance(first, Reading):
        return outcome
    passed = first.selection.passed_over
    said = tuple(replace(p, reason=refused.get(p.series_instance_uid, p.reason)) for p in passed)
    return replace(first, selection=replace(first.selection, passed_over=said))


def _has_another(study: Sequence[Series], selection: Selection, rules: ReadingRules) -> bool:
    """Whether there is a series to read where the images of the selected one are refused."""
    refused = {s.series_instance_uid: "refused before" for s in selection.series.values()}
    return bool(refused and select(study, rules.selection, refused=refused, same_volume=same_volume).series)


def _read_candidate(
    study: Sequence[Series],
    rules: ReadingRules,
    provenance: Provenance,
    load_network: Callable[[], Network],
    selection: Selection,
    *,
    former: Former | None,
    remarks: Sequence[str],
    clock: _Clock,
) -> Reading | _Refused:
    source = None
    try:
        with clock.stage("volume"):
            series, copies = without_copies(selection.series[FLAIR])
            source = to_volume(series, study)
        source = replace(source, warnings=(*remarks, *selection.remarks, *copies, *source.warnings))
        known = former if former and former.image_digest == source.image_digest else None
        return _read_series(source, selection, rules, provenance, load_network, known=known, clock=clock)
    except Rejected as refusal:
        why = type(refusal)("; ".join((str(refusal), *selection.remarks)))
        return _Refused(selection, source, why)


def _removed(selection: Selection, former: Former | None) -> str:
    """Why the bytes that this reading needs are not here; empty where they are."""
    if isinstance(selection.refusal, NotReadable):
        return str(selection.refusal)
    return former.gone if former is not None else ""


def _nothing_new(selection: Selection, former: Former, contradiction: str) -> str:
    """Why the results of the revision before stand, as far as headers tell; empty where they do not."""
    if contradiction or former.reason.startswith(SEVERAL_PATIENTS):
        return ""  # identity depends on other series too
    same = selection.series and selection_digest(selection) == former.selection_digest
    if same and former.since is None:
        return "the same instances as in the revision before"
    if former.gone and isinstance(selection.refusal, NoEligibleSeries):
        return f"nothing new of the series that revision {former.revision} read; {former.gone}"
    return ""


def _read_series(
    source: SourceVolume,
    selection: Selection,
    rules: ReadingRules,
    provenance: Provenance,
    load_network: Callable[[], Network],
    *,
    known: Former | None,
    clock: _Clock,
) -> Reading:
    """Read a volume, or take over what the revision before found in the very same image."""
    identity = _identity(source.frames[0].instance)
    stands = known is not None and known.identity_digest == identity and known.since is None
    if known is not None and stands and known.status != ReadingStatus.REJECTED:
        why = "the same image and identity as in the revision before, in other bytes"
        return Reading(ReadingStatus.UNCHANGED, why, selection, provenance)
    if known is not None and (stands or known.made_with(provenance)):
        found = _found_before(known)
        origin = f", as found by revision {known.revision}"
    else:
        found, origin = _find(source, rules, load_network, clock), ""
    provenance = replace(provenance, runtime=found.runtime)
    with clock.stage("measure"):
        findings = measure(
            found.lesion_map,
            patient_key=patient_key(source.frames[0].instance.header),
            series_instance_uid=source.series.series_instance_uid,
            bundle_sha256=provenance.model.sha256 if provenance.model else "",
        )
        findings = replace(findings, brain_volume_ml=found.brain_volume_ml, limitations=found.remarks)
    with clock.stage("encode"):
        outputs = encode_results(
            source, found.lesion_map, findings, provenance, rules.results, probability=found.probability
        )
    return Reading(
        ReadingStatus.COMPLETED, f"{findings.count} lesions, {findings.total_volume_mm3:.0f} mm3{origin}",
        selection, provenance, outputs, identity, source, found.lesion_map, findings, found.scope,
        found.probability, rules.results.mark_below, timings_s=clock.seconds,
    )  # fmt: skip


def _found_before(known: Former) -> Found:
    """What the revision before found.

    Raises:
        Rejected: it was refused then.
    """
    if known.status == ReadingStatus.REJECTED:
        raise (OutsideModelScope if known.outside_scope else Rejected)(known.reason)
    return known.load_found()


def _find(
    source: SourceVolume, rules: ReadingRules, load_network: Callable[[], Network], clock: _Clock
) -> Found:
    with clock.stage("model"):
        network = load_network()
    scope = ScopeVerdict(IN_SCOPE)

    def judge(prepared: Prepared) -> None:
        nonlocal scope
        scope = judge_scope(rules.scope, source.volume.grid, source.frames[0].instance.header, prepared)
        scope.raise_refusal()

    segmented = segment_volume(source.volume, network, rules.lesions, check=judge, stage=clock.stage)
    quality = tuple(f"{LOW_QUALITY}{text}." for text in segmented.prepared.warnings)
    volume = brain_volume_ml(segmented.prepared)
    return Found(
        lesion_map=segmented.lesion_map,
        scope=scope,
        remarks=scope.sentences + quality,
        brain_volume_ml=None if volume is None else round(volume, 1),  # as it is stored: always the same
        runtime=network.runtime_name,
        probability=(
            np.rint(segmented.probability.data * 255).astype(np.uint8)
            if "probability" in rules.results.kinds
            else None
        ),
    )


def _reject(
    refusal: Rejected,
    candidates: Sequence[Instance],
    selection: Selection,
    provenance: Provenance,
    rules: ResultRules,
    *,
    former: Former | None,
    clock: _Clock,
) -> Reading:
    """The report of a refusal, at most one a reason and identity."""
    identity = _identity(candidates[0])
    if former is not None and former.rejection == (str(refusal), identity):
        why = f"rejected for the reason that was reported before: {refusal}"
        return Reading(ReadingStatus.UNCHANGED, why, selection, provenance)
    with clock.stage("encode"):
        outputs = encode_rejection(candidates, str(refusal), provenance, rules)
    outside = isinstance(refusal, OutsideModelScope)
    return Reading(
        ReadingStatus.REJECTED, str(refusal), selection, provenance, outputs, identity,
        scope=ScopeVerdict(REFUSAL, (str(refusal),)) if outside else None, timings_s=clock.seconds,
    )  # fmt: skip


def _reject_replaced(reading: Reading, replaced: Sequence[Replaced]) -> Reading:
    """With the notes that reject what destinations have of earlier revisions, after what replaces it."""
    if reading.identity_digest is None:
        return reading
    notes = tuple(encode_rejection_note(r, reading.identity_digest, reading.provenance) for r in replaced)
    return replace(reading, outputs=reading.outputs + notes)


def _identity(instance: Instance) -> str:
    return normalise(instance.header).identity_digest


def _candidates(
    study: Sequence[Series], selection: Selection, source: SourceVolume | None
) -> tuple[Instance, ...]:
    """The instances that a rejection names, and takes its identity from the first of.

    The volume's in its order, or else the chosen series', or else every instance of the study.
    """
    if source is not None:
        return tuple({f.instance.sop_instance_uid: f.instance for f in source.frames}.values())
    chosen = selection.series.get(FLAIR)
    return tuple(i for s in ([chosen] if chosen else study) for i in s.instances)
