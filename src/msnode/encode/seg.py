"""The lesions as a Segmentation object (PS3.3 A.51): a segment a lesion, one segment, or a label map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.uids import derive_uid
from msnode.encode import codes
from msnode.encode.frames import binary_frames, label_frames
from msnode.encode.kinds import segment_number
from msnode.encode.provenance import ResultIdentity
from msnode.encode.segmentation import Content, Segment, segmentation
from msnode.measure.lesions import is_uncertain

if TYPE_CHECKING:
    from msnode.domain.findings import Finding, Findings, LesionMap
    from msnode.domain.imaging import SourceVolume
    from msnode.domain.provenance import Output, Provenance
    from msnode.encode.kinds import SegmentationForm

_KIND = "seg"
_ALL = "MS lesions"
_LONG_STRING = 64
_FINE_BELOW_ML = 0.1
"""Smaller volumes are shown to a thousandth of a millilitre, that is to a cubic millimetre."""


def encode_seg(
    source: SourceVolume,
    lesion_map: LesionMap,
    findings: Findings,
    provenance: Provenance,
    *,
    form: SegmentationForm = "lesions",
    mark_below: float = 0.0,
    identity: ResultIdentity | None = None,
) -> Output:
    """Write the lesions as one Segmentation instance; frames without lesion are left out.

    "lesions" and "single" are BINARY in explicit VR little endian; "labelmap" is a Label Map Segmentation
    (DICOM supplement 243), in RLE Lossless where that makes it smaller. `kinds.segment_number` says which
    segment holds a lesion. Number, volume and confidence of a lesion stand in the label of its segment.

    Args:
        source: the volume that was read, classic or Enhanced.
        lesion_map: labels on the grid of `source`, (slice, row, column).
        findings: one finding a label, with tracking identifiers.
        provenance: what made the result; its model must be known.
        form: how lesions become segments.
        mark_below: lesions of lower confidence say so in label and description.
        identity: what the results of one reading share; made from the other arguments where not given.

    Returns:
        An output of kind "seg".

    Raises:
        ValueError: the map has no lesion, lies on another grid, or the model is not known.
    """
    model = provenance.model
    if not findings.lesions or model is None:
        raise ValueError("a segmentation needs at least one lesion and a model")
    if not lesion_map.grid.same_as(source.volume.grid):
        raise ValueError("the lesion map does not lie on the grid of its source")
    identity = identity or ResultIdentity.of_reading(source, provenance)
    labels = lesion_map.labels
    segments: tuple[Segment, ...]
    if form == "single":
        segments = (_all_lesions(findings, source, identity, mark_below),)
        frames = binary_frames((labels > 0).astype(np.uint8))
    else:
        segments = tuple(_lesion(f, form, mark_below) for f in findings.lesions)
        frames = label_frames(labels) if form == "labelmap" else binary_frames(labels)
    content = Content(
        kind=_KIND,
        segmentation_type="LABELMAP" if form == "labelmap" else "BINARY",
        label="MS_LESIONS",
        description="Multiple sclerosis lesions, AI result, not verified",
        segments=segments,
        frames=frames,
    )
    return segmentation(source, content, model, identity)


def _lesion(finding: Finding, form: SegmentationForm, mark_below: float) -> Segment:
    lesion = finding.lesion
    mark = ", low confidence" if is_uncertain(lesion, mark_below) else ""
    sure = "" if lesion.confidence is None else f", {100 * lesion.confidence:.0f} %"
    said = f", {_millilitres(lesion.volume_mm3)}{sure}{mark}"
    confidence = "" if lesion.confidence is None else f", confidence {lesion.confidence:.2f}"
    return Segment(
        number=segment_number(form, lesion.label),
        label=finding.tracking_id[: _LONG_STRING - len(said)] + said,
        description=f"{finding.tracking_id}, {lesion.volume_mm3:.1f} mm3{confidence}{mark}",
        colour=codes.lesion_colour(lesion.label),
        tracking_id=finding.tracking_id,
        tracking_uid=finding.tracking_uid,
    )


def _all_lesions(
    findings: Findings, source: SourceVolume, identity: ResultIdentity, mark_below: float
) -> Segment:
    """The one segment of all lesions; its tracking UID belongs to patient, study and series."""
    header = identity.header
    tracking_uid = derive_uid(
        "tracking", *header.patient_key, str(header.dataset.StudyInstanceUID),
        source.series.series_instance_uid, _ALL,
    )  # fmt: skip
    uncertain = sum(is_uncertain(f.lesion, mark_below) for f in findings.lesions)
    mark = f", {uncertain} of low confidence" if uncertain else ""
    volume = f"{findings.total_volume_mm3:.1f} mm3 ({_millilitres(findings.total_volume_mm3)})"
    return Segment(
        number=1,
        label=f"{_ALL} ({findings.count})",
        description=f"{findings.count} lesion{'s' * (findings.count > 1)}, total volume {volume}{mark}",
        colour=codes.lesion_colour(1),
        tracking_id=_ALL,
        tracking_uid=tracking_uid,
    )


def _millilitres(volume_mm3: float) -> str:
    volume = volume_mm3 / 1000
    return f"{volume:.3f} ml" if volume < _FINE_BELOW_ML else f"{volume:.2f} ml"
