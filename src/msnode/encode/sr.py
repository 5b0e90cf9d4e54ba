"""The structured report (PS3.3 A.35; PS3.16 TID 1500): what it says of a reading, or of its refusal.

A reading carries a count, volumes and diameters. A rejection carries its reason and not a single number: a
count of zero on a study that nobody read would be a false negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    RelationshipTypeValues,
    TextContentItem,
)

from msnode.domain.findings import LOW_QUALITY, OUTSIDE_SCOPE
from msnode.domain.provenance import Output
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.normalise import tolerant_values
from msnode.encode.provenance import ResultIdentity, describe
from msnode.encode.sr_document import document, reading_root, rejection_root
from msnode.encode.sr_groups import Groups
from msnode.measure.lesions import is_uncertain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydicom.sr.coding import Code

    from msnode.domain.findings import Findings
    from msnode.domain.imaging import Instance, SourceVolume
    from msnode.domain.provenance import Provenance
    from msnode.encode.kinds import SegmentationForm

NOT_VERIFIED = "Result of an algorithm, not verified by a physician."


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
    comments = [
        NOT_VERIFIED,
        *_marks(findings, mark_below),
        *source.warnings,
        *findings.limitations,
        *identity.header.defects,
    ]
    instances = [f.instance for f in source.frames]
    with tolerant_values():
        groups = Groups(source, seg, kind=kind, form=form, identity=identity).of(findings)
        algorithm = AlgorithmIdentification(model.name, model.version, [describe(provenance)])
        root = reading_root(identity, groups, algorithm)
        root.ContentSequence.append(_evaluations(_outcome(findings), findings.limitations, comments))
        ds = document(kind, identity, root, instances, None if seg is None else seg.dataset)
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
        root = rejection_root(identity)
        root.ContentSequence.append(_evaluations(codes.NONE_SUCCEEDED, [reason], comments))
        ds = document(kind, identity, root, instances)
    return Output(kind=kind, dataset=ds)


def _marks(findings: Findings, mark_below: float) -> list[str]:
    """Names the lesions of low confidence, where there are any."""
    names = [f.tracking_id for f in findings.lesions if is_uncertain(f.lesion, mark_below)]
    return [f"Low confidence (under {100 * mark_below:.0f} %): {', '.join(names)}."] if names else []


def _outcome(findings: Findings) -> Code:
    """The summary of a reading (CID 6047): limits of scope or quality are said before its findings are."""
    if findings.limitations:
        return (
            codes.SOME_SUCCEEDED_WITH_FINDINGS if findings.lesions else codes.SOME_SUCCEEDED_WITHOUT_FINDINGS
        )
    return codes.ALL_SUCCEEDED_WITH_FINDINGS if findings.lesions else codes.ALL_SUCCEEDED_WITHOUT_FINDINGS


def _evaluations(outcome: Code, limitations: Sequence[str], comments: Iterable[str]) -> ContainerContentItem:
    """Qualitative Evaluations: the summary, what limits the reading in code, one comment a line of text.

    TID 1500 has this container beside the measurements; highdicom's `MeasurementReport` does not build it.
    """
    coded = [(codes.SUMMARY, outcome)]
    if any(said.startswith(LOW_QUALITY) for said in limitations):
        coded.append((codes.SERIES_QUALITY, codes.LIMITED_QUALITY))
    if any(said.startswith(OUTSIDE_SCOPE) for said in limitations):
        coded.append((codes.MODEL_SCOPE, codes.OUTSIDE_MODEL_SCOPE))
    contains = RelationshipTypeValues.CONTAINS
    container = ContainerContentItem(concept(codes.QUALITATIVE_EVALUATIONS), relationship_type=contains)
    container.ContentSequence = ContentSequence(
        [
            *(CodeContentItem(concept(name), concept(value), contains) for name, value in coded),
            *(TextContentItem(concept(codes.COMMENT), comment, contains) for comment in comments),
        ]
    )
    return container
