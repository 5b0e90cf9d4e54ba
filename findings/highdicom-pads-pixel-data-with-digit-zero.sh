#!/usr/bin/env bash
# highdicom 0.28.2 pads the Pixel Data of a BINARY segmentation with the character "0" (0x30), not with a zero
# byte. PS3.5 8.1.1 asks for an even length with a single zero byte at the end where padding is needed. Readers
# that take the frames from Rows, Columns and Number of Frames see no difference; a byte-for-byte comparison
# with another writer, or a reader that unpacks all bits, does.
# Seen 2026-11-28: 2 frames of 5 x 5 are 50 bits, 7 bytes, 8 with padding; the last byte was 0x30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

study, series, frame = generate_uid(), generate_uid(), generate_uid()
images = []
for index in range(2):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
    ds.StudyDate = ds.StudyTime = None
    ds.Rows = ds.Columns = 5
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 3 * index], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 3
    images.append(ds)
algorithm = AlgorithmIdentificationSequence("a", codes.DCM.ArtificialIntelligence, "1")
segment = SegmentDescription(
    1, "lesion", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, "AUTOMATIC", algorithm
)
seg = Segmentation(
    images, np.ones((2, 5, 5), np.uint8), "BINARY", [segment], generate_uid(), 1, generate_uid(), 1,
    "m", "m", "1", "1", content_label="LESIONS",
)
bits = seg.NumberOfFrames * seg.Rows * seg.Columns
print(f"{bits} bits in {len(seg.PixelData)} bytes; the last is 0x{seg.PixelData[-1]:02x}")
assert (bits, len(seg.PixelData), seg.PixelData[-1]) == (50, 8, 0x30), "highdicom pads in another way now"
PY
