"""The lesions as a Segmentation object (PS3.3 A.51): a segment a lesion, one segment, or a label map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from highdicom.seg import SegmentationTypeValues

from msnode.dicom.uids import derive_uid
from msnode.encode import codes
from msnode.encode.kinds import segment_number
from msnode.encode.provenance import ResultIdentity
from msnode.encode.segmentation import Content, Segment, segmentation
from msnode.measure.lesions import is_uncertain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain.findings import Finding, Findings, LesionMap
    from msnode.domain.imaging import SourceVolume
    from msnode.domain.provenance import Output, Provenance
    from msnode.encode.kinds import SegmentationForm

ALL_LESIONS = "MS lesions"
"""Tracking identifier of the lesions as a whole."""

_KIND = "seg"
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
    """Write the lesions as one Segmentation instance.

    "lesions" and "single" are BINARY in explicit VR little endian; "labelmap" is a Label Map Segmentation
    (DICOM supplement 243) in RLE Lossless. "single" and "labelmap" hold every plane of the source: some
    readers close the gap where a plane is missing. "lesions" holds only the planes that each lesion touches.
    `kinds.segment_number` says which segment holds a lesion. The label of a segment gives the number, volume
    and confidence of its lesion.

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
    if form == "single":
        segments: tuple[Segment, ...] = (_all_lesions(findings, source, identity, mark_below),)
        pixels: NDArray[Any] = (lesion_map.labels > 0).astype(np.uint8)
    else:
        segments = tuple(_lesion(f, form, mark_below) for f in findings.lesions)
        pixels = lesion_map.labels.astype(np.min_scalar_type(findings.count))
    content = Content(
        kind=_KIND,
        form=SegmentationTypeValues.LABELMAP if form == "labelmap" else SegmentationTypeValues.BINARY,
        label="MS_LESIONS",
        description="Multiple sclerosis lesions, AI result, not verified",
        segments=segments,
        pixels=pixels,
        every_plane=form != "lesions",
    )
    return segmentation(source, content, model, identity)


def all_lesions_uid(source: SourceVolume, identity: ResultIdentity) -> str:
    """Tracking UID of the lesions as a whole; it belongs to patient, study and series."""
    header = identity.header
    return derive_uid(
        "tracking", *header.patient_key, str(header.dataset.StudyInstanceUID),
        source.series.series_instance_uid, ALL_LESIONS,
    )  # fmt: skip


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
    """The one segment of all lesions."""
    uncertain = sum(is_uncertain(f.lesion, mark_below) for f in findings.lesions)
    mark = f", {uncertain} of low confidence" if uncertain else ""
    volume = f"{findings.total_volume_mm3:.1f} mm3 ({_millilitres(findings.total_volume_mm3)})"
    return Segment(
        number=1,
        label=f"{ALL_LESIONS} ({findings.count})",
        description=f"{findings.count} lesion{'s' * (findings.count > 1)}, total volume {volume}{mark}",
        colour=codes.lesion_colour(1),
        tracking_id=ALL_LESIONS,
        tracking_uid=all_lesions_uid(source, identity),
    )


def _millilitres(volume_mm3: float) -> str:
    volume = volume_mm3 / 1000
    return f"{volume:.3f} ml" if volume < _FINE_BELOW_ML else f"{volume:.2f} ml"
