"""The structured report as a document (PS3.3 A.35, C.17.2): its class, observer, evidence and predecessor."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    LanguageOfContentItemAndDescendants,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from highdicom.sr.utils import collect_evidence
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    MRImageStorage,
)

from msnode.dicom.header import text
from msnode.dicom.uids import EQUIPMENT
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.kinds import REPORT_KINDS
from msnode.encode.provenance import series_uid_of, stamp
from msnode.encode.stand_ins import stand_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydicom.dataset import Dataset

    from msnode.domain.imaging import Instance
    from msnode.encode.provenance import ResultIdentity

_CLASSES: Mapping[str, type[Comprehensive3DSR | ComprehensiveSR | EnhancedSR]] = MappingProxyType({
    "sr": Comprehensive3DSR,
    "sr-comprehensive": ComprehensiveSR,
    "sr-enhanced": EnhancedSR,
})  # fmt: skip
"""Class of document by kind of report."""
_SOP_CLASSES: Mapping[str, str] = MappingProxyType({
    "sr": Comprehensive3DSRStorage,
    "sr-comprehensive": ComprehensiveSRStorage,
    "sr-enhanced": EnhancedSRStorage,
})  # fmt: skip


def reading_root(
    identity: ResultIdentity,
    groups: Sequence[
        VolumetricROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations
    ],
    algorithm: AlgorithmIdentification,
) -> Dataset:
    """The root of a report with measurements (TID 1500).

    Args:
        identity: what the results of one reading share.
        groups: at least one.
        algorithm: what measured; named once, before all groups.
    """
    report = MeasurementReport(
        observation_context=_observer(identity),
        procedure_reported=concept(codes.MRI),
        imaging_measurements=groups,
        title=concept(codes.REPORT_TITLE),
        language_of_content_item_and_descendants=_language(),
    )
    (root,) = report
    measurements = root.ContentSequence[-1]
    measurements.ContentSequence = ContentSequence([*algorithm, *measurements.ContentSequence])
    return root


def rejection_root(identity: ResultIdentity) -> Dataset:
    """The same root without measurements: highdicom's `MeasurementReport` refuses to be without any."""
    root = ContainerContentItem(concept(codes.REPORT_TITLE), template_id="1500")
    procedure = CodeContentItem(
        concept(codes.PROCEDURE_REPORTED), concept(codes.MRI), RelationshipTypeValues.HAS_CONCEPT_MOD
    )
    root.ContentSequence = ContentSequence([*_language(), *_observer(identity), procedure])
    return root


def document(
    kind: str,
    identity: ResultIdentity,
    root: Dataset,
    instances: Sequence[Instance],
    segmentation: Dataset | None = None,
) -> Dataset:
    """The complete document around a root container.

    Args:
        kind: one of `kinds.REPORT_KINDS`.
        identity: what the results of one reading share.
        root: the root container with all its content.
        instances: what the report was made from; instances of another study are not referenced.
        segmentation: referenced as evidence too.
    """
    study_uid = str(identity.header.dataset.StudyInstanceUID)
    # Given the whole tree, highdicom copies, rebuilds and searches it, which takes three quarters of the
    # time. It gets the root without content: every reference in the tree is among the evidence by
    # construction.
    empty = ContainerContentItem(concept(codes.REPORT_TITLE), template_id="1500")
    empty.ContentSequence = ContentSequence()
    ds = _CLASSES[kind](
        evidence=[stand_in(study_uid, identity.series_uid(kind), MRImageStorage, "")],
        content=empty,
        series_instance_uid=identity.series_uid(kind),
        series_number=identity.series_number(kind),
        sop_instance_uid=identity.instance_uid(kind),
        instance_number=1,
        manufacturer=EQUIPMENT,
        is_complete=True,
        previous_versions=_predecessor(kind, identity, study_uid),
        specific_character_set="ISO_IR 192",
        coding_schemes=[_private_scheme()],
    )
    evidence, _ = collect_evidence(_evidence(instances, segmentation, study_uid), empty, study_uid)
    ds.CurrentRequestedProcedureEvidenceSequence = evidence
    if not evidence:
        del ds.CurrentRequestedProcedureEvidenceSequence
    ds["ContentSequence"] = root["ContentSequence"]
    stamp(ds, kind, identity)
    return ds


def _language() -> LanguageOfContentItemAndDescendants:
    return LanguageOfContentItemAndDescendants(concept(codes.ENGLISH))


def _observer(identity: ResultIdentity) -> ObservationContext:
    """The device observer: this software with this bundle (TID 1004)."""
    device = DeviceObserverIdentifyingAttributes(
        uid=identity.device_uid, name=EQUIPMENT, manufacturer_name=EQUIPMENT, model_name=EQUIPMENT
    )
    return ObservationContext(observer_device_context=ObserverContext(concept(codes.DEVICE), device))


def _private_scheme() -> CodingSchemeIdentificationItem:
    """Declares the scheme of private codes (PS3.3 C.12.1, Coding Scheme Identification Sequence)."""
    return CodingSchemeIdentificationItem(
        codes.PRIVATE_SCHEME,
        name=f"Concepts of {EQUIPMENT} that no standard scheme has",
        responsible_organization=EQUIPMENT,
    )


def _predecessor(kind: str, identity: ResultIdentity, study_uid: str) -> list[Dataset] | None:
    """The report that this revision replaces (PS3.3 C.17.2.2), of the same kind where there is one."""
    replaced = identity.provenance.replaced_reports
    former = next((k for k in (kind, *REPORT_KINDS) if k in replaced), None)
    if former is None:
        return None
    uid = replaced[former]
    return [stand_in(study_uid, series_uid_of(uid), _SOP_CLASSES[former], uid)]


def _evidence(instances: Sequence[Instance], segmentation: Dataset | None, study_uid: str) -> list[Dataset]:
    """Stand-ins for what the report was made from, as far as its UIDs are known."""
    found = []
    for header in (*(instance.header for instance in instances), *([segmentation] if segmentation else [])):
        named = [text(header, k) for k in ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")]
        if all(named) and text(header, "StudyInstanceUID") == study_uid:
            found.append(stand_in(study_uid, *named))
    return found
