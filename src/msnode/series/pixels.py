"""Decodes the stored pixel values of one instance within limits.

pydicom decodes RLE, and GDCM decodes JPEG, JPEG-LS and JPEG 2000. The size that a codestream declares is
compared with the header before a decoder sees it, because a decoder allocates what the codestream declares.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import numpy as np
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from msnode.dicom.header import PARSER_ERRORS, number, text, value
from msnode.dicom.planes import frame_count
from msnode.errors import NotAVolume, NotReadable, OutOfResources

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

MAX_VOXELS = 2**27
"""Largest volume that is decoded: 512 x 512 x 512 voxels (512 MiB as float32)."""

_EXPANDING_BYTES, _MOST_EXPANSION = 16 * 2**20, 500
"""An instance of more decoded bytes may expand so many times. Small empty images expand further than that."""

_NATIVE = {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
_GDCM = {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes}
_BITS = (8, 16, 32)
_START_OF_FRAME = {0xFFF7, *range(0xFFC0, 0xFFD0)} - {0xFFC4, 0xFFC8, 0xFFCC}
_DAMAGE = (*PARSER_ERRORS, RuntimeError)
"""What parsers and codecs raise on damaged data (pydicom wraps most of it in RuntimeError)."""

_MACHINE_FAILS = {
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
}
"""Errors of the machine or of a shared file system, which say nothing about the file."""


def read_file(path: Path, *, header_only: bool) -> Dataset:
    """Read a DICOM file (PS3.10).

    Raises:
        NotReadable: not DICOM, truncated inside the data set, or it cannot be opened.
        OutOfResources: the machine or its storage failed; the file may be intact.
    """
    try:
        return dcmread(path, stop_before_pixels=header_only)
    except InvalidDicomError as error:
        raise NotReadable("not DICOM: the file has no DICM prefix (PS3.10 7.1)") from error
    except _DAMAGE as error:
        raise NotReadable("the file is cut off or damaged inside its data set") from error
    except OSError as error:
        if error.errno in _MACHINE_FAILS:
            raise OutOfResources(f"a file cannot be read now: {error.strerror}") from error
        raise NotReadable(f"the file cannot be read: {error.strerror or 'cut off or damaged'}") from error


def check_pixel_description(header: Dataset) -> None:
    """Check, before anything is allocated, that there is one grey value for each voxel.

    Raises:
        NotAVolume: names the attribute that is wrong, and what is needed.
    """
    photometric = text(header, "PhotometricInterpretation")
    if photometric != "MONOCHROME2":
        # MONOCHROME1 does not say around which value to invert, so it is refused
        raise NotAVolume(f"Photometric Interpretation is {photometric or 'missing'}: MONOCHROME2 is needed")
    if number(header, "SamplesPerPixel") != 1:
        raise NotAVolume(f"Samples per Pixel is {text(header, 'SamplesPerPixel') or 'missing'}: 1 is needed")
    for keyword in ("Rows", "Columns"):
        if (number(header, keyword) or 0) < 1:
            raise NotAVolume(f"{keyword} is {text(header, keyword) or 'missing'}: at least 1 is needed")
    allocated, stored = number(header, "BitsAllocated"), number(header, "BitsStored")
    high = number(header, "HighBit")
    if allocated not in _BITS:
        raise NotAVolume(
            f"Bits Allocated is {text(header, 'BitsAllocated') or 'missing'}: 8, 16 or 32 is needed"
        )
    if stored is None or high is None or not 1 <= stored <= high + 1 <= allocated:
        raise NotAVolume(
            f"Bits Stored {text(header, 'BitsStored')} and High Bit {text(header, 'HighBit')} do not fit"
            f" into {allocated:.0f} Bits Allocated"
        )
    if number(header, "PixelRepresentation") not in (0, 1):
        raise NotAVolume("Pixel Representation is missing: 0 (unsigned) or 1 (signed) is needed")


def voxel_count(header: Dataset) -> int:
    """Rows x Columns x Number of Frames, as the header gives them."""
    return int((number(header, "Rows") or 0) * (number(header, "Columns") or 0)) * frame_count(header)


def decode(path: Path) -> NDArray[np.integer]:
    """Stored values of one instance, (frame, row, column).

    Raises:
        NotAVolume: no pixel data, or not one grey value for each voxel.
        NotReadable: pixel data is shorter than described, damaged, or in an unsupported transfer syntax.
    """
    dataset = read_file(path, header_only=False)
    check_pixel_description(dataset)
    if voxel_count(dataset) > MAX_VOXELS:
        raise NotAVolume(f"{voxel_count(dataset)} voxels: at most {MAX_VOXELS} are read")
    if not value(dataset, "PixelData"):
        raise NotAVolume("no pixel data: (7FE0,0010) is missing or empty")
    syntax = text(dataset.file_meta, "TransferSyntaxUID")
    if syntax in _NATIVE:
        words = _native(dataset)
    elif syntax == RLELossless or syntax in _GDCM:
        words = _compressed(dataset, "pydicom" if syntax == RLELossless else "gdcm")
    else:
        raise NotReadable(f"transfer syntax {syntax or 'missing'} is not supported")
    return _only_bits_stored(words, dataset)


def _shape(dataset: Dataset) -> tuple[int, int, int]:
    return frame_count(dataset), int(dataset.Rows), int(dataset.Columns)


def _native(dataset: Dataset) -> NDArray[np.integer]:
    shape = _shape(dataset)
    bits = int(dataset.BitsAllocated)
    needed = int(np.prod(shape)) * bits // 8
    held = len(dataset.PixelData)
    if held < needed:
        raise NotReadable(f"pixel data is cut off: {held} bytes of {needed}")
    kind = "i" if dataset.PixelRepresentation == 1 else "u"
    values = np.frombuffer(dataset.PixelData, dtype=f"<{kind}{bits // 8}", count=int(np.prod(shape)))
    return values.reshape(shape)


def stored_value(number: int, header: Dataset) -> int:
    """A pixel value that an attribute names, as `decode` gives it, whichever sign the attribute has."""
    size = int(header.BitsAllocated) // 8
    kind = "i" if header.PixelRepresentation == 1 else "u"
    word = np.array([number % 2 ** (8 * size)], dtype=f"u{size}")
    return int(_only_bits_stored(word.view(f"{kind}{size}"), header)[0])


def _only_bits_stored(values: NDArray[np.integer], dataset: Dataset) -> NDArray[np.integer]:
    """Pixel words without the bits outside Bits Stored, where old files keep overlays (PS3.5 8.1.1)."""
    bits = values.dtype.itemsize * 8
    unused = bits - int(dataset.BitsStored)
    if unused <= 0:
        return values
    above = max(0, bits - 1 - int(dataset.HighBit))
    stored: NDArray[np.integer] = np.right_shift(np.left_shift(values, above), unused)
    return stored


def _compressed(dataset: Dataset, plugin: str) -> NDArray[np.integer]:
    shape = _shape(dataset)
    frames, rows, columns = shape
    decoded_bytes = rows * columns * int(dataset.BitsAllocated) // 8
    try:
        streams = list(generate_frames(dataset.PixelData, number_of_frames=frames))
    except _DAMAGE as error:
        raise NotReadable(f"pixel data is cut off or damaged: no {frames} complete frames") from error
    if len(streams) != frames:
        raise NotReadable(f"pixel data holds {len(streams)} frames of {frames}")
    expanded, held = frames * decoded_bytes, sum(map(len, streams))
    if expanded > max(_EXPANDING_BYTES, _MOST_EXPANSION * held):
        raise NotReadable(
            f"pixel data of {held} bytes expands to {expanded}: at most {_MOST_EXPANSION} times"
        )
    for stream in streams:
        if len(stream) > 2 * decoded_bytes + 65536:
            raise NotReadable(f"a frame takes {len(stream)} bytes compressed, {decoded_bytes} decoded")
        if plugin == "gdcm" and codestream_size(stream) != (rows, columns, 1):
            raise NotReadable(
                f"a codestream holds {codestream_size(stream)} (rows, columns, components),"
                f" the header says {(rows, columns, 1)}"
            )
    try:
        values = pixel_array(dataset, raw=True, decoding_plugin=plugin)
    except _DAMAGE as error:
        raise NotReadable(
            f"pixel data cannot be decoded ({dataset.file_meta.TransferSyntaxUID.name})"
        ) from error
    return values.reshape(shape)


def codestream_size(stream: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components that a JPEG, JPEG-LS or JPEG 2000 codestream declares; None if unknown.

    Markers: ISO/IEC 10918-1 B.2 (SOF), ISO/IEC 14495-1 C.2 (SOF55), ISO/IEC 15444-1 A.5.1 (SIZ).
    """
    try:
        start = stream.find(b"\xff\x4f\xff\x51", 0, 512)  # SOC, SIZ, after a JP2 header where there is one
        if start >= 0:
            width, height, left, top = struct.unpack_from(">4I", stream, start + 8)
            (components,) = struct.unpack_from(">H", stream, start + 40)
            return height - top, width - left, components
        if stream[:2] != b"\xff\xd8":
            return None
        offset = 2
        while True:
            marker, length = struct.unpack_from(">HH", stream, offset)
            if marker in _START_OF_FRAME:
                _, rows, columns, components = struct.unpack_from(">BHHB", stream, offset + 4)
                return rows, columns, components
            offset += 2 + length
    except struct.error:
        return None
