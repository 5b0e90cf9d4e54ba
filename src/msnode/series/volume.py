"""From files to instances, series and a volume. Each check is named after the invariant it checks.

Geometry follows PS3.3 C.7.6.2.1.1: a voxel's position is the Image Position plus row index times the
distance between rows along the column's direction cosines, plus column index times the distance between
columns along the row's direction cosines.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.header import drop_malformed, number, text, texts, value
from msnode.dicom.planes import planes_of
from msnode.domain.imaging import Grid, Instance, Series, SourceVolume, Volume
from msnode.errors import NotAVolume, NotReadable
from msnode.series.intensities import check_saturation, fill_padding, without_padding
from msnode.series.pixels import MAX_VOXELS, check_pixel_description, decode, read_file, voxel_count
from msnode.series.promises import check_promises, check_siblings
from msnode.series.stack import Stack, arrange

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_DECISIVE = ("NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit")
"""Numbers whose absence means something, so that an unreadable one must not count as absent."""

_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


def read_instance(path: Path, digest: str | None = None) -> Instance:
    """Read the header of a file, without pixel data. Malformed elements count as absent.

    Args:
        path: a DICOM file (PS3.10).
        digest: SHA-256 of its bytes; computed if None.

    Raises:
        NotReadable: not DICOM, truncated inside the header, or without the UIDs that identify an instance.
    """
    header = read_file(path, header_only=True)
    malformed = drop_malformed(header)
    uids = {keyword: text(header, keyword) for keyword in _UIDS}
    for keyword, uid in uids.items():
        if not uid:
            raise NotReadable(f"no {keyword}: the file is cut off or is not an image")
    if digest is None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Instance(path=path, digest=digest, header=header, malformed=malformed)


def group_series(instances: Iterable[Instance]) -> tuple[Series, ...]:
    """Series of instances, in the order of Study and Series UIDs; instances in the order of their UIDs."""
    groups: defaultdict[tuple[str, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        header = instance.header
        groups[str(header.StudyInstanceUID), str(header.SeriesInstanceUID)].append(instance)
    return tuple(
        Series(
            series_instance_uid=series_uid,
            study_instance_uid=study_uid,
            instances=tuple(sorted(members, key=lambda i: (i.sop_instance_uid, i.digest))),
        )
        for (study_uid, series_uid), members in sorted(groups.items())
    )


def to_volume(series: Series, study: Sequence[Series] = ()) -> SourceVolume:
    """Read one regular stack of slices as float32 modality values.

    Args:
        series: the latest version of each SOP instance.
        study: the series beside it, among which none may continue the stack.

    Returns:
        Volume (slice, row, column) whose grid maps voxel indices to LPS mm. Slices run along the cross
        product of row and column direction. Warnings name lossy compression, what headers promise and did not
        come, and doubtful pixel values.

    Raises:
        NotAVolume: names the invariant that is violated, and what is needed.
        NotReadable: pixel data is truncated, damaged or in an unsupported transfer syntax.
    """
    headers = [instance.header for instance in series.instances]
    _modality_is_mr(series)
    _no_mosaic(series)
    _nothing_decisive_malformed(series)
    for header in headers:
        check_pixel_description(header)
    _one_matrix(series)
    total = sum(voxel_count(header) for header in headers)
    if total > MAX_VOXELS:
        raise NotAVolume(f"{total} voxels: at most {MAX_VOXELS} are read")
    stack = arrange([plane for instance in series.instances for plane in planes_of(instance)])
    _one_frame_of_reference(series)
    unkept = check_promises(series, stack)
    check_siblings(series, stack, study)
    grid = _grid(stack, int(headers[0].Rows), int(headers[0].Columns))
    data = _values(series.instances, stack, grid.shape)
    doubts = fill_padding(data) + check_saturation(data)
    return SourceVolume(
        volume=Volume(data=data, grid=grid),
        frames=tuple(plane.frame for plane in stack.planes),
        series=series,
        warnings=_lossy(series) + unkept + doubts,
    )


def _modality_is_mr(series: Series) -> None:
    for instance in series.instances:
        modality = text(instance.header, "Modality")
        if modality != "MR":
            raise NotAVolume(f"Modality is {modality or 'missing'}: MR is needed")


def _no_mosaic(series: Series) -> None:
    for instance in series.instances:
        if "MOSAIC" in texts(instance.header, "ImageType"):
            raise NotAVolume("Image Type MOSAIC: slices are tiled in one plane; one slice a plane is needed")


def _nothing_decisive_malformed(series: Series) -> None:
    for instance in series.instances:
        for keyword in _DECISIVE:
            stated = value(instance.header, keyword) is not None
            if keyword in instance.malformed or (stated and number(instance.header, keyword) is None):
                raise NotAVolume(f"{keyword} cannot be read as one number: nothing is assumed")


def _one_matrix(series: Series) -> None:
    sizes = {(number(i.header, "Rows"), number(i.header, "Columns")) for i in series.instances}
    if any(None in size for size in sizes):
        raise NotAVolume("Rows or Columns is missing or no number: each slice needs both")
    if len(sizes) != 1:
        listed = ", ".join(f"{rows:.0f} x {columns:.0f}" for rows, columns in sorted(sizes))
        raise NotAVolume(f"several matrix sizes ({listed}): all slices need one")


def _one_frame_of_reference(series: Series) -> None:
    uids = {text(instance.header, "FrameOfReferenceUID") for instance in series.instances}
    if not all(uid and uid.isascii() for uid in uids):
        raise NotAVolume("no Frame of Reference UID: results could not be placed on the images")
    if len(uids) > 1:
        raise NotAVolume(f"{len(uids)} Frames of Reference: the slices of a volume need one")


def _grid(stack: Stack, rows: int, columns: int) -> Grid:
    affine = np.eye(4)
    affine[:3, 0] = stack.step
    affine[:3, 1] = stack.along_column * stack.spacing[0]
    affine[:3, 2] = stack.along_row * stack.spacing[1]
    affine[:3, 3] = stack.origin
    return Grid(shape=(len(stack.planes), rows, columns), affine=affine)


def _values(instances: Sequence[Instance], stack: Stack, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Modality values, NaN where there is padding."""
    data = np.empty(shape, dtype=np.float32)
    slices = {(id(p.frame.instance), p.frame.frame_number): k for k, p in enumerate(stack.planes)}
    for instance in instances:
        stored = decode(instance.path)
        for index, plane in enumerate(stored):
            k = slices.get((id(instance), index + 1))
            if k is None or plane.shape != shape[1:]:
                raise NotReadable("the file does not hold the frames that its header described")
            slope, intercept = stack.rescale[k]
            with np.errstate(over="ignore", invalid="ignore"):  # checked below
                data[k] = without_padding(plane, instance.header) * slope + intercept
            if np.isinf(data[k]).any():
                raise NotAVolume("values are not finite after rescaling")
    return data


def _lossy(series: Series) -> tuple[str, ...]:
    lossy = [i for i in series.instances if text(i.header, "LossyImageCompression") == "01"]
    if not lossy:
        return ()
    ratio = number(lossy[0].header, "LossyImageCompressionRatio")
    about = "" if ratio is None else f", ratio {ratio:g}"
    return (f"source images were lossy compressed ({len(lossy)} of {len(series.instances)}{about})",)
