"""The measurement groups of a report: one for each lesion (PS3.16 TID 1411), then the totals (TID 1501).

Only the group of a lesion references a segment. Count and total volume have a group of their own, and so has
the brain's volume, both without a segment: readers attribute every group with a segment to that segment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from highdicom.sr import (
    CodeContentItem,
    ContentSequence,
    FindingSite,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    RelationshipTypeValues,
    Scoord3DContentItem,
    ScoordContentItem,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)

from msnode.dicom.planes import is_enhanced
from msnode.dicom.uids import derive_uid
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.kinds import segment_number
from msnode.encode.seg import ALL_LESIONS, all_lesions_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from highdicom.sr import ContentItem
    from numpy.typing import NDArray
    from pydicom.sr.coding import Code

    from msnode.domain.findings import Finding, Findings, Lesion
    from msnode.domain.imaging import SourceVolume
    from msnode.domain.provenance import Output
    from msnode.encode.kinds import SegmentationForm
    from msnode.encode.provenance import ResultIdentity

BRAIN_VOLUME_MEANING = "Brain volume: brain and ventricles inside the stack"
LONGEST_AXIAL_MEANING = "Longest axial diameter"

_Group: TypeAlias = VolumetricROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations
_CONTAINS, _MODIFIER = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.HAS_CONCEPT_MOD


class Groups:
    """Builds the groups of one report; items that many groups contain are built once and shared."""

    def __init__(
        self,
        source: SourceVolume,
        seg: Output | None,
        *,
        kind: str,
        form: SegmentationForm,
        identity: ResultIdentity,
    ) -> None:
        """Build what the groups share.

        Args:
            source: the volume that was read.
            seg: the segmentation of the lesions; None without lesions.
            kind: kind of report; only "sr" may hold a point in space (PS3.3 A.35.13.3).
            form: the form of `seg`.
            identity: what the results of one reading share.
        """
        self._source, self._seg, self._form, self._identity = source, seg, form, identity
        self._in_space = kind == "sr"
        self._brain = FindingSite(concept(codes.BRAIN))
        self._series = SourceSeriesForSegmentation(source.series.series_instance_uid)
        # highdicom 0.28 writes "Source Series for Segmentation", which is not the meaning in PS3.16
        self._series.ConceptNameCodeSequence = [concept(codes.SOURCE_SERIES)]
        self._axial = [
            CodeContentItem(concept(codes.IMAGE_VIEW), concept(codes.AXIAL), _MODIFIER),
            _meaning(LONGEST_AXIAL_MEANING),
        ]
        self._to_voxels = np.linalg.inv(source.volume.grid.affine)

    def of(self, findings: Findings) -> list[_Group]:
        """All groups: one for each lesion, then all lesions together, then the brain if it was measured."""
        groups: list[_Group] = []
        if self._seg is not None:
            groups += [self._lesion(finding, self._seg) for finding in findings.lesions]
        groups.append(self._all_lesions(findings))
        if findings.brain_volume_ml is not None:
            groups.append(self._brain_volume(findings.brain_volume_ml))
        return groups

    def _lesion(self, finding: Finding, seg: Output) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
        """Identity, segment, volume, diameter, confidence and centre of one lesion (TID 1411)."""
        lesion = finding.lesion
        measurements = [
            _measured(codes.VOLUME, lesion.volume_mm3, codes.CUBIC_MILLIMETRE),
            _measured(codes.LONG_AXIS, lesion.longest_axial_mm, codes.MILLIMETRE, self._axial),
        ]
        if lesion.confidence is not None:
            measurements.append(_measured(codes.CERTAINTY, 100 * lesion.confidence, codes.PERCENT))
        group = VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(finding.tracking_uid, finding.tracking_id),
            referenced_segment=ReferencedSegment(
                sop_class_uid=str(seg.dataset.SOPClassUID),
                sop_instance_uid=seg.sop_instance_uid,
                segment_number=segment_number(self._form, lesion.label),
                source_series=self._series,
            ),
            finding_type=concept(codes.LESION_OF_BRAIN),
            finding_sites=[self._brain],
            measurements=measurements,
        )
        group[0].ContentSequence.append(self._centre([lesion]))
        return group

    def _all_lesions(self, findings: Findings) -> MeasurementsAndQualitativeEvaluations:
        """Count and total volume (TID 1501); their source is the segmentation, or the images without one."""
        seg = self._seg
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(
                all_lesions_uid(self._source, self._identity), ALL_LESIONS
            ),
            finding_type=concept(codes.LESION_OF_BRAIN),
            finding_sites=[self._brain],
            measurements=[
                _measured(codes.NUMBER_OF_LESIONS, findings.count, codes.NO_UNITS),
                _measured(codes.VOLUME, findings.total_volume_mm3, codes.CUBIC_MILLIMETRE),
            ],
            source_images=self._images()
            if seg is None
            else [SourceImageForMeasurementGroup(str(seg.dataset.SOPClassUID), seg.sop_instance_uid)],
        )
        lesions = [finding.lesion for finding in findings.lesions]
        group[0].ContentSequence.append(self._centre(lesions) if lesions else self._middle_of_stack())
        return group

    def _brain_volume(self, millilitres: float) -> MeasurementsAndQualitativeEvaluations:
        """The volume of the brain (TID 1501); its source is the images."""
        header = self._identity.header
        # many patients share an empty patient ID: the study tells them apart
        study_uid = str(header.dataset.StudyInstanceUID)
        modifiers = [self._brain, _meaning(BRAIN_VOLUME_MEANING)]
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(
                derive_uid("tracking", *header.patient_key, study_uid, "brain"), "Brain"
            ),
            finding_type=concept(codes.BRAIN),
            finding_sites=[self._brain],
            measurements=[_measured(codes.BRAIN_VOLUME, millilitres, codes.MILLILITRE, modifiers)],
            source_images=self._images(),
        )
        group[0].ContentSequence.append(self._middle_of_stack())
        return group

    def _images(self) -> list[SourceImageForMeasurementGroup]:
        """The source instances as Source of Measurement (TID 1501, row 10)."""
        instances = {f.instance.sop_instance_uid: f.instance for f in self._source.frames}
        return [SourceImageForMeasurementGroup(i.sop_class_uid, uid) for uid, i in instances.items()]

    def _centre(self, lesions: Sequence[Lesion]) -> ContentItem:
        """The mean position of all voxels of `lesions`."""
        voxels = [lesion.voxel_count for lesion in lesions]
        centre = np.average([lesion.centroid_lps_mm for lesion in lesions], axis=0, weights=voxels)
        return self._point(codes.CENTER, centre)

    def _middle_of_stack(self) -> ContentItem:
        """The place of a group about no lesion: OHIF 3.12 does not open a report with a group without one."""
        grid = self._source.volume.grid
        slices, rows, columns = grid.shape
        middle = np.array([[slices // 2, (rows - 1) / 2, (columns - 1) / 2]])
        return self._point(codes.STACK_CENTER, grid.to_lps(middle)[0])

    def _point(self, name: Code, position: NDArray[np.float64]) -> ContentItem:
        """A point in space if the class of the report may hold one, else in the nearest source plane.

        Args:
            name: what the point is.
            position: LPS mm, shape (3,).

        Returns:
            A SCOORD3D item (PS3.3 C.18.9) or a SCOORD item (PS3.3 C.18.6).
        """
        if self._in_space:
            return Scoord3DContentItem(
                name=concept(name),
                graphic_type="POINT",
                graphic_data=position[np.newaxis],
                frame_of_reference_uid=str(self._identity.header.dataset.FrameOfReferenceUID),
                relationship_type=_CONTAINS,
            )
        k, row, column, _ = self._to_voxels @ [*position, 1.0]
        frame = self._source.frames[min(max(round(k), 0), len(self._source.frames) - 1)]
        # SCOORD counts from the outer corner of the first pixel, the grid from its centre
        place = np.array([[column + 0.5, row + 0.5]])
        point = ScoordContentItem(concept(name), "POINT", place, relationship_type=_CONTAINS)
        frame_numbers = [frame.frame_number] if is_enhanced(frame.instance.header) else None
        instance = frame.instance
        point.ContentSequence = ContentSequence(
            [SourceImageForRegion(instance.sop_class_uid, instance.sop_instance_uid, frame_numbers)]
        )
        return point


def _measured(name: Code, value: float, unit: Code, modifiers: Sequence[ContentItem] = ()) -> Measurement:
    """A NUM item; Numeric Value is rounded to a thousandth, Floating Point Value keeps full precision."""
    measurement = Measurement(concept(name), round(value, 3), concept(unit))
    (item,) = measurement
    if isinstance(value, float):
        item.MeasuredValueSequence[0].FloatingPointValue = value
    if modifiers:
        item.ContentSequence = ContentSequence(modifiers)
    return measurement


def _meaning(text: str) -> TextContentItem:
    """Equivalent Meaning of Concept Name (PS3.16 TID 300)."""
    return TextContentItem(concept(codes.EQUIVALENT_MEANING), text, _MODIFIER)
