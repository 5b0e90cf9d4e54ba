"""Stand-ins for the instances that a result references: the attributes that highdicom reads, and no others.

highdicom wants the data set of each referenced instance. A real header may lack what highdicom requires or
hold values that it refuses, and highdicom logs patient names that look unusual. A stand-in therefore holds
UIDs and geometry only; `provenance.stamp` writes patient and study into the finished object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pydicom.valuerep import format_number_as_ds

from msnode.dicom.uids import derive_uid
from msnode.encode.planes import plane_of

if TYPE_CHECKING:
    from msnode.domain.imaging import SourceVolume
    from msnode.encode.provenance import ResultIdentity


def stand_in(study_uid: str, series_uid: str, sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """An instance with its UIDs; patient and study attributes are present and empty."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, sop_instance_uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
    ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ""
    ds.AccessionNumber = ds.StudyID = ""
    ds.StudyDate = ds.StudyTime = None
    return ds


def planes_of_source(source: SourceVolume, identity: ResultIdentity) -> list[Dataset]:
    """Each slice of the source as a single-frame MR image (PS3.3 A.4) with a UID of its own, in slice order.

    Frames of Enhanced sources become single-frame images too: highdicom accepts only one multi-frame
    instance, and only with all of its frames. All slices get the orientation of the first, because a
    segmentation has one for all frames. Slice Thickness is the distance between slices where the source
    states none.

    Args:
        source: the volume that was read.
        identity: gives Study Instance UID and Frame of Reference UID.
    """
    header, (between_slices, _, _) = identity.header.dataset, source.volume.grid.spacing
    first = plane_of(source.frames[0])
    planes = []
    for k, frame in enumerate(source.frames):
        plane = plane_of(frame)
        uid = derive_uid("stand-in", str(k))
        ds = stand_in(str(header.StudyInstanceUID), source.series.series_instance_uid, MRImageStorage, uid)
        ds.Rows, ds.Columns = source.volume.grid.shape[1:]
        ds.FrameOfReferenceUID = header.FrameOfReferenceUID
        ds.ImagePositionPatient = [format_number_as_ds(v) for v in plane.position]
        ds.ImageOrientationPatient = [format_number_as_ds(v) for v in first.orientation]
        ds.PixelSpacing = [format_number_as_ds(v) for v in first.spacing]
        ds.SliceThickness = format_number_as_ds(first.thickness or between_slices)
        ds.SpacingBetweenSlices = format_number_as_ds(between_slices)
        planes.append(ds)
    return planes
