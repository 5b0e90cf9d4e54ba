"""The stages in order for one reading of one study; no I/O of its own beyond reading source pixels."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from msnode.domain import FLAIR
from msnode.encode import encode_rejection, encode_results
from msnode.errors import OutsideModelScope, Rejected
from msnode.lesions import find_lesions
from msnode.measure.burden import measure
from msnode.preprocess import recipes
from msnode.segment.confidence import with_confidence
from msnode.segment.scope import REFUSAL, ScopeVerdict, brain_volume_ml, judge_scope
from msnode.series.select import SelectionRules, select
from msnode.series.volume import to_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from msnode.domain import (
        Findings,
        Instance,
        LesionMap,
        Output,
        Prediction,
        Prepared,
        Provenance,
        Selection,
        Series,
        SourceVolume,
    )
    from msnode.preprocess.brain import Extractor
    from msnode.segment.bundle import Calibration, Scope

COMPLETED = "completed"
REJECTED = "rejected"
PASSED_OVER = "passed_over"
UNCHANGED = "unchanged"


class Network(Protocol):
    """What the pipeline needs of a model that is ready to run."""

    @property
    def runtime_name(self) -> str:
        """What runs it and in which precision."""

    @property
    def extract(self) -> Extractor | None:
        """Finds the brain for recipes that strip the skull; None where the bundle's does not."""

    def predict(self, prepared: Prepared) -> Prediction:
        """Probability and spread on the prepared grid; the last class is the lesion's."""


@dataclass(frozen=True)
class ReadingRules:
    """What a reading depends on beside pixels and weights.

    Attributes:
        selection: limits of the rules that pick the FLAIR.
        recipe: name of the preprocessing recipe.
        scope: what the bundle has seen in training.
        threshold: smallest lesion probability that counts.
        min_volume_mm3: smallest lesion.
        calibration: from a lesion's numbers to its confidence; None gives no confidence.
        mark_below_confidence: lesions of lower confidence are marked in every result.
    """

    selection: SelectionRules
    recipe: str
    scope: Scope
    threshold: float
    min_volume_mm3: float
    calibration: Calibration | None = None
    mark_below_confidence: float = 0.0


@dataclass(frozen=True, eq=False)
class Reading:
    """The outcome of one job.

    Attributes:
        status: "completed", "rejected" (a read was asked for and cannot be given), "passed_over"
            (nothing in the study asked for one) or "unchanged" (the revision before read the same bytes).
        reason: why, in one line.
        selection: what was taken and what was not.
        provenance: what the reading was made from.
        source: the series as a volume; None where it is none.
        lesion_map: lesions on the source grid; None unless completed.
        findings: the numbers; None unless completed.
        scope: the comparison with the model's training range; None where it was not reached.
        brain_volume_ml: brain and ventricles inside the stack, ml; None where it was not measured.
        mark_below_confidence: lesions of lower confidence are marked.
        outputs: the objects for the PACS, in the order in which they should arrive.
        timings_s: seconds per stage.
    """

    status: str
    reason: str
    selection: Selection
    provenance: Provenance
    outputs: tuple[Output, ...] = ()
    source: SourceVolume | None = None
    lesion_map: LesionMap | None = None
    findings: Findings | None = None
    scope: ScopeVerdict | None = None
    brain_volume_ml: float | None = None
    mark_below_confidence: float = 0.0
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def flair(self) -> Series | None:
        """The series that was read, or would have been."""
        return self.selection.series.get(FLAIR)


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
            self.seconds[name] = round(time.perf_counter() - start, 4)


def selection_digest(selection: Selection) -> str:
    """SHA-256 over the digests of the selected instances: equal digests need no second reading."""
    digests = sorted(i.digest for series in selection.series.values() for i in series.instances)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def read_study(
    study: Sequence[Series],
    rules: ReadingRules,
    provenance: Provenance,
    load_network: Callable[[], Network],
    *,
    asked_for: bool = False,
    former_selection: str | None = None,
) -> Reading:
    """Read one study: select, volume, preprocess, segment, measure, encode.

    Args:
        study: every series of the study that is known, without objects a node made.
        rules: selection rules, recipe and lesion definition.
        provenance: identity of model and settings, recorded start; its `runtime` is filled in here.
        load_network: gives the model, resident or not; called only when a series is to be read.
        asked_for: a person asked for this reading, so that silence is never an answer.
        former_selection: `selection_digest` of the revision before; an equal one is not read again.

    Returns:
        A reading of any status. Input that cannot be read is a status, not an exception.

    Raises:
        ModelError, Transient: the model or the machine failed; nothing is known about the study.
    """
    clock = _Clock()
    numbers = frozenset(int(n) for s in study for i in s.instances if (n := _series_number(i)) is not None)
    provenance = replace(provenance, known_series_numbers=provenance.known_series_numbers | numbers)
    with clock.stage("select"):
        selection = select(study, rules.selection)
    if selection.series and selection_digest(selection) == former_selection:
        return Reading(UNCHANGED, "the same instances as in the revision before", selection, provenance)
    try:
        if selection.refusal is not None:
            raise selection.refusal
        return _read_series(selection, rules, provenance, load_network, clock)
    except Rejected as refusal:
        if not (asked_for or selection.asked_for):
            return Reading(PASSED_OVER, str(refusal), selection, provenance, timings_s=clock.seconds)
        with clock.stage("encode"):
            outputs = encode_rejection(_candidates(study, selection), str(refusal), provenance)
        outside = isinstance(refusal, OutsideModelScope)
        return Reading(
            REJECTED, str(refusal), selection, provenance, outputs,
            scope=ScopeVerdict(REFUSAL, (str(refusal),)) if outside else None, timings_s=clock.seconds,
        )  # fmt: skip


def _read_series(
    selection: Selection,
    rules: ReadingRules,
    provenance: Provenance,
    load_network: Callable[[], Network],
    clock: _Clock,
) -> Reading:
    with clock.stage("volume"):
        source = to_volume(selection.series[FLAIR])
    with clock.stage("model"):
        network = load_network()
    provenance = replace(provenance, runtime=network.runtime_name)
    with clock.stage("preprocess"):
        prepared = recipes.get(rules.recipe).apply(source.volume, network.extract)
        header = source.frames[0].instance.header
        scope = judge_scope(rules.scope, source.volume.grid, header, prepared)
        scope.raise_refusal()
        quality = tuple(f"Low quality: {text}." for text in prepared.warnings)
        source = replace(source, warnings=source.warnings + scope.sentences + quality)
        brain_ml = brain_volume_ml(prepared)
    lesion_map = _lesions(network, prepared, rules, clock)
    with clock.stage("measure"):
        findings = measure(
            lesion_map,
            patient_key=patient_key(source.frames[0].instance),
            series_instance_uid=source.series.series_instance_uid,
            bundle_sha256=provenance.model.sha256 if provenance.model else "",
        )
    with clock.stage("encode"):
        outputs = encode_results(
            source, lesion_map, findings, provenance, mark_below=rules.mark_below_confidence
        )
    reason = f"{findings.count} lesions, {findings.total_volume_mm3:.0f} mm3"
    return Reading(
        COMPLETED, reason, selection, provenance, outputs, source, lesion_map, findings,
        scope=scope, brain_volume_ml=brain_ml, mark_below_confidence=rules.mark_below_confidence,
        timings_s=clock.seconds,
    )  # fmt: skip


def _lesions(network: Network, prepared: Prepared, rules: ReadingRules, clock: _Clock) -> LesionMap:
    """Lesions on the source grid, with their confidence where the bundle is calibrated.

    Of a large volume the arrays on the source grid are the most of the memory: of the classes only the
    lesion's is brought there, and the spread only where the members differ.
    """
    with clock.stage("segment"):
        prediction = network.predict(prepared)
    with clock.stage("restore"):
        probability = recipes.restore(prediction.probability[-1], prepared)
        spread = recipes.restore(prediction.spread, prepared) if prediction.spread.any() else None
    with clock.stage("lesions"):
        found = find_lesions(
            probability, threshold=rules.threshold, min_volume_mm3=rules.min_volume_mm3, spread=spread
        )
        return with_confidence(found, rules.calibration)


def patient_key(instance: Instance) -> tuple[str, str]:
    """(issuer of patient ID, patient ID): patients are told apart by both."""
    header = instance.header
    return str(header.get("IssuerOfPatientID") or ""), str(header.get("PatientID") or "")


def _series_number(instance: Instance) -> int | None:
    value = instance.header.get("SeriesNumber")
    try:
        return int(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None


def _candidates(study: Sequence[Series], selection: Selection) -> tuple[Instance, ...]:
    """The instances that a rejection names: the chosen series, or else every instance of the study."""
    chosen = selection.series.get(FLAIR)
    series = [chosen] if chosen else study
    return tuple(i for s in series for i in s.instances)
