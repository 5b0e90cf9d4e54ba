"""The summary page as a Secondary Capture image, for archives and viewers that show only images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from msnode.domain.provenance import Output
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.normalise import tolerant_values
from msnode.encode.overlay import NOTICE
from msnode.encode.picture import set_pixels
from msnode.encode.provenance import (
    describe,
    inherit_lossy_compression,
    new_object,
    stamp,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.domain.imaging import Instance, SourceVolume
    from msnode.encode.provenance import ResultIdentity
    from msnode.encode.sheet import Page

_KIND = "summary"
_LONG_TEXT = 1024


def encode_summary(page: Page, source: SourceVolume, *, identity: ResultIdentity) -> Output:
    """Write the summary page of a reading as one RGB Secondary Capture image (PS3.3 A.8.1).

    The image has no position, orientation or Frame of Reference: it is no slice. The page names no patient
    and no date of acquisition, so Burned In Annotation is NO.

    Args:
        page: the page of a reading, see `page.reading_page`.
        source: the volume that was read.
        identity: what the results of one reading share.

    Returns:
        An output of kind "summary", alone in its series.
    """
    with tolerant_values():
        ds = _image_of(page, [f.instance for f in source.frames], identity)
        inherit_lossy_compression(ds, source)
    return Output(kind=_KIND, dataset=ds)


def encode_rejection_summary(
    page: Page, instances: Sequence[Instance], *, identity: ResultIdentity
) -> Output:
    """Write the page that says that a study was not read as an image, as `encode_summary`.

    Args:
        page: the page of a refusal, see `page.rejection_page`.
        instances: what was looked at, at least one.
        identity: what the results of one refusal share.

    Returns:
        An output of kind "summary".
    """
    with tolerant_values():
        ds = _image_of(page, instances, identity)
    return Output(kind=_KIND, dataset=ds)


def _image_of(page: Page, instances: Sequence[Instance], identity: ResultIdentity) -> Dataset:
    """The page as an image: SC Equipment, General Image, Image Pixel and SC Image module (PS3.3 C.8.6)."""
    ds = new_object(SecondaryCaptureImageStorage, _KIND, identity)
    ds.Modality, ds.ConversionType, ds.ImageType = "OT", "WSD", ["DERIVED", "SECONDARY"]
    ds.BurnedInAnnotation, ds.BodyPartExamined = "NO", "BRAIN"
    ds.PatientOrientation = None
    ds.DerivationDescription = describe(identity.provenance)[:_LONG_TEXT]
    ds.ImageComments = NOTICE
    ds.SourceImageSequence = source_instances(instances)
    for item in ds.SourceImageSequence:
        item.PurposeOfReferenceCodeSequence = [concept(codes.SOURCE_IMAGE)]
    set_pixels(ds, page.pixels)
    stamp(ds, _KIND, identity)
    leave_frame_of_reference(ds)
    return ds


def source_instances(instances: Sequence[Instance]) -> list[Dataset]:
    """An item for each source instance, once (PS3.3 Table 10-11, SOP Instance Reference)."""
    items = []
    for uid, instance in {i.sop_instance_uid: i for i in instances if "SOPInstanceUID" in i.header}.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.sop_class_uid, uid
        items.append(item)
    return items


def leave_frame_of_reference(ds: Dataset) -> None:
    """A page lies nowhere in space: without planes, neither object's IOD has a Frame of Reference."""
    if "FrameOfReferenceUID" in ds:
        del ds.FrameOfReferenceUID
