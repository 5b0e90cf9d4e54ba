"""The structured report (PS3.3 A.35; PS3.16 TID 1500): what it says of a reading, or of its refusal.

A reading carries a count, volumes and diameters. A rejection carries its reason and not a single number: a
count of zero on a study that nobody read would be a false negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.uids import derive_uid
from msnode.domain.findings import LOW_QUALITY, OUTSIDE_SCOPE
from msnode.domain.provenance import Output
from msnode.encode import codes
from msnode.encode.content import (
    CONTEXT,
    MODIFIER,
    code,
    container,
    number,
    point_in_image,
    point_in_space,
    segments,
    text,
    uidref,
)
from msnode.encode.kinds import segment_number
from msnode.encode.normalise import tolerant_values
from msnode.encode.provenance import ResultIdentity, describe
from msnode.encode.sr_document import document
from msnode.measure.lesions import is_uncertain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

    from msnode.domain.findings import Finding, Findings, Lesion
    from msnode.domain.imaging import Instance, SourceVolume
    from msnode.domain.provenance import Provenance
    from msnode.encode.kinds import SegmentationForm

NOT_VERIFIED = "Result of an algorithm, not verified by a physician."
BRAIN_VOLUME_MEANING = "Brain volume: brain and ventricles inside the stack"
LONGEST_AXIAL_MEANING = "Longest axial diameter"


def encode_sr(
    source: SourceVolume,
    findings: Findings,
    provenance: Provenance,
    seg: Output | None,
    *,
    mark_below: float = 0.0,
    form: SegmentationForm = "lesions",
    kind: str = "sr",
    identity: ResultIdentity | None = None,
) -> Output:
    """Write the report on a volume that was read, with or without lesions.

    Args:
        source: the volume that was read; its warnings become comments.
        findings: lesions, count, total volume, brain volume; limitations are said in words and in code.
        provenance: what made the result; its model must be known.
        seg: the segmentation of the lesions; None without lesions.
        mark_below: lesions of lower confidence are named in a comment.
        form: the form of `seg`.
        kind: "sr" for Comprehensive 3D SR, "sr-comprehensive" or "sr-enhanced" for archives that do not take
            it: these say a lesion's centre as a point in the nearest source plane.
        identity: what the results of one reading share; made from the other arguments where not given.

    Returns:
        An output of this kind.

    Raises:
        ValueError: there are lesions but no segmentation, or the model is not known.
    """
    model = provenance.model
    if model is None or (findings.lesions and seg is None):
        raise ValueError("a report on a reading needs its model, and the segmentation of its lesions")
    identity = identity or ResultIdentity.of_reading(source, provenance)
    centres = _Centres(kind, source, identity)
    groups = [_brain_group(findings, seg, form, source, identity=identity, centres=centres)]
    if seg is not None:
        groups += [_lesion_group(f, seg, form, source, centres) for f in findings.lesions]
    measurements = container(
        codes.IMAGING_MEASUREMENTS,
        [
            text(codes.ALGORITHM_NAME, model.name, MODIFIER),
            text(codes.ALGORITHM_VERSION, model.version, MODIFIER),
            text(codes.ALGORITHM_PARAMETERS, describe(provenance), MODIFIER),
            *groups,
        ],
    )
    comments = [
        NOT_VERIFIED,
        *_marks(findings, mark_below),
        *source.warnings,
        *findings.limitations,
        *identity.header.defects,
    ]
    evaluations = _evaluations(_outcome(findings), findings.limitations, comments)
    instances = [f.instance for f in source.frames]
    with tolerant_values():
        ds = document(
            kind, identity, [measurements, evaluations], instances, None if seg is None else seg.dataset
        )
    return Output(kind=kind, dataset=ds)


def encode_rejection_sr(
    instances: Sequence[Instance],
    reason: str,
    provenance: Provenance,
    *,
    kind: str = "sr",
    identity: ResultIdentity | None = None,
) -> Output:
    """Write the report on a study that was not read: the reason, and no number anywhere.

    Args:
        instances: what was looked at, at least one. Identity comes from the first, of which only the
            Study Instance UID is needed; those of another study are not referenced.
        reason: why nothing was read, without patient data.
        provenance: what made the decision; the model may be None.
        kind: as for `encode_sr`.
        identity: what the results share; made from the other arguments where not given.

    Returns:
        An output of this kind.
    """
    identity = identity or ResultIdentity.of_rejection(instances, reason, provenance)
    comments = [
        f"The study was not read: {reason}",
        "No lesion was counted or measured; this is not a negative finding.",
        describe(provenance),
        *identity.header.defects,
    ]
    with tolerant_values():
        ds = document(kind, identity, [_evaluations(codes.NONE_SUCCEEDED, [reason], comments)], instances)
    return Output(kind=kind, dataset=ds)


class _Centres:
    """Says where lesions have their centre, in the way that the class of the report can.

    Only Comprehensive 3D SR may hold a point in space (PS3.3 A.35.13.3).
    """

    def __init__(self, kind: str, source: SourceVolume, identity: ResultIdentity) -> None:
        self._in_space = kind == "sr"
        self._frame_of_reference = str(identity.header.dataset.FrameOfReferenceUID)
        self._frames = source.frames
        self._to_voxels = np.linalg.inv(source.volume.grid.affine)

    def of(self, lesions: Sequence[Lesion]) -> Dataset:
        """The content item: the mean position of all their voxels."""
        voxels = [lesion.voxel_count for lesion in lesions]
        x, y, z = np.average([lesion.centroid_lps_mm for lesion in lesions], axis=0, weights=voxels).tolist()
        if self._in_space:
            return point_in_space(codes.CENTER, (x, y, z), self._frame_of_reference)
        k, row, column, _ = self._to_voxels @ [x, y, z, 1.0]
        nearest = min(max(round(k), 0), len(self._frames) - 1)
        return point_in_image(codes.CENTER, float(column), float(row), self._frames[nearest])


def _brain_group(
    findings: Findings,
    seg: Output | None,
    form: SegmentationForm,
    source: SourceVolume,
    *,
    identity: ResultIdentity,
    centres: _Centres,
) -> Dataset:
    """Count, total volume and the brain's volume (TID 1501).

    With lesions it also names all segments and so is a TID 1411 group: validators check every group of a
    report as TID 1411 once one group references a segment. OHIF shows only numbers without modifiers, so
    count and total volume have none, and stops at a group without a place once another has one.
    """
    # with the study: an empty patient ID is shared by many patients
    study_uid = str(identity.header.dataset.StudyInstanceUID)
    tracking_uid = derive_uid("tracking", *identity.header.patient_key, study_uid, "brain")
    items = [
        text(codes.TRACKING_IDENTIFIER, "Brain", CONTEXT),
        uidref(codes.TRACKING_UID, tracking_uid, CONTEXT),
        code(codes.FINDING, codes.LESION_OF_BRAIN),
        *_segmented(seg, form, [f.lesion for f in findings.lesions], source),
        code(codes.FINDING_SITE, codes.BRAIN, MODIFIER),
        number(codes.NUMBER_OF_LESIONS, findings.count, codes.NO_UNITS),
        number(codes.VOLUME, findings.total_volume_mm3, codes.CUBIC_MILLIMETRE),
    ]
    if findings.brain_volume_ml is not None:
        of_what = [
            code(codes.FINDING_SITE, codes.BRAIN, MODIFIER),
            text(codes.EQUIVALENT_MEANING, BRAIN_VOLUME_MEANING, MODIFIER),
        ]
        items.append(number(codes.BRAIN_VOLUME, findings.brain_volume_ml, codes.MILLILITRE, of_what))
    if findings.lesions:
        items.append(centres.of([f.lesion for f in findings.lesions]))
    return container(codes.MEASUREMENT_GROUP, items, template="1411" if seg is not None else "1501")


def _lesion_group(
    finding: Finding, seg: Output, form: SegmentationForm, source: SourceVolume, centres: _Centres
) -> Dataset:
    """Identity, segment, centre, volume, diameter and confidence of one lesion (TID 1411)."""
    lesion = finding.lesion
    axial = [
        code(codes.IMAGE_VIEW, codes.AXIAL, MODIFIER),
        text(codes.EQUIVALENT_MEANING, LONGEST_AXIAL_MEANING, MODIFIER),
    ]
    items = [
        text(codes.TRACKING_IDENTIFIER, finding.tracking_id, CONTEXT),
        uidref(codes.TRACKING_UID, finding.tracking_uid, CONTEXT),
        code(codes.FINDING, codes.LESION_OF_BRAIN),
        *_segmented(seg, form, [lesion], source),
        code(codes.FINDING_SITE, codes.BRAIN, MODIFIER),
        number(codes.VOLUME, lesion.volume_mm3, codes.CUBIC_MILLIMETRE),
        number(codes.LONG_AXIS, lesion.longest_axial_mm, codes.MILLIMETRE, axial),
    ]
    if lesion.confidence is not None:
        items.append(number(codes.CERTAINTY, 100 * lesion.confidence, codes.PERCENT))
    items.append(centres.of([lesion]))
    return container(codes.MEASUREMENT_GROUP, items, template="1411")


def _marks(findings: Findings, mark_below: float) -> list[str]:
    """Names the lesions of low confidence, where there are any."""
    names = [f.tracking_id for f in findings.lesions if is_uncertain(f.lesion, mark_below)]
    return [f"Low confidence (under {100 * mark_below:.0f} %): {', '.join(names)}."] if names else []


def _segmented(
    seg: Output | None, form: SegmentationForm, lesions: Sequence[Lesion], source: SourceVolume
) -> list[Dataset]:
    if seg is None:
        return []
    numbers = sorted({segment_number(form, lesion.label) for lesion in lesions})
    return [
        segments(codes.REFERENCED_SEGMENT, seg.dataset, numbers),
        uidref(codes.SOURCE_SERIES, source.series.series_instance_uid),
    ]


def _outcome(findings: Findings) -> Code:
    """The summary of a reading (CID 6047): limits of scope or quality are said before its findings are."""
    if findings.limitations:
        return (
            codes.SOME_SUCCEEDED_WITH_FINDINGS if findings.lesions else codes.SOME_SUCCEEDED_WITHOUT_FINDINGS
        )
    return codes.ALL_SUCCEEDED_WITH_FINDINGS if findings.lesions else codes.ALL_SUCCEEDED_WITHOUT_FINDINGS


def _evaluations(outcome: Code, limitations: Sequence[str], comments: Iterable[str]) -> Dataset:
    """Qualitative Evaluations: the summary, what limits the reading in code, one comment a line of text."""
    items = [code(codes.SUMMARY, outcome)]
    if any(said.startswith(LOW_QUALITY) for said in limitations):
        items.append(code(codes.SERIES_QUALITY, codes.LIMITED_QUALITY))
    if any(said.startswith(OUTSIDE_SCOPE) for said in limitations):
        items.append(code(codes.MODEL_SCOPE, codes.OUTSIDE_MODEL_SCOPE))
    items.extend(text(codes.COMMENT, c) for c in comments)
    return container(codes.QUALITATIVE_EVALUATIONS, items)
