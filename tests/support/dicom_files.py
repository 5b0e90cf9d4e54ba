"""Small DICOM series for tests: realistic headers, derived UIDs, reproducible pixels."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

DIRECTIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
}
"""Direction cosines (LPS) of the row (left to right on screen) and of the column (top to bottom)."""


def derived_uid(*parts: object) -> str:
    """A UID under 2.25 that depends on `parts` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16]
    return f"2.25.{int.from_bytes(digest, 'big')}"


def head_pixels(slices: int, rows: int, columns: int) -> NDArray[np.uint16]:
    """An ellipsoid with a brighter core and some noise, 12 bit, (slice, row, column)."""
    axes = [(np.arange(n) - (n - 1) / 2) / (0.45 * n) for n in (slices, rows, columns)]
    k, i, j = np.meshgrid(*axes, indexing="ij")
    radius = k**2 * 0.6 + i**2 + j**2
    noise = np.random.default_rng(7).normal(0, 12, size=radius.shape)
    values = np.where(radius < 1, 600 + 300 * (radius < 0.3), 20) + 40 * (j > 0) + noise
    return np.clip(values, 0, 4095).astype(np.uint16)


def _patient_and_study(patient_id: str, patient_name: str, study_uid: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20240102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101112"
    ds.AccessionNumber = "ACC0001"
    ds.Modality = "MR"
    ds.Manufacturer = "Philips Medical Systems"
    ds.ManufacturerModelName = "Ingenia"
    ds.InstitutionName = "Test Hospital"
    ds.ReferringPhysicianName = "Referring^Doctor"
    ds.StudyDescription = "MR Brain"
    ds.PatientName = patient_name
    ds.PatientID = patient_id
    ds.PatientBirthDate = "19800101"
    ds.PatientSex = "F"
    ds.PatientAge = "044Y"
    ds.BodyPartExamined = "BRAIN"
    ds.DeviceSerialNumber = "12345"
    ds.SoftwareVersions = "5.7.1"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = study_uid
    ds.StudyID = "1"
    return ds


def _complete(ds: Dataset, overrides: dict[str, object]) -> Dataset:
    """Apply overrides (None deletes the attribute) and add the file meta information."""
    for keyword, value in overrides.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def _numbers(values: Sequence[float]) -> list[str]:
    return [f"{v:.6g}" for v in values]


def flair_series(
    folder: Path,
    *,
    slices: int = 20,
    rows: int = 64,
    columns: int = 64,
    spacing: tuple[float, float, float] = (6.0, 0.9, 0.9),
    orientation: str = "axial",
    description: str = "Ax T2 FLAIR",
    patient_id: str = "PAT001",
    patient_name: str = "Doe^Jane",
    study: str = "1",
    series_number: int = 301,
    pixels: NDArray[np.uint16] | None = None,
    **overrides: object,
) -> list[Path]:
    """A classic MR FLAIR series, one file a slice, in slice order along the stack's normal.

    `spacing` is (slice step, between rows, between columns) in mm; `study` tells studies of one patient
    apart; `pixels` replaces the drawn head, shape (slices, rows, columns); `overrides` are attributes by
    keyword set in every instance, None deletes one. The same arguments write the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = head_pixels(slices, rows, columns) if pixels is None else pixels
    slices, rows, columns = stored.shape
    along_row, along_column = map(np.array, DIRECTIONS[orientation])
    normal = np.cross(along_row, along_column)
    centre = (normal * (slices - 1) * spacing[0] + along_row * (columns - 1) * spacing[2]) / 2
    origin = -centre - along_column * (rows - 1) * spacing[1] / 2
    study_uid = derived_uid("study", patient_id, study)
    series_uid = derived_uid("series", study_uid, description, series_number)
    paths = []
    for k in range(slices):
        ds = _patient_and_study(patient_id, patient_name, study_uid)
        ds.SOPClassUID = MRImageStorage
        ds.SOPInstanceUID = derived_uid("instance", series_uid, k)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M_IR", "M", "IR"]
        ds.SeriesDescription = ds.ProtocolName = description
        ds.ScanningSequence = ["SE", "IR"]
        ds.SequenceVariant = "SK"
        ds.ScanOptions = "FS"
        ds.MRAcquisitionType = "2D" if spacing[0] > 2 else "3D"
        ds.SliceThickness = f"{spacing[0] * 0.9:.6g}"
        ds.SpacingBetweenSlices = f"{spacing[0]:.6g}"
        ds.RepetitionTime, ds.EchoTime, ds.InversionTime = 9000, 120, 2500
        ds.EchoTrainLength, ds.FlipAngle, ds.MagneticFieldStrength = 25, 90, 1.5
        ds.SeriesInstanceUID = series_uid
        ds.SeriesNumber, ds.InstanceNumber = series_number, k + 1
        ds.ImagePositionPatient = _numbers(origin + k * spacing[0] * normal)
        ds.ImageOrientationPatient = _numbers([*along_row, *along_column])
        ds.FrameOfReferenceUID = derived_uid("frame", study_uid)
        ds.PositionReferenceIndicator = ""
        ds.PixelSpacing = _numbers(spacing[1:])
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = rows, columns
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.WindowCenter, ds.WindowWidth = 500, 1000
        ds.PixelData = np.ascontiguousarray(stored[k]).astype("<u2").tobytes()
        path = folder / f"{series_number:04d}-{k + 1:04d}.dcm"
        _complete(ds, overrides).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _plane_groups(position: Sequence[float], k: int) -> Dataset:
    """Per-frame functional groups: Plane Position and Frame Content."""
    plane = Dataset()
    plane.ImagePositionPatient = _numbers(position)
    content = Dataset()
    content.StackID, content.InStackPositionNumber = "1", k + 1
    content.TemporalPositionIndex = 1
    group = Dataset()
    group.PlanePositionSequence = DicomSequence([plane])
    group.FrameContentSequence = DicomSequence([content])
    return group


def _shared_groups(spacing: tuple[float, float, float], orientation: Sequence[float]) -> Dataset:
    """Shared functional groups: pixel measures, orientation, rescale and MR timing (PS3.3 C.8.13.5)."""
    measures = Dataset()
    measures.PixelSpacing = _numbers(spacing[1:])
    measures.SliceThickness = f"{spacing[0]:.6g}"
    plane = Dataset()
    plane.ImageOrientationPatient = _numbers(orientation)
    rescale = Dataset()
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = 5, 2, "US"
    timing = Dataset()
    timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength = 9000, 90, 25
    echo = Dataset()
    echo.EffectiveEchoTime = 120.0
    modifier = Dataset()
    modifier.InversionRecovery, modifier.InversionTimes = "YES", [2500.0]
    frame_type = Dataset()
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared = Dataset()
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([plane])
    shared.PixelValueTransformationSequence = DicomSequence([rescale])
    shared.MRTimingAndRelatedParametersSequence = DicomSequence([timing])
    shared.MREchoSequence = DicomSequence([echo])
    shared.MRModifierSequence = DicomSequence([modifier])
    shared.MRImageFrameTypeSequence = DicomSequence([frame_type])
    return shared


def enhanced_flair(
    path: Path,
    *,
    slices: int = 12,
    rows: int = 32,
    columns: int = 40,
    spacing: tuple[float, float, float] = (1.2, 0.9, 0.9),
    orientation: str = "sagittal",
    description: str = "3D Sag FLAIR",
    patient_id: str = "PAT001",
    patient_name: str = "Doe^Jane",
    study: str = "1",
    **overrides: object,
) -> Path:
    """One Enhanced MR instance with geometry, timing and rescale (x 2 + 5) in functional groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    along_row, along_column = map(np.array, DIRECTIONS[orientation])
    normal = np.cross(along_row, along_column)
    study_uid = derived_uid("study", patient_id, study)
    ds = _patient_and_study(patient_id, patient_name, study_uid)
    ds.SOPClassUID = EnhancedMRImageStorage
    ds.SeriesInstanceUID = derived_uid("enhanced series", study_uid, description)
    ds.SOPInstanceUID = derived_uid("enhanced", ds.SeriesInstanceUID)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.SeriesDescription = ds.ProtocolName = description
    ds.SeriesNumber, ds.InstanceNumber = 401, 1
    ds.MRAcquisitionType = "2D" if spacing[0] > 2 else "3D"
    ds.AcquisitionContrast, ds.PulseSequenceName = "FLUID_ATTENUATED", "TSE_IR"
    ds.MagneticFieldStrength, ds.PixelPresentation = 3.0, "MONOCHROME"
    ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "VOLUME", "NONE"
    ds.ComplexImageComponent = "MAGNITUDE"
    ds.LossyImageCompression, ds.BurnedInAnnotation = "00", "NO"
    ds.FrameOfReferenceUID = derived_uid("frame", study_uid)
    ds.PositionReferenceIndicator = ""
    ds.SharedFunctionalGroupsSequence = DicomSequence([_shared_groups(spacing, [*along_row, *along_column])])
    ds.PerFrameFunctionalGroupsSequence = DicomSequence(
        [_plane_groups(normal * spacing[0] * k - [50.0, 60.0, -70.0], k) for k in range(slices)]
    )
    ds.NumberOfFrames = slices
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = head_pixels(slices, rows, columns).astype("<u2").tobytes()
    _complete(ds, overrides).save_as(path, enforce_file_format=True)
    return path


def change(path: Path, edit: Callable[[Dataset], None] | None = None, **attributes: object) -> Path:
    """Rewrite one file: attributes by keyword (None deletes), then `edit` on the data set; pixels stay."""
    ds = dcmread(path)
    for keyword, value in attributes.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    if edit is not None:
        edit(ds)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "2.25.1")
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", MRImageStorage)
    ds.save_as(path, enforce_file_format=True)
    return path


def change_all(paths: Sequence[Path], **attributes: object) -> None:
    """`change` on every file."""
    for path in paths:
        change(path, **attributes)


def encoded(ds: Dataset, *, implicit: bool = False) -> bytes:
    """A data set as it travels: little endian, without file meta information."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    plain = Dataset()
    plain.update({element.tag: element for element in ds})
    write_dataset(buffer, plain)
    return buffer.getvalue()
