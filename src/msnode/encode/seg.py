"""The Segmentation object (PS3.3 A.51): one binary segment a lesion, on the planes of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom import (
    AlgorithmIdentificationSequence,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as SegmentationObject
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from msnode.domain import Output
from msnode.encode import codes
from msnode.encode.normalise import tolerant_values
from msnode.encode.planes import plane_of
from msnode.encode.provenance import (
    ResultIdentity,
    inherit_lossy_compression,
    reference,
    stamp,
)
from msnode.identity import EQUIPMENT
from msnode.lesions import is_uncertain

if TYPE_CHECKING:
    from msnode.domain import Finding, Findings, LesionMap, Provenance, SourceVolume
    from msnode.encode.planes import Plane

_KIND = "seg"


def encode_seg(
    source: SourceVolume,
    lesion_map: LesionMap,
    findings: Findings,
    provenance: Provenance,
    *,
    mark_below: float = 0.0,
    identity: ResultIdentity | None = None,
) -> Output:
    """Write the lesions as one BINARY Segmentation instance, explicit VR little endian.

    Segment numbers are the labels of the map. Frames without lesion are left out.

    Args:
        source: the volume that was read, classic or Enhanced.
        lesion_map: labels on the grid of `source`, (slice, row, column).
        findings: one finding a label, with tracking identifiers.
        provenance: what made the result; its model must be known.
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
    planes = [plane_of(frame) for frame in source.frames]
    algorithm = AlgorithmIdentificationSequence(
        name=model.name[:64],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        version=model.version[:64],
        source=EQUIPMENT,
    )
    with tolerant_values():
        ds = SegmentationObject(
            source_images=_stand_ins(source, planes, identity),
            pixel_array=lesion_map.labels.astype(np.uint16),
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(f, algorithm, mark_below) for f in findings.lesions],
            series_instance_uid=identity.series_uid(_KIND),
            series_number=identity.series_number(_KIND),
            sop_instance_uid=identity.instance_uid(_KIND),
            instance_number=1,
            manufacturer=EQUIPMENT,
            manufacturer_model_name=EQUIPMENT,
            software_versions=provenance.msnode_version,
            device_serial_number=model.sha256,
            content_label="MS_LESIONS",
            content_description="Multiple sclerosis lesions, AI result, not verified",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            pixel_measures=PixelMeasuresSequence(
                pixel_spacing=planes[0].spacing,
                slice_thickness=planes[0].thickness or source.volume.grid.spacing[0],
                spacing_between_slices=source.volume.grid.spacing[0],
            ),
            plane_orientation=PlaneOrientationSequence("PATIENT", planes[0].orientation),
            plane_positions=[PlanePositionSequence("PATIENT", p.position) for p in planes],
            specific_character_set="ISO_IR 192",
        )
        _reference_source(ds, source)
        organization = identity.uid("dimension organization")
        ds.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
        for index in ds.DimensionIndexSequence:
            index.DimensionOrganizationUID = organization
        inherit_lossy_compression(ds, source)
        stamp(ds, _KIND, identity)
    return Output(kind=_KIND, dataset=ds)


def _segment(
    finding: Finding, algorithm: AlgorithmIdentificationSequence, mark_below: float
) -> SegmentDescription:
    lesion = finding.lesion
    mark = ", low confidence" if is_uncertain(lesion, mark_below) else ""
    segment = SegmentDescription(
        segment_number=lesion.label,
        segment_label=finding.tracking_id + mark,
        segmented_property_category=codes.ABNORMAL_STRUCTURE,
        segmented_property_type=codes.LESION_OF_BRAIN,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=finding.tracking_uid,
        tracking_id=finding.tracking_id,
        anatomic_regions=[codes.BRAIN],
        display_color=CIELabColor.from_rgb(*codes.lesion_colour(lesion.label)),
    )
    confidence = "" if lesion.confidence is None else f", confidence {lesion.confidence:.2f}"
    segment.SegmentDescription = f"{finding.tracking_id}, {lesion.volume_mm3:.1f} mm3{confidence}{mark}"
    return segment


def _stand_ins(source: SourceVolume, planes: list[Plane], identity: ResultIdentity) -> list[Dataset]:
    """One minimal classic header a plane, named by its slice, for the library to place frames by.

    The library then never meets a real header, whose defects it would stumble over, and one path serves
    classic series and Enhanced ones of any number of instances; `_reference_source` puts the true names
    in afterwards.
    """
    rows, columns = source.volume.grid.shape[1:]
    headers = []
    for k, plane in enumerate(planes):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, _stand_in_uid(k)
        ds.StudyInstanceUID = identity.header.dataset.StudyInstanceUID
        ds.SeriesInstanceUID = source.series.series_instance_uid
        ds.FrameOfReferenceUID = identity.header.dataset.FrameOfReferenceUID
        ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ""
        ds.AccessionNumber = ds.StudyID = ""
        ds.StudyDate = ds.StudyTime = None
        ds.Modality = "MR"
        ds.Rows, ds.Columns = rows, columns
        ds.ImagePositionPatient = list(plane.position)
        ds.ImageOrientationPatient = list(planes[0].orientation)
        ds.PixelSpacing = list(planes[0].spacing)
        ds.SliceThickness = planes[0].thickness or source.volume.grid.spacing[0]
        headers.append(ds)
    return headers


def _stand_in_uid(k: int) -> str:
    return f"2.25.{k + 1}"


def _reference_source(ds: Dataset, source: SourceVolume) -> None:
    """Name the true source instances (and frames) at the root and in every frame."""
    by_stand_in = {_stand_in_uid(k): reference(frame) for k, frame in enumerate(source.frames)}
    for group in ds.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                # segments on one plane share the item: it is renamed when first met
                item.update(by_stand_in.get(item.ReferencedSOPInstanceUID, {}))
    instances = list({f.instance.sop_instance_uid: f.instance for f in source.frames}.values())
    items = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID = instance.sop_class_uid
        item.ReferencedSOPInstanceUID = instance.sop_instance_uid
        items.append(item)
    ds.SourceImageSequence = items
    series = Dataset()
    series.SeriesInstanceUID = source.series.series_instance_uid
    series.ReferencedInstanceSequence = items
    ds.ReferencedSeriesSequence = [series]
