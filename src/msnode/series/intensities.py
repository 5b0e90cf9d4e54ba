"""Which values of a volume are intensities: padding is none, and what lies above a plateau was cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.header import integer
from msnode.errors import NotAVolume
from msnode.series.pixels import stored_value

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

SAID_FROM, REFUSED_FROM = 0.0005, 0.01
"""Shares of the inner head in which values end at a plateau. 18 of 19 FLAIR at hand have at most 0.0002; one,
whose fat is cut off, has 0.0026. With values cut off at 1.3 times the brain's median 0.016 to 0.1, and most
lesions are lost; at twice the median at most 0.003."""

_LEAST_SHARED = 10
"""Voxels of a slice that have its largest value, from which it is a plateau and no coincidence."""

_HEAD = 0.1
"""Share of the brightest intensities under which there is air."""

_SAMPLED = 2**21
"""About so many voxels are looked at to find the head."""

_LEAST_PADDING = 0.01
"""Share of voxels from which a value far from all others is padding that no header states."""


def without_padding(stored: NDArray[np.integer], header: Dataset) -> NDArray[np.float64]:
    """Stored values of one plane as floating point, NaN where the header calls them padding.

    Pixel Padding Value (0028,0120), with Pixel Padding Range Limit (0028,0121) every value between them
    (PS3.3 C.7.5.1.1.2).
    """
    values = stored.astype(np.float64)
    ends = [integer(header, k) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return values
    bounds = [stored_value(end, header) for end in ends if end is not None]
    values[(stored >= min(bounds)) & (stored <= max(bounds))] = np.nan
    return values


def fill_padding(data: NDArray[np.float32]) -> tuple[str, ...]:
    """Write background where there is padding, in place.

    Background is 0, or the smallest intensity where that is negative. Beside NaN, padding is a value that is
    shared by many voxels and further from all others than these are from each other, if it is negative or
    the largest: no magnitude has such values.

    Returns:
        A sentence where no header states the padding.

    Raises:
        NotAVolume: nothing but padding.
    """
    if np.isnan(data).all():
        raise NotAVolume("every voxel is padding by Pixel Padding Value (0028,0120)")
    unstated = _far_from_all_others(data)
    for value in unstated:
        data[data == value] = np.nan
    padded = np.isnan(data)
    data[padded] = min(0.0, float(np.nanmin(data)))
    if not unstated:
        return ()
    share = 100 * float(padded.mean())
    return (f"{share:.0f} % of voxels hold a value far from all others: read as background, as padding",)


def _far_from_all_others(data: NDArray[np.float32]) -> list[float]:
    low, high = float(np.nanmin(data)), float(np.nanmax(data))
    far = []
    if low < 0:
        following = float(np.min(data, where=data > low, initial=high))
        far += [low] if following - low > high - following else []
    previous = float(np.max(data, where=data < high, initial=low))
    far += [high] if high - previous > previous - low > 0 else []
    return [value for value in far if float(np.mean(data == value)) >= _LEAST_PADDING]


def check_saturation(data: NDArray[np.float32]) -> tuple[str, ...]:
    """Compare how many voxels of the inner head share the largest value of their slice.

    Slices are looked at one by one, because each may have a scale of its own. The outer head is left out:
    fat close to a coil is often cut off, and that harms no lesion.

    Args:
        data: modality values (slice, row, column), without padding.

    Returns:
        A sentence where values are cut off.

    Raises:
        NotAVolume: so many are that lesions would be lost.
    """
    share = _plateau_share(data)
    if share < SAID_FROM:
        return ()
    said = f"{100 * share:.1f} % of the inner head shares its slice's largest value: intensities are cut off"
    if share >= REFUSED_FROM:
        raise NotAVolume(f"saturated pixels: {said}, and with them the contrast of lesions")
    return (f"{said}, and the brightest lesions may be missed",)


def _plateau_share(data: NDArray[np.float32]) -> float:
    stride = max(1, round((data.size / _SAMPLED) ** (1 / 3)))
    air_up_to = _HEAD * float(np.percentile(data[::stride, ::stride, ::stride], 99))
    head = data > air_up_to
    if not head.any():
        return 0.0
    inner = np.ix_(*(_central_half(head, axis) for axis in range(3)))
    slices = inner[0].ravel()
    tops, bottoms = data.max(axis=(1, 2))[slices], data.min(axis=(1, 2))[slices]
    shared = np.count_nonzero((data[inner] == tops[:, None, None]) & head[inner], axis=(1, 2))
    plateau = (shared >= _LEAST_SHARED) & (tops > bottoms)  # a flat slice is no image, and not cut off
    return float(shared[plateau].sum() / max(1, np.count_nonzero(head[inner])))


def _central_half(head: NDArray[np.bool_], axis: int) -> NDArray[np.intp]:
    """Indices of the middle half of what the head takes along one axis."""
    indices = np.flatnonzero(head.any(axis=tuple({0, 1, 2} - {axis})))
    first, last = int(indices[0]), int(indices[-1])
    quarter = (last - first + 1) // 4
    return np.arange(first + quarter, last + 1 - quarter)
