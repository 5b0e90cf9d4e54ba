"""The overlay: Secondary Capture images with lesion contours burned in, for viewers without SEG and SR."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageDraw
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from msnode.dicom.header import integer
from msnode.domain.provenance import Output
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.normalise import tolerant_values
from msnode.encode.picture import BLACK, WHITE, draw_slice, font, grey_levels, set_pixels
from msnode.encode.planes import plane_of
from msnode.encode.provenance import (
    ResultIdentity,
    describe,
    inherit_lossy_compression,
    new_object,
    reference,
    stamp,
)
from msnode.measure.lesions import is_uncertain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from msnode.domain.findings import Findings, LesionMap
    from msnode.domain.imaging import Frame, SourceVolume
    from msnode.domain.provenance import Provenance
    from msnode.encode.planes import Plane

NOTICE = "AI result, not verified"
"""Burned into every image."""

_KIND = "overlay"
_READABLE_SIDE = 512
"""Smaller images are enlarged by a whole factor to about this side, so that text and thin contours of
small lesions can be read."""
_LARGEST_SERIES_BYTES = 64 * 2**20
"""Long stacks are not enlarged beyond this: a 3D series would outgrow its source many times."""


def encode_overlay(
    source: SourceVolume,
    lesion_map: LesionMap,
    provenance: Provenance,
    findings: Findings,
    *,
    mark_below: float = 0.0,
    identity: ResultIdentity | None = None,
    grey: NDArray[np.uint8] | None = None,
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
        grey: `picture.grey_levels` of the volume; computed where not given.

    Returns:
        Outputs of kind "overlay", one a slice, in slice order; Instance Numbers run as in the source.
    """
    identity = identity or ResultIdentity.of_reading(source, provenance)
    factor = _magnification(source.volume.grid.shape)
    if grey is None:
        grey = grey_levels(source.volume.data)
    dashed = {f.lesion.label: is_uncertain(f.lesion, mark_below) for f in findings.lesions}
    legend = f"dashed: confidence under {100 * mark_below:.0f} %"
    numbers = instance_numbers(source)
    outputs = []
    with tolerant_values():
        lossy = Dataset()
        inherit_lossy_compression(lossy, source)
        for k, frame in enumerate(source.frames):
            picture = _draw(grey[k], lesion_map.labels[k], factor, dashed, legend)
            ds = new_object(SecondaryCaptureImageStorage, _KIND, identity, numbers[k])
            ds.update(lossy)
            _describe(ds, provenance, frame)
            _place(ds, plane_of(frame), factor)
            set_pixels(ds, picture)
            stamp(ds, _KIND, identity)
            outputs.append(Output(kind=_KIND, dataset=ds))
    return tuple(outputs)


def _magnification(shape: tuple[int, int, int]) -> int:
    slices, rows, columns = shape
    wanted = -(-_READABLE_SIDE // max(rows, columns))
    affordable = int((_LARGEST_SERIES_BYTES / (3 * slices * rows * columns)) ** 0.5)
    return max(1, min(wanted, affordable))


def _draw(
    grey: NDArray[np.uint8],
    labels: NDArray[np.int32],
    factor: int,
    dashed: Mapping[int, bool],
    legend: str,
) -> NDArray[np.uint8]:
    """One picture, (row, column, RGB), with the notice; with `legend` where one of its lesions is dashed."""
    rows, columns = labels.shape
    width, height = size = columns * factor, rows * factor
    large, small = _notice_size(width), max(10, max(size) // 38)
    stripes = (0, 0, width, min(round(large) + 6, height)), (0, max(0, height - small - 6), width, height)
    picture = draw_slice(grey, labels, size, dashed, number_size=small, reserved=stripes)
    lines = [(NOTICE, large, 4, "ma")]
    if any(dashed[n] for n in np.unique(labels[labels > 0]).tolist()):
        lines.append((legend, small, height - 4, "md"))
    pen = ImageDraw.Draw(picture)
    for text, points, level, anchor in lines:
        place = (width / 2, level)
        pen.text(place, text, font=font(points), fill=WHITE, anchor=anchor, stroke_width=1, stroke_fill=BLACK)
    return np.asarray(picture)


def _notice_size(width: int) -> float:
    """Font size, in pixels, at which the notice fits into the picture; 18 where there is room."""
    length_per_size = font(20).getlength(NOTICE) / 20
    return max(6.0, min(18.0, 0.95 * width / length_per_size))


def instance_numbers(source: SourceVolume) -> list[int]:
    """Ranks 1, 2, … that run through the stack in the direction in which the source's numbers run."""
    order = [
        (integer(frame.instance.header, "InstanceNumber") or 0, frame.frame_number, k)
        for k, frame in enumerate(source.frames)
    ]
    ranks = {entry: rank for rank, entry in enumerate(sorted(order), start=1)}
    return [ranks[entry] for entry in order]


def _describe(ds: Dataset, provenance: Provenance, frame: Frame) -> None:
    """What kind of picture this is (PS3.3 C.8.6.1, C.7.6.1) and which one it shows."""
    ds.Modality = "OT"
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.BurnedInAnnotation = "NO"
    ds.BodyPartExamined = "BRAIN"
    ds.PatientOrientation = None
    ds.DerivationDescription = describe(provenance)[:1024]
    ds.ImageComments = NOTICE
    item = reference(frame)
    item.PurposeOfReferenceCodeSequence = [concept(codes.SOURCE_IMAGE)]
    ds.SourceImageSequence = [item]


def _place(ds: Dataset, plane: Plane, factor: int) -> None:
    """Geometry of pixels `factor` times smaller than those of the source plane."""
    rows_mm, columns_mm = plane.spacing
    shift = (1 / factor - 1) / 2
    along_row, along_column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    position = np.array(plane.position) + shift * (along_row * columns_mm + along_column * rows_mm)
    ds.ImagePositionPatient = [format_number_as_ds(float(v)) for v in position]
    ds.ImageOrientationPatient = [format_number_as_ds(v) for v in plane.orientation]
    ds.PixelSpacing = [format_number_as_ds(v / factor) for v in plane.spacing]
