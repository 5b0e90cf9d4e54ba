#!/usr/bin/env bash
# SimpleITK 2.5.7 reads a DICOM segmentation without a word even if its planes are unevenly spaced, as they are
# when a segment leaves out planes in between. The planes are put next to each other, and the spacing becomes
# 1 x 1 x 1 mm whatever Pixel Measures say: volumes and positions taken from the image are wrong. If the segment
# has a frame on every plane of the source, empty ones too, size and spacing come back right.
# Seen 2026-11-28: planes 0, 1 and 3 of 4, 6 mm apart and 0.9 mm in plane, came back as 3 planes of 1 x 1 x 1 mm;
# with all four planes written, as 4 planes of 0.9 x 0.9 x 6 mm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6 SimpleITK==2.5.7
"$folder/venv/bin/python" - "$folder/seg.dcm" <<'PY'
import sys

import numpy as np
import SimpleITK as sitk
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

study, series, frame = generate_uid(), generate_uid(), generate_uid()
images = []
for index in range(4):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
    ds.StudyDate = ds.StudyTime = None
    ds.Rows = ds.Columns = 16
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 6 * index], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = [0.9, 0.9], 6, 6
    images.append(ds)
mask = np.zeros((4, 16, 16), np.uint8)
mask[[0, 1, 3], 4:8, 4:8] = 1
algorithm = AlgorithmIdentificationSequence("a", codes.DCM.ArtificialIntelligence, "1")
segment = SegmentDescription(
    1, "lesion", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, "AUTOMATIC", algorithm
)


def read_back(*, every_plane):
    Segmentation(
        images, mask, "BINARY", [segment], generate_uid(), 1, generate_uid(), 1, "m", "m", "1", "1",
        content_label="LESIONS", omit_empty_frames=not every_plane,
    ).save_as(sys.argv[1])
    image = sitk.ReadImage(sys.argv[1])
    print(f"every plane {every_plane}: size {image.GetSize()}, spacing {image.GetSpacing()} mm")
    return image.GetSize()[2], image.GetSpacing()


assert read_back(every_plane=False) == (3, (1.0, 1.0, 1.0)), "the gap is kept, or the spacing read, now"
assert read_back(every_plane=True) == (4, (0.9, 0.9, 6.0)), "a whole stack is read differently now"
PY
