"""The structured report (Comprehensive 3D SR, PS3.3 A.35.13; PS3.16 TID 1500).

A reading carries a count and volumes. A rejection carries its reason and not a single number: a count of
zero on a study that nobody read would be a false negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from msnode.domain import Output
from msnode.encode import codes
from msnode.encode.content import CONTEXT, MODIFIER, code, container, number, segments, text, uidref
from msnode.encode.normalise import tolerant_values
from msnode.encode.provenance import (
    ResultIdentity,
    describe,
    new_object,
    series_uid_of,
    stamp,
)
from msnode.identity import EQUIPMENT, derive_uid
from msnode.lesions import is_uncertain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydicom.sr.coding import Code

    from msnode.domain import Finding, Findings, Instance, Provenance, SourceVolume

NOT_VERIFIED = "Result of an algorithm, not verified by a physician."

_KIND = "sr"


def encode_sr(
    source: SourceVolume,
    findings: Findings,
    provenance: Provenance,
    seg: Output | None,
    *,
    mark_below: float = 0.0,
    identity: ResultIdentity | None = None,
) -> Output:
    """Write the report on a volume that was read, with or without lesions.

    Args:
        source: the volume that was read; its warnings become comments.
        findings: lesions, count and total volume.
        provenance: what made the result; its model must be known.
        seg: the segmentation whose segment numbers are the findings' labels; None without lesions.
        mark_below: lesions of lower confidence are named in a comment.
        identity: what the results of one reading share; made from the other arguments where not given.

    Returns:
        An output of kind "sr".

    Raises:
        ValueError: there are lesions but no segmentation, or the model is not known.
    """
    model = provenance.model
    if model is None or (findings.lesions and seg is None):
        raise ValueError("a report on a reading needs its model, and the segmentation of its lesions")
    identity = identity or ResultIdentity.of_reading(source, provenance)
    segmentation = seg.dataset if seg is not None else None
    measurements = container(
        codes.IMAGING_MEASUREMENTS,
        [
            text(codes.ALGORITHM_NAME, model.name, MODIFIER),
            text(codes.ALGORITHM_VERSION, model.version, MODIFIER),
            text(codes.ALGORITHM_PARAMETERS, describe(provenance), MODIFIER),
            _brain_group(findings, segmentation, source, identity),
            *(_lesion_group(f, segmentation, source) for f in findings.lesions if segmentation),
        ],
    )
    outcome = codes.ALL_SUCCEEDED_WITH_FINDINGS if findings.lesions else codes.ALL_SUCCEEDED_WITHOUT_FINDINGS
    comments = [NOT_VERIFIED, *_marks(findings, mark_below), *source.warnings, *identity.header.defects]
    evaluations = _evaluations(outcome, comments)
    instances = [f.instance for f in source.frames]
    with tolerant_values():
        ds = _document(identity, [measurements, evaluations])
        _reference_evidence(ds, instances, segmentation)
    return Output(kind=_KIND, dataset=ds)


def encode_rejection_sr(
    instances: Sequence[Instance],
    reason: str,
    provenance: Provenance,
    *,
    identity: ResultIdentity | None = None,
) -> Output:
    """Write the report on a study that was not read: the reason, and no number anywhere.

    Args:
        instances: what was looked at, at least one. Identity comes from the first, of which only the
            Study Instance UID is needed; those of another study are not referenced.
        reason: why nothing was read, without patient data.
        provenance: what made the decision; the model may be None.
        identity: what the results share; made from the other arguments where not given.

    Returns:
        An output of kind "sr".
    """
    identity = identity or ResultIdentity.of_rejection(instances, reason, provenance)
    comments = [
        f"The study was not read: {reason}",
        "No lesion was counted or measured; this is not a negative finding.",
        describe(provenance),
        *identity.header.defects,
    ]
    with tolerant_values():
        ds = _document(identity, [_evaluations(codes.NONE_SUCCEEDED, comments)])
        _reference_evidence(ds, instances, None)
    return Output(kind=_KIND, dataset=ds)


def _brain_group(
    findings: Findings, segmentation: Dataset | None, source: SourceVolume, identity: ResultIdentity
) -> Dataset:
    """Count and total volume (TID 1501).

    With lesions it also names all segments and so is a TID 1411 group: validators check every group of a
    report as TID 1411 once one group references a segment.
    """
    # with the study: an empty patient ID is shared by many patients
    tracking_uid = derive_uid("tracking", *identity.header.patient_key, _study_uid(identity), "brain")
    items = [
        text(codes.TRACKING_IDENTIFIER, "Brain", CONTEXT),
        uidref(codes.TRACKING_UID, tracking_uid, CONTEXT),
        code(codes.FINDING, codes.LESION_OF_BRAIN),
        *_segmented(segmentation, [f.lesion.label for f in findings.lesions], source),
        code(codes.FINDING_SITE, codes.BRAIN, MODIFIER),
        number(codes.NUMBER_OF_LESIONS, findings.count, codes.NO_UNITS),
        number(codes.VOLUME, findings.total_volume_mm3, codes.CUBIC_MILLIMETRE),
    ]
    return container(codes.MEASUREMENT_GROUP, items, template="1411" if segmentation else "1501")


def _lesion_group(finding: Finding, segmentation: Dataset, source: SourceVolume) -> Dataset:
    """Identity, segment, volume and confidence of one lesion (TID 1411)."""
    items = [
        text(codes.TRACKING_IDENTIFIER, finding.tracking_id, CONTEXT),
        uidref(codes.TRACKING_UID, finding.tracking_uid, CONTEXT),
        code(codes.FINDING, codes.LESION_OF_BRAIN),
        *_segmented(segmentation, [finding.lesion.label], source),
        code(codes.FINDING_SITE, codes.BRAIN, MODIFIER),
        number(codes.VOLUME, finding.lesion.volume_mm3, codes.CUBIC_MILLIMETRE),
    ]
    if finding.lesion.confidence is not None:
        items.append(number(codes.CERTAINTY, 100 * finding.lesion.confidence, codes.PERCENT))
    return container(codes.MEASUREMENT_GROUP, items, template="1411")


def _marks(findings: Findings, mark_below: float) -> list[str]:
    """Names the lesions of low confidence, where there are any."""
    names = [f.tracking_id for f in findings.lesions if is_uncertain(f.lesion, mark_below)]
    return [f"Low confidence (under {100 * mark_below:.0f} %): {', '.join(names)}."] if names else []


def _segmented(segmentation: Dataset | None, labels: list[int], source: SourceVolume) -> list[Dataset]:
    if segmentation is None:
        return []
    return [
        segments(codes.REFERENCED_SEGMENT, segmentation, labels),
        uidref(codes.SOURCE_SERIES, source.series.series_instance_uid),
    ]


def _evaluations(outcome: Code, comments: Iterable[str]) -> Dataset:
    """Qualitative Evaluations with the summary (CID 6047), one comment a line of text."""
    items = [code(codes.SUMMARY, outcome), *(text(codes.COMMENT, c) for c in comments)]
    return container(codes.QUALITATIVE_EVALUATIONS, items)


def _document(identity: ResultIdentity, findings: list[Dataset]) -> Dataset:
    """The SR document (PS3.3 C.17.2) with its root, observer and `findings`."""
    ds = new_object(Comprehensive3DSRStorage, _KIND, identity)
    ds.Modality = "SR"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    root = container(
        codes.REPORT_TITLE,
        [
            code(
                codes.LANGUAGE,
                codes.ENGLISH,
                MODIFIER,
                children=[code(codes.COUNTRY, codes.UNITED_STATES, MODIFIER)],
            ),
            code(codes.OBSERVER_TYPE, codes.DEVICE, CONTEXT),
            uidref(codes.DEVICE_OBSERVER_UID, identity.device_uid, CONTEXT),
            text(codes.DEVICE_OBSERVER_NAME, EQUIPMENT, CONTEXT),
            text(codes.DEVICE_OBSERVER_MANUFACTURER, EQUIPMENT, CONTEXT),
            text(codes.DEVICE_OBSERVER_MODEL, EQUIPMENT, CONTEXT),
            code(codes.PROCEDURE_REPORTED, codes.MRI, MODIFIER),
            *findings,
        ],
        template="1500",
    )
    del root.RelationshipType
    ds.update(root)
    _reference_predecessor(ds, identity)
    stamp(ds, _KIND, identity)
    return ds


def _reference_predecessor(ds: Dataset, identity: ResultIdentity) -> None:
    """Name the report that this revision replaces (PS3.3 C.17.2.2)."""
    replaced = identity.provenance.replaces_sop_instance_uid
    if replaced is not None:
        entry = (series_uid_of(replaced), str(Comprehensive3DSRStorage), replaced)
        ds.PredecessorDocumentsSequence = [_references(_study_uid(identity), [entry])]


def _study_uid(identity: ResultIdentity) -> str:
    return str(identity.header.dataset.StudyInstanceUID)


def _reference_evidence(ds: Dataset, instances: Sequence[Instance], segmentation: Dataset | None) -> None:
    """Name what the report was made from (PS3.3 C.17.2, Current Requested Procedure Evidence Sequence)."""
    entries = {}
    for instance in instances:
        header = instance.header
        if str(header.get("StudyInstanceUID", "")) == str(ds.StudyInstanceUID):
            named = [str(header.get(k) or "") for k in ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")]
            if all(named):
                entries[named[2]] = (named[0], named[1], named[2])
    if segmentation is not None:
        own = (segmentation.SeriesInstanceUID, segmentation.SOPClassUID, segmentation.SOPInstanceUID)
        entries[str(own[2])] = (str(own[0]), str(own[1]), str(own[2]))
    if entries:
        evidence = _references(str(ds.StudyInstanceUID), list(entries.values()))
        ds.CurrentRequestedProcedureEvidenceSequence = [evidence]


def _references(study_uid: str, entries: list[tuple[str, str, str]]) -> Dataset:
    """Hierarchical SOP Instance Reference (PS3.3 Table C.17-3) of (series, SOP class, SOP instance)."""
    by_series: dict[str, list[Dataset]] = {}
    for series_uid, sop_class_uid, sop_instance_uid in entries:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        by_series.setdefault(series_uid, []).append(item)
    series_items = []
    for series_uid, items in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID, series.ReferencedSOPSequence = series_uid, items
        series_items.append(series)
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = study_uid, series_items
    return study
