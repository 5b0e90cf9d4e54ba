"""Images that a key object rejects (IHE RAD TF-1, Imaging Object Change Management) are not read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydicom.uid import KeyObjectSelectionDocumentStorage

from msnode.dicom.header import items, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msnode.domain.imaging import Series

_TITLES = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
"""Document titles (DCM, CID 7010) by which a key object rejects what it references."""


def rejections(study: Sequence[Series]) -> Mapping[str, str]:
    """SOP Instance UID → title, of what the key objects in a study reject (PS3.3 C.17.2)."""
    rejected = {}
    for instance in (i for series in study for i in series.instances):
        header = instance.header
        if instance.sop_class_uid != KeyObjectSelectionDocumentStorage:
            continue
        codes = [text(code, "CodeValue") for code in items(header, "ConceptNameCodeSequence")]
        title = next((_TITLES[code] for code in codes if code in _TITLES), None)
        if title is None:
            continue
        for evidence in items(header, "CurrentRequestedProcedureEvidenceSequence"):
            for series in items(evidence, "ReferencedSeriesSequence"):
                for image in items(series, "ReferencedSOPSequence"):
                    rejected[text(image, "ReferencedSOPInstanceUID")] = title
    return rejected


def without_rejected(series: Series, rejected: Mapping[str, str]) -> tuple[Series, tuple[str, ...], str]:
    """A series without the images that are rejected.

    Returns:
        The series; a remark if a part of it is rejected; and why nothing of it may be read if all of it is,
        in which case the series is whole.
    """
    titles = sorted({rejected[u] for i in series.instances if (u := i.sop_instance_uid) in rejected})
    kept = tuple(i for i in series.instances if i.sop_instance_uid not in rejected)
    count = len(series.instances)
    if not titles:
        return series, (), ""
    why = f"rejected by a key object: {', '.join(titles)}"
    if not kept:
        return series, (), why
    return (
        replace(series, instances=kept),
        (f"{count - len(kept)} of {count} images of the series {why}",),
        "",
    )
