"""What every segmentation is (PS3.3 A.51, C.8.20; supplement 243): segments on the planes of the source.

highdicom writes the object. This module replaces its random UIDs and its clock times by derived ones,
completes the references to the source (see `stand_ins`), and corrects the padding of Pixel Data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from highdicom.color import CIELabColor
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from msnode.dicom.uids import EQUIPMENT
from msnode.domain.provenance import Output
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.normalise import tolerant_values
from msnode.encode.provenance import inherit_lossy_compression, reference, stamp
from msnode.encode.stand_ins import planes_of_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from msnode.domain.imaging import SourceVolume
    from msnode.domain.provenance import ModelIdentity
    from msnode.encode.provenance import ResultIdentity

_LONG_STRING = 64


@dataclass(frozen=True)
class Segment:
    """One segment.

    Attributes:
        number: from 1, without gaps.
        label: at most 64 characters.
        description: at most 1024 characters.
        colour: red, green, blue, 0-255.
        tracking_id: identifier across time; None where it has none, then `tracking_uid` too.
        tracking_uid: its unique identifier.
    """

    number: int
    label: str
    description: str
    colour: tuple[int, int, int]
    tracking_id: str | None = None
    tracking_uid: str | None = None


@dataclass(frozen=True, eq=False)
class Content:
    """What a segmentation shows.

    Attributes:
        kind: of result object.
        form: Segmentation Type (0062,0001).
        label: Content Label (0070,0080).
        description: Content Description (0070,0081), at most 64 characters.
        segments: by number.
        pixels: (slice, row, column): segment numbers, uint8 or uint16, 0 = background; for FRACTIONAL,
            probabilities as float32, 0-1.
        every_plane: whether each segment has a frame on every slice, also where it is empty.
    """

    kind: str
    form: SegmentationTypeValues
    label: str
    description: str
    segments: tuple[Segment, ...]
    pixels: NDArray[Any]
    every_plane: bool = True


def segmentation(
    source: SourceVolume, content: Content, model: ModelIdentity, identity: ResultIdentity
) -> Output:
    """Write a segmentation on the planes of `source`; a label map is compressed with RLE Lossless.

    Each frame references the source instance, or the frame of an Enhanced instance, that lies on its plane.
    The root references all source instances.

    Args:
        source: the volume that was read, classic or Enhanced.
        content: what to write.
        model: what made it.
        identity: what the results of one reading share.
    """
    kind = content.kind
    with tolerant_values():
        planes = planes_of_source(source, identity)
        ds = Segmentation(
            source_images=planes,
            pixel_array=content.pixels,
            segmentation_type=content.form,
            segment_descriptions=_described(content.segments, model),
            series_instance_uid=identity.series_uid(kind),
            series_number=identity.series_number(kind),
            sop_instance_uid=identity.instance_uid(kind),
            instance_number=1,
            manufacturer=EQUIPMENT,
            manufacturer_model_name=EQUIPMENT,
            software_versions=identity.provenance.msnode_version[:_LONG_STRING],
            device_serial_number=model.sha256,
            content_label=content.label,
            content_description=content.description,
            omit_empty_frames=not content.every_plane,
            specific_character_set="ISO_IR 192",
        )
        _derive_dimension_uid(ds, identity)
        _reference_source(ds, source, planes)
        inherit_lossy_compression(ds, source)
        stamp(ds, kind, identity)
        _pad_with_zero(ds)
        if content.form is SegmentationTypeValues.LABELMAP:
            # without a name, pydicom takes whichever plugin is installed, and their bytes differ
            ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return Output(kind=kind, dataset=ds)


def _described(segments: tuple[Segment, ...], model: ModelIdentity) -> list[SegmentDescription]:
    """The items of the Segment Sequence (PS3.3 C.8.20.4)."""
    algorithm = AlgorithmIdentificationSequence(
        name=model.name[:_LONG_STRING],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        version=model.version[:_LONG_STRING],
        source=EQUIPMENT,
    )
    items = []
    for segment in segments:
        item = SegmentDescription(
            segment_number=segment.number,
            segment_label=segment.label,
            segmented_property_category=concept(codes.ABNORMAL_STRUCTURE),
            segmented_property_type=concept(codes.LESION_OF_BRAIN),
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=segment.tracking_uid,
            tracking_id=segment.tracking_id,
            anatomic_regions=[concept(codes.BRAIN)],
            display_color=CIELabColor.from_rgb(*segment.colour),
        )
        item.SegmentDescription = segment.description
        items.append(item)
    return items


def _derive_dimension_uid(ds: Segmentation, identity: ResultIdentity) -> None:
    """Replace the random Dimension Organization UID by a derived one (PS3.3 C.7.6.17)."""
    uid = identity.uid(f"dimension organization {ds.SegmentationType}")
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _reference_source(ds: Segmentation, source: SourceVolume, planes: Sequence[Dataset]) -> None:
    """Reference the source instead of its stand-ins: each instance at the root, each plane in its frames."""
    instances = {frame.instance.sop_instance_uid: frame.instance for frame in source.frames}
    items = [_instance(uid, instance.sop_class_uid) for uid, instance in instances.items()]
    ds.SourceImageSequence = items
    ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence = items
    of_plane = {plane.SOPInstanceUID: frame for plane, frame in zip(planes, source.frames, strict=True)}
    for group in ds.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        if image.ReferencedSOPInstanceUID in of_plane:  # frames on one plane share the item
            image.update(reference(of_plane[image.ReferencedSOPInstanceUID]))


def _instance(uid: str, sop_class_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, uid
    return item


def _pad_with_zero(ds: Segmentation) -> None:
    """Pad Pixel Data to an even length with a zero byte (PS3.5 8.1.1): highdicom 0.28 pads with "0"."""
    bits = int(ds.NumberOfFrames) * ds.Rows * ds.Columns * ds.BitsAllocated
    ds.PixelData = ds.PixelData[: -(-bits // 8)].ljust(len(ds.PixelData), b"\0")
