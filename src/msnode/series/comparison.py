"""Compares the images of two files without ever decoding pixels in the process that asks.

Decoders are written in C and read what a peer has sent: damage can end their process, or hold it. Where the
encoded pixels differ, a child process decodes both files. It is started on demand and killed at its limits.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import structlog
from pydicom.filereader import read_partial

from msnode.dicom.header import PARSER_ERRORS, value
from msnode.errors import NotAVolume, NotReadable, OutOfResources
from msnode.series.pixels import decode, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset

log = structlog.get_logger()

_GEOMETRY = (
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_ENCODING = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
"""What the stored values are read by, beside the transfer syntax."""
_FIRST_PIXEL_TAG = 0x7FE00008  # Float Pixel Data; Pixel Data is (7FE0,0010)
_CHUNK_BYTES = 2**20
_SAME, _DIFFERENT, _NOT_NOW = 10, 11, 12  # a Python error ends with 1, a signal below 0
_children = threading.BoundedSemaphore(2)


@dataclass(frozen=True)
class Limits:
    """What the child may take.

    Attributes:
        seconds: wall time; processor time as well, so that the child ends if its parent has died.
        memory_bytes: address space.
    """

    seconds: int = 30
    memory_bytes: int = 4 * 2**30


_LIMITS = Limits()


def same_image(one: Path, other: Path, limits: Limits = _LIMITS) -> bool:
    """Whether two files hold the same pixels in the same place, whatever else their headers say.

    Compared are the pixels, the rescale, and position, orientation, spacing and Frame of Reference of the
    classic image or of every frame. False if either file cannot be decoded within the limits.

    Raises:
        OutOfResources: the machine or its storage failed; the files may be intact.
    """
    try:
        first, second = read_file(one, header_only=True), read_file(other, header_only=True)
        if not _agree(first, second, _GEOMETRY):
            return False
        is_encoded_alike = _agree(first, second, _ENCODING) and _agree(
            first.file_meta, second.file_meta, ("TransferSyntaxUID",)
        )
    except (NotReadable, *PARSER_ERRORS):
        return False
    return (is_encoded_alike and _same_encoded(one, other)) or _same_decoded(one, other, limits)


def _agree(first: Dataset, second: Dataset, keywords: Iterable[str]) -> bool:
    return all(value(first, keyword) == value(second, keyword) for keyword in keywords)


def _same_encoded(one: Path, other: Path) -> bool:
    """Whether both files have pixel data, and are equal from there on."""
    with one.open("rb") as first, other.open("rb") as second:
        for file in (first, second):
            read_partial(file, stop_when=lambda tag, _vr, _length: tag >= _FIRST_PIXEL_TAG)
        chunk = b""
        while (following := first.read(_CHUNK_BYTES)) == second.read(_CHUNK_BYTES):
            if not following:
                return bool(chunk)
            chunk = following
    return False


def _same_decoded(one: Path, other: Path, limits: Limits) -> bool:
    """Have a child decode both files; a failure counts as different.

    Raises:
        OutOfResources: see `same_image`.
    """
    command = [
        sys.executable,
        "-m",
        __name__,
        str(limits.seconds),
        str(limits.memory_bytes),
        str(one),
        str(other),
    ]
    with _children:
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=limits.seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            log.warning("image_comparison_failed", state="timeout")
            return False
        except OSError as error:
            raise OutOfResources(f"cannot start a comparison: {error.strerror}") from error
    if code == _NOT_NOW:
        raise OutOfResources("a file cannot be read now")
    if code not in {_SAME, _DIFFERENT}:
        log.warning("image_comparison_failed", state="died", exit_code=code)
    return code == _SAME


def _main(seconds: str, memory_bytes: str, one: str, other: str) -> int:
    """Body of the child: decode two files and compare; returns the exit code."""
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(seconds)),
        (resource.RLIMIT_AS, int(memory_bytes)),
    ):
        resource.setrlimit(what, (most, most))
    try:
        return _SAME if np.array_equal(decode(Path(one)), decode(Path(other))) else _DIFFERENT
    except (NotAVolume, NotReadable):
        return _DIFFERENT
    except OutOfResources:
        return _NOT_NOW


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
