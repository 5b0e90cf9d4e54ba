"""Result objects of a reading or of its refusal, and the note that rejects what a revision replaces."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import dcmwrite

from msnode.encode.kinds import REPORT_KINDS, ResultRules
from msnode.encode.ko import encode_rejection_note
from msnode.encode.normalise import NormalisedHeader, normalise, tolerant_values
from msnode.encode.overlay import encode_overlay
from msnode.encode.page import reading_page, rejection_page
from msnode.encode.pdf import encode_pdf
from msnode.encode.picture import grey_levels
from msnode.encode.probability import encode_probability
from msnode.encode.provenance import Replaced, ResultIdentity, SentObject
from msnode.encode.seg import encode_seg
from msnode.encode.sr import encode_rejection_sr, encode_sr
from msnode.encode.summary import encode_rejection_summary, encode_summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from msnode.domain.findings import Findings, LesionMap
    from msnode.domain.imaging import Instance, SourceVolume
    from msnode.domain.provenance import Output, Provenance

__all__ = [
    "REPORT_KINDS",
    "NormalisedHeader",
    "Replaced",
    "ResultIdentity",
    "ResultRules",
    "SentObject",
    "encode_overlay",
    "encode_pdf",
    "encode_probability",
    "encode_rejection",
    "encode_rejection_note",
    "encode_rejection_sr",
    "encode_rejection_summary",
    "encode_results",
    "encode_seg",
    "encode_sr",
    "encode_summary",
    "normalise",
    "to_bytes",
]


def encode_results(
    source: SourceVolume,
    lesion_map: LesionMap,
    findings: Findings,
    provenance: Provenance,
    rules: ResultRules | None = None,
    *,
    probability: NDArray[np.uint8] | None = None,
) -> tuple[Output, ...]:
    """Every object of one reading: the segmentation where there are lesions, report, overlay, summary.

    Args:
        source: the volume that was read.
        lesion_map: labels on the grid of `source`, (slice, row, column).
        findings: one finding a label.
        provenance: what made the result; its model must be known.
        rules: which objects, and in which form.
        probability: lesion probability in 255ths, (slice, row, column); without it, and where it is 0
            everywhere, there is no "probability".

    Returns:
        The outputs in the order in which they should arrive: what refers to others follows them. There is no
        "seg" without lesions: an empty segmentation hangs viewers.

    Raises:
        ValueError: the model is not known, or the map lies on another grid.
    """
    rules = rules or ResultRules()
    identity = ResultIdentity.of_reading(source, provenance, rules.descriptions)
    seg = None
    if findings.lesions:
        seg = encode_seg(
            source, lesion_map, findings, provenance,
            form=rules.segmentation, mark_below=rules.mark_below, identity=identity,
        )  # fmt: skip
    reports = [
        encode_sr(
            source, findings, provenance, seg,
            mark_below=rules.mark_below, form=rules.segmentation, kind=kind, identity=identity,
        )
        for kind in _reports(rules)
    ]  # fmt: skip
    grey = grey_levels(source.volume.data)
    overlay = encode_overlay(
        source, lesion_map, provenance, findings, mark_below=rules.mark_below, identity=identity, grey=grey
    )
    page = reading_page(
        source, lesion_map, findings, mark_below=rules.mark_below, identity=identity, grey=grey
    )
    summary = encode_summary(page, source, identity=identity)
    outputs = [*((seg,) if seg is not None else ()), *reports, *overlay, summary]
    if "pdf" in rules.kinds:
        outputs.append(encode_pdf(page, [f.instance for f in source.frames], identity=identity))
    if "probability" in rules.kinds and probability is not None and probability.any():
        outputs.append(encode_probability(source, probability, provenance, identity=identity))
    return tuple(outputs)


def encode_rejection(
    instances: Sequence[Instance],
    reason: str,
    provenance: Provenance,
    rules: ResultRules | None = None,
) -> tuple[Output, ...]:
    """Every object of a study that was asked for and could not be read: report and page with the reason.

    Args:
        instances: what was looked at, at least one; identity comes from the first.
        reason: why nothing was read, without patient data.
        provenance: what made the decision.
        rules: which objects, and in which form.
    """
    rules = rules or ResultRules()
    identity = ResultIdentity.of_rejection(instances, reason, provenance, rules.descriptions)
    outputs = [
        encode_rejection_sr(instances, reason, provenance, kind=kind, identity=identity)
        for kind in _reports(rules)
    ]
    page = rejection_page(reason, identity=identity)
    outputs.append(encode_rejection_summary(page, instances, identity=identity))
    if "pdf" in rules.kinds:
        outputs.append(encode_pdf(page, instances, identity=identity))
    return tuple(outputs)


def _reports(rules: ResultRules) -> list[str]:
    """The kinds of report that are made: "sr" always, so that no reading is without one."""
    return [kind for kind in REPORT_KINDS if kind == "sr" or kind in rules.kinds]


def to_bytes(output: Output) -> bytes:
    """The complete DICOM file (PS3.10); the same object always gives the same bytes."""
    buffer = BytesIO()
    with tolerant_values():
        dcmwrite(buffer, output.dataset, enforce_file_format=True)
    return buffer.getvalue()
