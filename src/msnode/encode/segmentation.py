"""What every segmentation is (PS3.3 A.51, C.8.20; supplement 243): an image on planes of the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from highdicom.color import CIELabColor
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, SegmentationStorage
from pydicom.valuerep import format_number_as_ds

from msnode.dicom.uids import EQUIPMENT
from msnode.domain.provenance import Output
from msnode.encode import codes
from msnode.encode.normalise import tolerant_values
from msnode.encode.planes import plane_of
from msnode.encode.provenance import coded, inherit_lossy_compression, new_object, reference, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.sr.coding import Code

    from msnode.domain.imaging import SourceVolume
    from msnode.domain.provenance import ModelIdentity
    from msnode.encode.frames import Frames
    from msnode.encode.planes import Plane
    from msnode.encode.provenance import ResultIdentity

LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage (DICOM supplement 243), younger than pydicom's dictionary."""

_LONG_STRING = 64
_BLACK = (0, 0, 0)
_SEGMENT_DIMENSION = ("ReferencedSegmentNumber", "SegmentIdentificationSequence")
_POSITION_DIMENSION = ("ImagePositionPatient", "PlanePositionSequence")


@dataclass(frozen=True)
class Segment:
    """One segment.

    Attributes:
        number: from 1; without gaps where the segmentation is no label map.
        label: at most 64 characters.
        description: at most 1024 characters.
        colour: red, green, blue, 0-255.
        tracking_id: identifier across time; empty where it has none, then `tracking_uid` too.
        tracking_uid: its unique identifier.
    """

    number: int
    label: str
    description: str
    colour: tuple[int, int, int]
    tracking_id: str = ""
    tracking_uid: str = ""


@dataclass(frozen=True)
class Content:
    """What a segmentation shows.

    Attributes:
        kind: of result object.
        segmentation_type: (0062,0001): BINARY, FRACTIONAL (then a probability in 255ths) or LABELMAP.
        label: Content Label (0070,0080).
        description: Content Description (0070,0081).
        segments: by number.
        frames: the stored frames.
    """

    kind: str
    segmentation_type: str
    label: str
    description: str
    segments: tuple[Segment, ...]
    frames: Frames


def segmentation(
    source: SourceVolume, content: Content, model: ModelIdentity, identity: ResultIdentity
) -> Output:
    """Put a segmentation on the planes of `source`; frames without content are left out.

    Each frame names the source instance, and the frame in it, on whose plane it lies; the root names all.
    """
    is_label_map = content.segmentation_type == "LABELMAP"
    with tolerant_values():
        ds = new_object(LABEL_MAP_STORAGE if is_label_map else SegmentationStorage, content.kind, identity)
        _describe(ds, content)
        segments = [_segment(each, model) for each in content.segments]
        ds.SegmentSequence = [_background(model), *segments] if is_label_map else segments
        planes = {k: plane_of(source.frames[k]) for k in sorted(set(content.frames.slices))}
        _set_dimensions(ds, identity, with_segments=not is_label_map)
        ds.SharedFunctionalGroupsSequence = [_shared_groups(planes, source)]
        ds.PerFrameFunctionalGroupsSequence = _frame_groups(content.frames, planes, source)
        _reference_source(ds, source)
        _set_pixels(ds, content.frames, source)
        ds.LossyImageCompression = "00"
        inherit_lossy_compression(ds, source)
        stamp(ds, content.kind, identity)
        ds.file_meta.TransferSyntaxUID = content.frames.transfer_syntax
    return Output(kind=content.kind, dataset=ds)


def _describe(ds: Dataset, content: Content) -> None:
    """The Segmentation Series and Segmentation Image modules (PS3.3 C.8.20.1, C.8.20.2)."""
    ds.Modality = "SEG"
    ds.PositionReferenceIndicator = None
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.ContentLabel = content.label
    ds.ContentDescription = content.description
    ds.ContentCreatorName = None
    ds.SegmentationType = content.segmentation_type
    ds.SegmentsOverlap = "NO"
    if content.segmentation_type == "FRACTIONAL":
        ds.SegmentationFractionalType = "PROBABILITY"
        ds.MaximumFractionalValue = 255
    if content.segmentation_type == "LABELMAP":
        ds.PixelPaddingValue = 0


def _segment(segment: Segment, model: ModelIdentity) -> Dataset:
    item = _segment_item(segment, model, codes.ABNORMAL_STRUCTURE, codes.LESION_OF_BRAIN)
    item.SegmentDescription = segment.description
    item.AnatomicRegionSequence = [coded(codes.BRAIN)]
    item.SegmentationAlgorithmIdentificationSequence = [_algorithm(model)]
    if segment.tracking_id:
        item.TrackingID, item.TrackingUID = segment.tracking_id, segment.tracking_uid
    return item


def _background(model: ModelIdentity) -> Dataset:
    """Segment 0 of a label map: each value that occurs is described."""
    return _segment_item(Segment(0, "Background", "", _BLACK), model, codes.BACKGROUND, codes.BACKGROUND)


def _segment_item(segment: Segment, model: ModelIdentity, category: Code, what: Code) -> Dataset:
    """An item of the Segment Sequence (PS3.3 C.8.20.4) with what every segment has."""
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel = segment.number, segment.label
    item.SegmentedPropertyCategoryCodeSequence = [coded(category)]
    item.SegmentedPropertyTypeCodeSequence = [coded(what)]
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = model.name[:_LONG_STRING]
    item.RecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*segment.colour).value)
    return item


def _algorithm(model: ModelIdentity) -> Dataset:
    """Algorithm Identification (PS3.3 Table 10-19)."""
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [coded(codes.ARTIFICIAL_INTELLIGENCE)]
    item.AlgorithmName, item.AlgorithmVersion = model.name[:_LONG_STRING], model.version[:_LONG_STRING]
    item.AlgorithmSource = EQUIPMENT
    return item


def _set_dimensions(ds: Dataset, identity: ResultIdentity, *, with_segments: bool) -> None:
    """How frames are indexed (PS3.3 C.7.6.17): by segment where it varies, then by position."""
    organization = Dataset()
    organization.DimensionOrganizationUID = identity.uid(f"dimension organization {ds.SegmentationType}")
    ds.DimensionOrganizationSequence = [organization]
    indices = []
    for pointer, group in (*([_SEGMENT_DIMENSION] if with_segments else []), _POSITION_DIMENSION):
        index = Dataset()
        index.DimensionOrganizationUID = organization.DimensionOrganizationUID
        index.DimensionIndexPointer, index.FunctionalGroupPointer = Tag(pointer), Tag(group)
        index.DimensionDescriptionLabel = pointer
        indices.append(index)
    ds.DimensionIndexSequence = indices


def _shared_groups(planes: dict[int, Plane], source: SourceVolume) -> Dataset:
    """Orientation and size of voxels (PS3.3 C.7.6.16.2.1, C.7.6.16.2.4), one for all frames."""
    plane = next(iter(planes.values()))
    between_slices = source.volume.grid.spacing[0]
    orientation = Dataset()
    orientation.ImageOrientationPatient = _numbers(plane.orientation)
    measures = Dataset()
    measures.PixelSpacing = _numbers(plane.spacing)
    measures.SliceThickness = format_number_as_ds(plane.thickness or between_slices)
    measures.SpacingBetweenSlices = format_number_as_ds(between_slices)
    groups = Dataset()
    groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [orientation], [measures]
    return groups


def _frame_groups(frames: Frames, planes: dict[int, Plane], source: SourceVolume) -> list[Dataset]:
    """Position, source, index and segment of each frame (PS3.3 C.7.6.16.2)."""
    of_slice = {k: _plane_groups(plane, source, k) for k, plane in planes.items()}
    ranks = {k: rank for rank, k in enumerate(planes, start=1)}
    groups = []
    for n, k in enumerate(frames.slices):
        group = Dataset()
        for element in of_slice[k]:  # frames on one plane share these
            group.add(element)
        content = Dataset()
        content.DimensionIndexValues = [*frames.segments[n : n + 1], ranks[k]]
        group.FrameContentSequence = [content]
        if frames.segments:
            identification = Dataset()
            identification.ReferencedSegmentNumber = frames.segments[n]
            group.SegmentIdentificationSequence = [identification]
        groups.append(group)
    return groups


def _plane_groups(plane: Plane, source: SourceVolume, k: int) -> tuple[DataElement, DataElement]:
    """The Plane Position and Derivation Image groups of the frames on slice `k`."""
    position = Dataset()
    position.ImagePositionPatient = _numbers(plane.position)
    image = reference(source.frames[k])
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [coded(codes.SOURCE_IMAGE)]
    derivation = Dataset()
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [coded(codes.SEGMENTATION)]
    return (
        DataElement(Tag("PlanePositionSequence"), "SQ", [position]),
        DataElement(Tag("DerivationImageSequence"), "SQ", [derivation]),
    )


def _reference_source(ds: Dataset, source: SourceVolume) -> None:
    """Name all source instances: viewers load them with the segmentation (PS3.3 C.12.2)."""
    instances = {f.instance.sop_instance_uid: f.instance for f in source.frames}
    items = []
    for uid, instance in instances.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.sop_class_uid, uid
        items.append(item)
    ds.SourceImageSequence = items
    series = Dataset()
    series.SeriesInstanceUID = source.series.series_instance_uid
    series.ReferencedInstanceSequence = items
    ds.ReferencedSeriesSequence = [series]


def _set_pixels(ds: Dataset, frames: Frames, source: SourceVolume) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames = len(frames.slices)
    ds.Rows, ds.Columns = source.volume.grid.shape[1:]
    ds.BitsAllocated = ds.BitsStored = frames.bits
    ds.HighBit, ds.PixelRepresentation = frames.bits - 1, 0
    is_compressed = frames.transfer_syntax.is_encapsulated
    ds.PixelData = frames.pixel_data
    ds["PixelData"].VR = "OW" if frames.bits == 16 and not is_compressed else "OB"  # noqa: PLR2004 - bits
    ds["PixelData"].is_undefined_length = is_compressed


def _numbers(values: Sequence[float]) -> list[str]:
    return [format_number_as_ds(v) for v in values]
