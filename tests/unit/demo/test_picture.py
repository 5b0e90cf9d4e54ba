"""The picture shows the slices with lesions, in order."""

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from msnode.demo.picture import save_picture

TILE = 360


@pytest.fixture
def overlay(tmp_path):
    """Ten images whose red value is ten times their number, written last first."""
    paths = []
    for number in reversed(range(10)):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, f"2.25.{number + 1}"
        image.ImagePositionPatient = [0, 0, 7 * number]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.Rows, image.Columns, image.SamplesPerPixel = 16, 12, 3
        image.PhotometricInterpretation, image.PlanarConfiguration = "RGB", 0
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
        pixels = np.zeros((16, 12, 3), np.uint8)
        pixels[..., 0] = 10 * number
        image.PixelData = pixels.tobytes()
        paths.append(tmp_path / f"{number}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def reds(path):
    sheet = np.asarray(Image.open(path))
    rows, columns = sheet.shape[0] // TILE, sheet.shape[1] // TILE
    middles = [(r * TILE + TILE // 2, c * TILE + TILE // 2) for r in range(rows) for c in range(columns)]
    return [int(sheet[m][0]) for m in middles]


def test_slices_with_lesions_are_shown_from_below(overlay, tmp_path):
    shown = save_picture(overlay, [49.01, 20.99, 21.0], tmp_path / "picture.png")
    assert shown == 2
    assert reds(tmp_path / "picture.png") == [30, 70]


def test_without_lesions_the_stack_is_shown(overlay, tmp_path):
    assert save_picture(overlay, [], tmp_path / "picture.png") == 10
    assert reds(tmp_path / "picture.png") == [*range(0, 100, 10), 0, 0]


def test_a_long_list_is_thinned_to_its_ends(overlay, tmp_path, monkeypatch):
    monkeypatch.setattr("msnode.demo.picture._MOST_TILES", 3)
    assert save_picture(overlay, [], tmp_path / "picture.png") == 3
    assert reds(tmp_path / "picture.png") == [0, 40, 90]
