"""The phantom as DICOM: a study with a localiser and an axial FLAIR as MR Image Storage instances."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from msnode.demo.phantom import SLICE_THICKNESS_MM

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from msnode.demo.phantom import Phantom

_DATE = "20260105"
_LOCALISER_PLANES = 3


def write_series(phantom: Phantom, folder: Path) -> list[Path]:
    """Write the study of a phantom to `folder` and return the files in the order a scanner sends them.

    The study has two series: a three-plane localiser, which must not be chosen, and the FLAIR with instance
    numbers from inferior to superior. UIDs are derived from the seed, so a seed always gives the same study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, dataset in enumerate([*_localiser(phantom), *_flair(phantom)]):
        path = folder / f"IM{number:04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def study_uid(phantom: Phantom) -> str:
    """Study Instance UID of the phantom's study."""
    return _uid(phantom, "study")


def _uid(phantom: Phantom, *parts: object) -> str:
    text = "/".join(map(str, ("msnode demo", phantom.seed, *parts)))
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def _flair(phantom: Phantom) -> list[Dataset]:
    grid = phantom.volume.grid
    slices = []
    for index, pixels in enumerate(phantom.volume.data):
        dataset = _image(phantom, "flair", index, pixels)
        dataset.SeriesNumber = 2
        dataset.SeriesDescription = "Ax T2 FLAIR"
        dataset.ProtocolName = "Ax T2 FLAIR"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "IR"]
        dataset.ScanningSequence = ["SE", "IR"]
        dataset.RepetitionTime, dataset.EchoTime, dataset.InversionTime = 9000, 120, 2500
        dataset.EchoTrainLength = 25
        dataset.SliceThickness = SLICE_THICKNESS_MM
        dataset.SpacingBetweenSlices = round(grid.spacing[0], 4)
        position = grid.affine[:3, 3] + index * grid.affine[:3, 0]
        _place(dataset, position, grid.affine[:3, 2], grid.affine[:3, 1])
        slices.append(dataset)
    return slices


def _localiser(phantom: Phantom) -> list[Dataset]:
    """One axial, one coronal and one sagittal plane through the middle of the head."""
    data, grid = phantom.volume.data, phantom.volume.grid
    slice_step, row_step, column_step = (grid.affine[:3, axis] for axis in range(3))
    first, (slices, rows, columns) = grid.affine[:3, 3], grid.shape
    top = first + (slices - 1) * slice_step
    planes = (
        (data[slices // 2], first + slices // 2 * slice_step, column_step, row_step),
        (data[::-1, rows // 2], top + rows // 2 * row_step, column_step, -slice_step),
        (data[::-1, :, columns // 2], top + columns // 2 * column_step, row_step, -slice_step),
    )
    images = []
    for index, (pixels, position, along_row, along_column) in enumerate(planes):
        dataset = _image(phantom, "localiser", index, pixels)
        dataset.SeriesNumber = 1
        dataset.SeriesDescription = "3-plane localizer"
        dataset.ProtocolName = "3-plane localizer"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE", "LOCALIZER"]
        dataset.ScanningSequence = "SE"
        dataset.RepetitionTime, dataset.EchoTime = 700, 90
        dataset.EchoTrainLength = 64
        dataset.SliceThickness = 7.0
        _place(dataset, position, along_row, along_column)
        images.append(dataset)
    return images


def _place(
    dataset: Dataset,
    position: NDArray[np.float64],
    along_row: NDArray[np.float64],
    along_column: NDArray[np.float64],
) -> None:
    """Set the Image Plane module; `along_row` and `along_column` are steps of one pixel, LPS mm."""
    row_mm, column_mm = float(np.linalg.norm(along_column)), float(np.linalg.norm(along_row))
    directions = (*(along_row / column_mm), *(along_column / row_mm))
    dataset.PixelSpacing = [f"{row_mm:.6f}", f"{column_mm:.6f}"]
    dataset.ImagePositionPatient = [f"{v:.6f}" for v in position]
    dataset.ImageOrientationPatient = [f"{v:.9f}" for v in directions]


def _image(phantom: Phantom, series: str, index: int, pixels: NDArray[np.float32]) -> Dataset:
    """An image with everything that both series share, and its pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = _uid(phantom, series, index)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    _describe_patient_and_study(dataset, phantom)
    dataset.SeriesInstanceUID = _uid(phantom, series)
    dataset.FrameOfReferenceUID = _uid(phantom, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Modality = "MR"
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = _DATE
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101500"
    dataset.Manufacturer = "msnode"
    dataset.ManufacturerModelName = "demo phantom"
    dataset.InstitutionName = "Demo Hospital"
    dataset.DeviceSerialNumber = str(phantom.seed)
    dataset.SoftwareVersions = "1"
    dataset.BodyPartExamined = "BRAIN"
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionNumber = 1
    dataset.InstanceNumber = index + 1
    dataset.SequenceVariant = "SK"
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "2D"
    dataset.MagneticFieldStrength = 1.5
    dataset.ImagingFrequency = 63.87
    dataset.ImagedNucleus = "1H"
    dataset.FlipAngle = 90
    dataset.PixelBandwidth = 150
    _set_pixels(dataset, pixels)
    return dataset


def _describe_patient_and_study(dataset: Dataset, phantom: Phantom) -> None:
    dataset.PatientName = "DEMO^PATIENT"
    dataset.PatientID = f"DEMO-{phantom.seed}"
    dataset.PatientBirthDate = "19880214"
    dataset.PatientSex = "F"
    dataset.PatientAge = "037Y"
    dataset.PatientWeight = 64
    dataset.StudyInstanceUID = study_uid(phantom)
    dataset.StudyDate = _DATE
    dataset.StudyTime = "101200"
    dataset.StudyID = "1"
    dataset.StudyDescription = "MR Brain"
    dataset.AccessionNumber = f"DEMO{phantom.seed:06d}"
    dataset.ReferringPhysicianName = ""


def _set_pixels(dataset: Dataset, pixels: NDArray[np.float32]) -> None:
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 900, 1500
    stored = np.ascontiguousarray(np.clip(pixels, 0, 4095)).astype("<u2")
    dataset.PixelData = stored.tobytes()
