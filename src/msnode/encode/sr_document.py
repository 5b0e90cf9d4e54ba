"""The structured report as a document (PS3.3 A.35, C.17.2): its class, root, evidence and predecessor."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from msnode.dicom.uids import EQUIPMENT
from msnode.encode import codes
from msnode.encode.content import CONTEXT, MODIFIER, code, container, text, uidref, written_as_is
from msnode.encode.kinds import REPORT_KINDS
from msnode.encode.provenance import new_object, series_uid_of, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydicom.uid import UID

    from msnode.domain.imaging import Instance
    from msnode.encode.provenance import ResultIdentity

SR_CLASSES: Mapping[str, UID] = MappingProxyType({
    "sr": Comprehensive3DSRStorage,
    "sr-comprehensive": ComprehensiveSRStorage,
    "sr-enhanced": EnhancedSRStorage,
})  # fmt: skip
"""SOP class by kind of report."""


def document(
    kind: str,
    identity: ResultIdentity,
    findings: Sequence[Dataset],
    instances: Sequence[Instance],
    segmentation: Dataset | None = None,
) -> Dataset:
    """The report with its root (TID 1500), observer, evidence and predecessor around `findings`.

    Args:
        kind: one of `kinds.REPORT_KINDS`.
        identity: what the results of one reading share.
        findings: the containers below the root.
        instances: what the report was made from; those of another study are not named.
        segmentation: named as evidence too.
    """
    ds = new_object(SR_CLASSES[kind], kind, identity)
    ds.Modality = "SR"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    if any(_is_private(item) for part in findings for item in part.ContentSequence):
        ds.CodingSchemeIdentificationSequence = [_private_scheme()]
    ds.update(_root(identity, findings))
    _reference_predecessor(ds, kind, identity)
    stamp(ds, kind, identity)
    _reference_evidence(ds, instances, segmentation)
    written_as_is(ds, convert_encodings(ds.SpecificCharacterSet))
    return ds


def _root(identity: ResultIdentity, findings: Sequence[Dataset]) -> Dataset:
    language = code(
        codes.LANGUAGE,
        codes.ENGLISH,
        MODIFIER,
        children=[code(codes.COUNTRY, codes.UNITED_STATES, MODIFIER)],
    )
    root = container(
        codes.REPORT_TITLE,
        [
            language,
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
    return root


def _is_private(item: Dataset) -> bool:
    if item.ValueType != "CODE":
        return False
    return bool(item.ConceptNameCodeSequence[0].CodingSchemeDesignator == codes.PRIVATE_SCHEME)


def _private_scheme() -> Dataset:
    """Declares the scheme of our own codes (PS3.3 C.12.1, Coding Scheme Identification Sequence)."""
    item = Dataset()
    item.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    item.CodingSchemeName = f"Concepts of {EQUIPMENT} that no standard scheme has"
    item.CodingSchemeResponsibleOrganization = EQUIPMENT
    return item


def _reference_predecessor(ds: Dataset, kind: str, identity: ResultIdentity) -> None:
    """Name the report that this revision replaces (PS3.3 C.17.2.2), of the same kind where there is one."""
    replaced = identity.provenance.replaced_reports
    former = next((k for k in (kind, *REPORT_KINDS) if k in replaced), None)
    if former is not None:
        entry = (series_uid_of(replaced[former]), str(SR_CLASSES[former]), replaced[former])
        study_uid = str(identity.header.dataset.StudyInstanceUID)
        ds.PredecessorDocumentsSequence = [_references(study_uid, [entry])]


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
