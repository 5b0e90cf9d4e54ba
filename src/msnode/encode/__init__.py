"""Result objects of a reading or of its refusal, and the note that rejects what a revision replaces."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import dcmwrite

from msnode.encode.ko import encode_rejection_note
from msnode.encode.normalise import NormalisedHeader, normalise, tolerant_values
from msnode.encode.overlay import encode_overlay
from msnode.encode.provenance import SERIES_DESCRIPTIONS, Replaced, ResultIdentity, SentObject
from msnode.encode.seg import encode_seg
from msnode.encode.sr import encode_rejection_sr, encode_sr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msnode.domain import Findings, Instance, LesionMap, Output, Provenance, SourceVolume

__all__ = [
    "SERIES_DESCRIPTIONS",
    "NormalisedHeader",
    "Replaced",
    "ResultIdentity",
    "SentObject",
    "encode_overlay",
    "encode_rejection",
    "encode_rejection_note",
    "encode_rejection_sr",
    "encode_results",
    "encode_seg",
    "encode_sr",
    "normalise",
    "to_bytes",
]


def encode_results(
    source: SourceVolume,
    lesion_map: LesionMap,
    findings: Findings,
    provenance: Provenance,
    *,
    mark_below: float = 0.0,
    descriptions: Mapping[str, str] = SERIES_DESCRIPTIONS,
) -> tuple[Output, ...]:
    """Every object of one reading: the segmentation where there are lesions, report, overlay images.

    Args:
        source: the volume that was read.
        lesion_map: labels on the grid of `source`, (slice, row, column).
        findings: one finding a label.
        provenance: what made the result; its model must be known.
        mark_below: lesions of lower confidence are marked in every object.
        descriptions: Series Description by kind ("seg", "sr", "overlay", "ko").

    Returns:
        The outputs: "seg" (not without lesions: an empty segmentation hangs viewers), "sr", "overlay" …

    Raises:
        ValueError: the model is not known, or the map lies on another grid.
    """
    identity = ResultIdentity.of_reading(source, provenance, descriptions)
    seg = None
    if findings.lesions:
        seg = encode_seg(source, lesion_map, findings, provenance, mark_below=mark_below, identity=identity)
    report = encode_sr(source, findings, provenance, seg, mark_below=mark_below, identity=identity)
    overlay = encode_overlay(
        source, lesion_map, provenance, findings, mark_below=mark_below, identity=identity
    )
    return (*((seg,) if seg is not None else ()), report, *overlay)


def encode_rejection(
    instances: Sequence[Instance],
    reason: str,
    provenance: Provenance,
    *,
    descriptions: Mapping[str, str] = SERIES_DESCRIPTIONS,
) -> tuple[Output, ...]:
    """Every object of a study that was asked for and could not be read: one report with the reason.

    Args:
        instances: what was looked at, at least one; identity comes from the first.
        reason: why nothing was read, without patient data.
        provenance: what made the decision.
        descriptions: Series Description by kind.
    """
    identity = ResultIdentity.of_rejection(instances, reason, provenance, descriptions)
    return (encode_rejection_sr(instances, reason, provenance, identity=identity),)


def to_bytes(output: Output) -> bytes:
    """The complete DICOM file (PS3.10); the same object always gives the same bytes."""
    buffer = BytesIO()
    with tolerant_values():
        dcmwrite(buffer, output.dataset, enforce_file_format=True)
    return buffer.getvalue()
