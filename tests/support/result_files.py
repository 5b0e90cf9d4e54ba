"""Result objects for tests of delivery: small, of every kind that a destination is given."""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from msnode.deliver.destination import ResultObject
from msnode.deliver.dicom import CONTEXT_OF_KIND
from support.dicom_files import derived_uid

_MODALITIES = {
    "seg": "SEG",
    "sr": "SR",
    "overlay": "OT",
    "ko": "KO",
    "summary": "OT",
    "pdf": "DOC",
    "probability": "SEG",
    "sr-comprehensive": "SR",
    "sr-enhanced": "SR",
}


def _common(kind: str, number: int, name: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CONTEXT_OF_KIND[kind].sop_class_uid
    ds.SOPInstanceUID = derived_uid("deliver", name, kind, number)
    ds.StudyInstanceUID = derived_uid("study", name)
    ds.SeriesInstanceUID = derived_uid("series", name, kind)
    ds.PatientName, ds.PatientID = "Łukasiewicz^Zoë", "P1"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20240102", "101112", "", "1"
    ds.Modality = _MODALITIES[kind]
    ds.SeriesNumber, ds.InstanceNumber = 9800, number
    return ds


def _image(ds: Dataset, rows: int, columns: int, samples: int, bits: int) -> None:
    ds.Rows, ds.Columns, ds.SamplesPerPixel = rows, columns, samples
    ds.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, 0


def write_result(kind: str, number: int, folder: Path, name: str = "") -> ResultObject:
    """One object; the same arguments write the same bytes, another `name` is another study."""
    ds = _common(kind, number, name)
    if kind == "overlay":
        _image(ds, 16, 20, 3, 8)
        ds.PlanarConfiguration, ds.ConversionType = 0, "WSD"
        ds.PixelData = np.arange(16 * 20 * 3, dtype=np.uint8).tobytes()
    elif kind == "seg":
        _image(ds, 16, 16, 1, 1)
        ds.NumberOfFrames, ds.SegmentationType = 3, "BINARY"
        ds.PixelData = bytes(range(96))
    else:
        ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
        ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path = folder / f"{kind}-{number}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return ResultObject.from_file(kind, path)


def write_results(folder: Path, name: str = "") -> list[ResultObject]:
    """One SEG, one SR and three overlay images."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_result(kind, number, folder, name)
        for kind, number in (("seg", 1), ("sr", 1), ("overlay", 1), ("overlay", 2), ("overlay", 3))
    ]
