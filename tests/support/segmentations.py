"""Segmentations for tests: sources with lesions drawn into their pixels, and segmentations read in LPS mm.

Nothing here uses the node's own geometry: positions come from the headers of the files (PS3.3 C.7.6.2.1.1),
from highdicom, or from VTK-DICOM, a program in C++.
"""

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy.spatial import KDTree

from support.dicom_files import head_pixels
from support.environment import peer

Places = Mapping[int, NDArray[np.float64]]
"""Value → positions of the voxels with that value, (n, 3), LPS mm, in any order."""

BRIGHTEST_HEAD = 2000
"""Drawn lesions are brighter than any other voxel of `head_pixels`: this plus their number."""

_SPECK = 1000
_BOXES = ((2, 4, 5), (1, 5, 6), (2, 3, 4), (1, 3, 5), (1, 2, 3))
_CORNERS = ((1, 2, 2), (1, 9, 4), (2, 3, 9), (3, 10, 13), (3, 2, 14))


def pixels_with_lesions(slices: int = 5, rows: int = 18, columns: int = 22) -> NDArray[np.uint16]:
    """A head with five boxes of falling size, lopsided in every direction, numbered by their values."""
    pixels = head_pixels(slices, rows, columns)
    for number, (corner, size) in enumerate(zip(_CORNERS, _BOXES, strict=True), start=1):
        pixels[tuple(slice(a, a + s) for a, s in zip(corner, size, strict=True))] = BRIGHTEST_HEAD + number
    pixels[:, 0, 0] = BRIGHTEST_HEAD + _SPECK  # else a lesion is a plateau of the largest value: saturated
    return pixels


def drawn_numbers(stored: NDArray[Any]) -> NDArray[Any]:
    """Stored values as numbers of drawn lesions; what is not positive is none. Any shape."""
    return np.where(stored >= BRIGHTEST_HEAD + _SPECK, 0, stored - BRIGHTEST_HEAD)


def drawn_places(paths: Sequence[Path]) -> Places:
    """Number of each drawn lesion → its positions, from stored pixels and headers alone."""
    frames, affines = [], []
    for path in paths:
        ds = dcmread(path)
        stored = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns).astype(int)
        for frame, affine in zip(drawn_numbers(stored), _frame_affines(ds), strict=True):
            if (frame > 0).any():
                frames.append(frame)
                affines.append(affine)
    return _collect(np.array(frames), affines)


def _frame_affines(ds: Dataset) -> list[NDArray[np.float64]]:
    """(row, column, 1) → LPS mm of each frame, shape (3, 3)."""
    if "PerFrameFunctionalGroupsSequence" not in ds:
        return [_plane(ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing)]
    shared = ds.SharedFunctionalGroupsSequence[0]
    along = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    groups = ds.PerFrameFunctionalGroupsSequence
    return [_plane(g.PlanePositionSequence[0].ImagePositionPatient, along, spacing) for g in groups]


def _plane(
    position: Sequence[float], along: Sequence[float], spacing: Sequence[float]
) -> NDArray[np.float64]:
    x, y = np.array(along, float).reshape(2, 3)
    between_rows, between_columns = map(float, spacing)
    return np.column_stack([y * between_rows, x * between_columns, np.array(position, float)])


def _positions(affine: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    indices = np.argwhere(chosen)
    return np.column_stack([indices, np.ones(len(indices))]) @ affine.T


def places_by_frame(path: Path) -> Places:
    """Segment number, or value in a label map or probability → positions, frame by frame, by pydicom."""
    ds = dcmread(path)
    by_segment = ds.SegmentationType == "BINARY"
    return _collect(
        ds.pixel_array.reshape(-1, ds.Rows, ds.Columns),
        _frame_affines(ds),
        segments_of_frames(ds) if by_segment else [],
    )


def segments_of_frames(ds: Dataset) -> list[int]:
    """Segment number of each frame; one segment alone is named once, for all frames."""
    (shared,) = ds.SharedFunctionalGroupsSequence
    return [
        int((g if "SegmentIdentificationSequence" in g else shared).SegmentIdentificationSequence[0]
            .ReferencedSegmentNumber)
        for g in ds.PerFrameFunctionalGroupsSequence
    ]  # fmt: skip


def places_by_dcmtk(path: Path) -> Places:
    """As `places_by_frame` of a BINARY segmentation, from what DCMTK reads."""
    command = [peer("dcm2json"), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    read = json.loads(done.stdout)
    rows, columns = read["00280010"]["Value"][0], read["00280011"]["Value"][0]
    bits = np.unpackbits(
        np.frombuffer(base64.b64decode(read["7FE00010"]["InlineBinary"]), np.uint8), bitorder="little"
    )
    shared = read["52009229"]["Value"][0]
    along = shared["00209116"]["Value"][0]["00200037"]["Value"]
    spacing = shared["00289110"]["Value"][0]["00280030"]["Value"]
    groups = read["52009230"]["Value"]
    positions = [g["00209113"]["Value"][0]["00200032"]["Value"] for g in groups]
    return _collect(
        bits[: len(groups) * rows * columns].reshape(-1, rows, columns),
        [_plane(position, along, spacing) for position in positions],
        [(shared | g)["0062000A"]["Value"][0]["0062000B"]["Value"][0] for g in groups],
    )


def _collect(
    frames: NDArray[np.integer], affines: Sequence[NDArray[np.float64]], segments: Sequence[int] = ()
) -> Places:
    """Positions by segment where frames have one, else by value."""
    parts: dict[int, list[NDArray[np.float64]]] = {}
    for n, (frame, affine) in enumerate(zip(frames, affines, strict=True)):
        for value in np.unique(frame[frame > 0]).tolist():
            number = segments[n] if segments else value
            parts.setdefault(number, []).append(_positions(affine, frame == value))
    return {number: np.concatenate(found) for number, found in sorted(parts.items())}


def places_by_highdicom(path: Path) -> Places:
    """As `places_by_frame`, from the volume that highdicom puts together."""
    seg = highdicom.seg.segread(path)
    if seg.SegmentationType == "FRACTIONAL":
        volume = seg.get_volume(rescale_fractional=False)
        return _places(volume.array[..., 0], volume.affine)
    volume = seg.get_volume(combine_segments=True)
    return _places(volume.array, volume.affine)


def places_by_simpleitk(path: Path) -> Places:
    """As `places_by_frame` of a segmentation with every plane, from the image that SimpleITK reads."""
    image = SimpleITK.ReadImage(str(path))
    columns = [image.TransformIndexToPhysicalPoint([int(n == axis) for n in range(3)]) for axis in (2, 1, 0)]
    origin = np.array(image.GetOrigin())
    affine = np.column_stack([*(np.array(column) - origin for column in columns), origin])
    values = SimpleITK.GetArrayFromImage(image)
    if dcmread(path).SegmentationType == "BINARY":
        values = values // 255  # GDCM shows a bit as 255
    return _places(values, affine)


def places_by_vtk(path: Path, folder: Path) -> Places:
    """As `places_by_frame`, from the NIfTI file that VTK-DICOM makes of a segmentation of one volume."""
    target = folder / "vtk.nii"
    command = [peer("dicomtonifti"), "--no-reordering", "--silent", "-o", str(target), str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    image = nibabel.Nifti1Image.from_bytes(target.read_bytes())
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    return _places(np.asarray(image.dataobj), lps)


def _places(values: NDArray[np.integer], affine: NDArray[np.float64]) -> Places:
    found = np.unique(values[values > 0]).tolist()
    return {v: _positions(affine[:3], values == v) for v in found}


def assert_same_places(found: Places, expected: Places, tolerance_mm: float = 0.01) -> None:
    """The same values at the same positions, none missing and none besides."""
    assert {v: len(p) for v, p in found.items()} == {v: len(p) for v, p in expected.items()}
    for value, positions in expected.items():
        distances, nearest = KDTree(positions).query(found[value])
        assert distances.max() <= tolerance_mm
        assert len(set(nearest.tolist())) == len(positions)


def together(places: Places) -> Places:
    """All values as one, number 1."""
    return {1: np.concatenate(list(places.values()))}
