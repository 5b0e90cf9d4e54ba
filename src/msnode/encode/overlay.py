"""The overlay: Secondary Capture images with lesion contours burned in, for viewers without SEG and SR."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.uid import SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds
from scipy import ndimage

from msnode.domain import Output
from msnode.encode import codes
from msnode.encode.normalise import tolerant_values
from msnode.encode.planes import plane_of
from msnode.encode.provenance import (
    ResultIdentity,
    coded,
    describe,
    inherit_lossy_compression,
    new_object,
    reference,
    stamp,
)
from msnode.lesions import is_uncertain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from msnode.domain import Findings, LesionMap, Provenance, SourceVolume
    from msnode.encode.planes import Plane

NOTICE = "AI result, not verified"
"""Burned into every image."""

_KIND = "overlay"
_READABLE_SIDE = 512
"""Smaller images are enlarged by a whole factor to about this side, so that text and thin contours of
small lesions can be read."""
_LARGEST_SERIES_BYTES = 64 * 2**20
"""Long stacks are not enlarged beyond this: a 3D series would outgrow its source many times."""
_DISPLAYED_PERCENT = (1.0, 99.7)
"""Grey levels are stretched between these percentiles of the volume, whatever window the header names."""
_DASH_PIXELS = 5
"""About so long is a dash, and the gap after it, in pixels of the picture."""
_WHITE = (255, 255, 255)
_BLACK = (0, 0, 0)


def encode_overlay(
    source: SourceVolume,
    lesion_map: LesionMap,
    provenance: Provenance,
    findings: Findings,
    *,
    mark_below: float = 0.0,
    identity: ResultIdentity | None = None,
) -> tuple[Output, ...]:
    """Draw each source slice with the contours of its lesions, as single-frame RGB images.

    A contour runs just outside its lesion, so that the lesion itself stays visible, in the colour of its
    segment, with its number; that of a lesion of low confidence is dashed. Position and orientation are
    those of the source slice; where images are enlarged, pixel spacing and position are those of the
    smaller pixels.

    Args:
        source: the volume that was read.
        lesion_map: labels on the grid of `source`, (slice, row, column).
        provenance: what made the result.
        findings: the lesions to draw.
        mark_below: lesions of lower confidence are dashed, and a line of text says what that means.
        identity: what the results of one reading share; made from the other arguments where not given.

    Returns:
        Outputs of kind "overlay", one a slice, in slice order; Instance Numbers run as in the source.
    """
    identity = identity or ResultIdentity.of_reading(source, provenance)
    factor = _magnification(source.volume.grid.shape)
    grey = _grey_levels(source.volume.data)
    dashed = {f.lesion.label: is_uncertain(f.lesion, mark_below) for f in findings.lesions}
    legend = f"dashed: confidence under {100 * mark_below:.0f} %"
    numbers = _instance_numbers(source)
    outputs = []
    with tolerant_values():
        for k, frame in enumerate(source.frames):
            picture = _draw(grey[k], lesion_map.labels[k], factor, dashed, legend)
            ds = new_object(SecondaryCaptureImageStorage, _KIND, identity, numbers[k])
            _describe(ds, provenance, source, k)
            _place(ds, plane_of(frame), factor)
            _set_pixels(ds, picture)
            stamp(ds, _KIND, identity)
            outputs.append(Output(kind=_KIND, dataset=ds))
    return tuple(outputs)


def _magnification(shape: tuple[int, int, int]) -> int:
    slices, rows, columns = shape
    wanted = -(-_READABLE_SIDE // max(rows, columns))
    affordable = int((_LARGEST_SERIES_BYTES / (3 * slices * rows * columns)) ** 0.5)
    return max(1, min(wanted, affordable))


def _grey_levels(data: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = (float(v) for v in np.percentile(data, _DISPLAYED_PERCENT))  # float32 stays float32
    scaled = (data - low) * (255.0 / max(high - low, 1e-6))
    levels: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return levels


def _draw(
    grey: NDArray[np.uint8],
    labels: NDArray[np.int32],
    factor: int,
    dashed: Mapping[int, bool],
    legend: str,
) -> NDArray[np.uint8]:
    """One picture, (row, column, RGB), of the lesions in `dashed`; with `legend` where one is dashed."""
    rows, columns = grey.shape
    size = (columns * factor, rows * factor)
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    present = [n for n in np.unique(labels).tolist() if n in dashed]
    if present:
        pixels = np.array(picture)
        large = labels.repeat(factor, axis=0).repeat(factor, axis=1)
        outside = np.where(large == 0, ndimage.maximum_filter(large, size=3), 0)
        for label in present:
            contour = outside == label
            pixels[_dashes(contour) if dashed[label] else contour] = codes.lesion_colour(label)
        picture = Image.fromarray(pixels)
    _write_text(picture, labels, present, factor, legend if any(dashed[n] for n in present) else "")
    return np.asarray(picture)


def _dashes(contour: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every other stretch of a contour, cut by the angle seen from its middle: dashes on any closed shape."""
    rows, columns = np.nonzero(contour)
    turn = np.arctan2(rows - rows.mean(), columns - columns.mean()) / (2 * np.pi) + 0.5
    stretches = 2 * max(3, round(len(rows) / (2 * _DASH_PIXELS)))
    drawn = np.floor(turn * stretches).astype(int) % 2 == 0
    kept = np.zeros_like(contour)
    kept[rows[drawn], columns[drawn]] = True
    return kept


def _write_text(
    picture: Image.Image, labels: NDArray[np.int32], present: list[int], factor: int, legend: str
) -> None:
    pen = ImageDraw.Draw(picture)
    side = max(picture.size)
    small = ImageFont.load_default(size=max(9, side // 46))
    for label in present:
        rows, columns = np.nonzero(labels == label)
        corner = ((int(columns.max()) + 1) * factor + 2, int(rows.min()) * factor)
        pen.text(
            corner,
            str(label),
            font=small,
            fill=codes.lesion_colour(label),
            anchor="lb",
            stroke_width=1,
            stroke_fill=_BLACK,
        )
    font = ImageFont.load_default(size=_notice_size(picture.width))
    top = (picture.width / 2, 4)
    pen.text(top, NOTICE, font=font, fill=_WHITE, anchor="ma", stroke_width=1, stroke_fill=_BLACK)
    bottom = (picture.width / 2, picture.height - 4)
    pen.text(bottom, legend, font=small, fill=_WHITE, anchor="md", stroke_width=1, stroke_fill=_BLACK)


def _notice_size(width: int) -> float:
    """Font size, in pixels, at which the notice fits into the picture; 18 where there is room."""
    length_per_size = ImageFont.load_default(size=20).getlength(NOTICE) / 20
    return max(6.0, min(18.0, 0.95 * width / length_per_size))


def _instance_numbers(source: SourceVolume) -> list[int]:
    """Ranks 1, 2, … that run through the stack in the direction in which the source's numbers run."""
    order = []
    for k, frame in enumerate(source.frames):
        try:
            number = int(frame.instance.header.get("InstanceNumber") or 0)
        except (TypeError, ValueError):
            number = 0
        order.append((number, frame.frame_number, k))
    ranks = {entry: rank for rank, entry in enumerate(sorted(order), start=1)}
    return [ranks[entry] for entry in order]


def _describe(ds: Dataset, provenance: Provenance, source: SourceVolume, k: int) -> None:
    """What kind of picture this is (PS3.3 C.8.6.1, C.7.6.1) and which one it shows."""
    ds.Modality = "OT"
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.BurnedInAnnotation = "NO"
    ds.BodyPartExamined = "BRAIN"
    ds.PatientOrientation = None
    ds.DerivationDescription = describe(provenance)[:1024]
    ds.ImageComments = NOTICE
    item = reference(source.frames[k])
    item.PurposeOfReferenceCodeSequence = [coded(codes.SOURCE_IMAGE)]
    ds.SourceImageSequence = [item]
    inherit_lossy_compression(ds, source)


def _place(ds: Dataset, plane: Plane, factor: int) -> None:
    """Geometry of pixels `factor` times smaller than those of the source plane."""
    rows_mm, columns_mm = plane.spacing
    shift = (1 / factor - 1) / 2
    along_row, along_column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    position = np.array(plane.position) + shift * (along_row * columns_mm + along_column * rows_mm)
    ds.ImagePositionPatient = [format_number_as_ds(float(v)) for v in position]
    ds.ImageOrientationPatient = [format_number_as_ds(v) for v in plane.orientation]
    ds.PixelSpacing = [format_number_as_ds(v / factor) for v in plane.spacing]


def _set_pixels(ds: Dataset, picture: NDArray[np.uint8]) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    data = picture.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB"
