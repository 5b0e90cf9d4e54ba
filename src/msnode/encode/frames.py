"""The frames of a segmentation: which planes are stored, and their Pixel Data (PS3.5 8.1, Annex G)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.uid import UID


@dataclass(frozen=True)
class Frames:
    """The stored frames.

    Attributes:
        slices: source slice of each frame, from 0.
        segments: segment number of each frame; empty in a label map, whose values are segment numbers.
        bits: bits of a voxel: 1, 8 or 16.
        pixel_data: value of Pixel Data, even length.
        transfer_syntax: what `pixel_data` is encoded in.
    """

    slices: tuple[int, ...]
    segments: tuple[int, ...]
    bits: int
    pixel_data: bytes
    transfer_syntax: UID = ExplicitVRLittleEndian


def binary_frames(labels: NDArray[Any]) -> Frames:
    """A frame for each segment on each slice that it touches, one bit a voxel, no padding between frames.

    Args:
        labels: segment numbers, 0 = background, (slice, row, column); not all 0.

    Returns:
        Frames by segment, then by slice.
    """
    slices, rows, columns = labels.shape
    size = rows * columns
    voxels = np.flatnonzero(labels)
    keys = labels.reshape(-1)[voxels].astype(np.int64) * slices + voxels // size
    present, frames = np.unique(keys, return_inverse=True)
    bits = frames * size + voxels % size
    packed = np.zeros(-(-len(present) * size // 16) * 2, np.uint8)
    np.bitwise_or.at(packed, bits >> 3, (1 << (bits & 7)).astype(np.uint8))
    return Frames(
        slices=tuple((present % slices).tolist()),
        segments=tuple((present // slices).tolist()),
        bits=1,
        pixel_data=packed.tobytes(),
    )


def value_frames(values: NDArray[np.uint8], segment: int) -> Frames:
    """A frame for each slice with a value over 0, of one segment, one byte a voxel.

    Args:
        values: (slice, row, column); not all 0.
        segment: the segment's number.
    """
    stored = _touched(values)
    data = values[stored].tobytes()
    return Frames(
        slices=tuple(stored),
        segments=(segment,) * len(stored),
        bits=8,
        pixel_data=data + b"\0" * (len(data) % 2),
    )


def label_frames(labels: NDArray[Any]) -> Frames:
    """A frame for each slice with a label: the labels themselves, in one byte where all fit, else in two.

    RLE Lossless where that is smaller, else not compressed.

    Args:
        labels: segment numbers, 0 = background, (slice, row, column); not all 0.
    """
    stored = _touched(labels)
    bits = 8 if labels.max() <= np.iinfo(np.uint8).max else 16
    planes = labels[stored].astype(f"<u{bits // 8}")
    native = planes.tobytes()
    compressed = encapsulate([_rle_frame(plane) for plane in planes])
    if len(compressed) < len(native):
        return Frames(tuple(stored), (), bits, compressed, RLELossless)
    return Frames(tuple(stored), (), bits, native + b"\0" * (len(native) % 2))


def _touched(values: NDArray[Any]) -> list[int]:
    """The slices that hold anything but 0."""
    touched: list[int] = np.flatnonzero(values.any(axis=(1, 2))).tolist()
    return touched


def _rle_frame(plane: NDArray[Any]) -> bytes:
    """One frame in RLE Lossless (PS3.5 Annex G)."""
    rows, columns = plane.shape
    bits = 8 * plane.itemsize
    return RLELosslessEncoder.encode(
        plane.tobytes(), rows=rows, columns=columns, number_of_frames=1, samples_per_pixel=1,
        bits_allocated=bits, bits_stored=bits, pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        encoding_plugin="pydicom",  # another one may be there, and write other bytes
    )  # fmt: skip
