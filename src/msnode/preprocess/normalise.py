"""Intensity normalisation: the built-in recipe's own, and the options of document E as steps.

Each takes a volume and, where it matters, its brain (uint8 on the same grid, label > 0 is brain, as an
`Extractor` gives it); voxels never move.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from msnode.domain.imaging import Volume
from msnode.errors import ConfigurationError, NotAVolume
from msnode.preprocess.steps import finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MEDIAN_AT = 0.4
"""Where the brain's median comes to lie in [0, 1]: lesions, at 1.3 to 1.6 times it, come to 0.5 to 0.65."""


def brain_unit_range(volume: Volume, brain: Volume | None) -> Volume:
    """Bring brain intensities to [0, 1] by the brain's own median.

    y = clip(0.4 (x - z) / (median - z), 0, 1), outside the brain exactly 0; z is 0, or the brain's first
    percentile where that is negative (processed images). Measured on eleven scans of MS3SEG: the ratio of
    lesions to this median varies by 5 % from scan to scan (standard deviation over mean); their distance from
    it in standard deviations, percentiles or half-widths of the histogram by 16 to 20 %, because these
    depend on how much fluid the mask holds and on how sharp the image is.

    Args:
        volume: any intensities, negative ones included.
        brain: uint8 on the same grid, 0 outside; None means everything.

    Returns:
        float32 in [0, 1]; zeros where there is no brain or its values do not differ.

    Raises:
        NotAVolume: a value is not finite.
    """
    data = finite(volume)
    inside = np.ones(data.shape, dtype=bool) if brain is None else brain.data > 0
    result = np.zeros_like(data)
    if inside.any():
        low, centre, high = np.percentile(data[inside], [1.0, 50.0, 99.0])
        zero = min(0.0, float(low))
        if centre > zero and high > low:
            result[inside] = np.clip(_MEDIAN_AT * (data[inside] - zero) / (centre - zero), 0, 1)
    return Volume(result, volume.grid)


def n4(volume: Volume, brain: Volume | None, *, shrink: int = 4) -> Volume:
    """N4 bias field correction (Tustison, IEEE TMI 2010), SimpleITK's filter with its own settings.

    The field is estimated inside the brain (without one: above Otsu's threshold) on a volume shrunk in
    every slice, and across slices where they are thin, and divided out of every voxel at full resolution.
    N4 works on logarithms: an image whose first percentile is negative is shifted there, what is lower is
    raised to a thousandth of the range, for the estimate alone.

    Args:
        volume: any intensities.
        brain: where the field is estimated.
        shrink: in-plane shrink factor, 1 or more; 4 costs little, for the field is smooth.

    Returns:
        float32; the volume itself where there is nothing to estimate from.

    Raises:
        NotAVolume: a value is not finite.
    """
    data = finite(volume)
    air, bright = np.percentile(data, [1, 99])
    shift = min(0.0, float(air))
    sitk: Any = import_module("SimpleITK")  # half a second that only this step needs
    image = _image(sitk, np.maximum(data - shift, max(1e-3 * (bright - air), 1e-6)), volume)
    mask = sitk.OtsuThreshold(image, 0, 1) if brain is None else _image(sitk, brain.data > 0, volume)
    through = max(1, round(shrink * volume.grid.spacing[1] / volume.grid.spacing[0]))
    factors = [shrink, shrink, min(through, data.shape[0])]
    small_mask = sitk.Shrink(mask, factors)
    if bright <= air or not sitk.GetArrayViewFromImage(small_mask).any():
        return Volume(data, volume.grid)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.Execute(sitk.Shrink(image, factors), small_mask)
    field = np.exp(sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)))
    return Volume(((data - shift) / field + shift).astype(np.float32), volume.grid)


def z_score(volume: Volume, brain: Volume | None) -> Volume:
    """Mean 0 and standard deviation 1 inside the brain (without one: over all voxels); outside it 0.

    Zeros where the brain is constant or absent.

    Raises:
        NotAVolume: a value is not finite.
    """
    data = finite(volume)
    inside = _inside(brain, data)
    result = np.zeros_like(data)
    deviation = float(data[inside].std()) if inside.any() else 0.0
    if deviation > 0:
        result[inside] = (data[inside] - data[inside].mean()) / deviation
    return Volume(result, volume.grid)


LANDMARKS = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
"""Percentiles at which `match_histogram` compares (Nyul, IEEE TMI 2000: deciles between two extremes)."""


def histogram_landmarks(volume: Volume, brain: Volume | None) -> tuple[float, ...]:
    """Intensities of the brain at the percentiles `LANDMARKS`: the numbers that a bundle carries.

    Raises:
        NotAVolume: a value is not finite, or there is no brain.
    """
    data = finite(volume)
    inside = _inside(brain, data)
    if not inside.any():
        raise NotAVolume("the histogram of a brain needs a brain, and the mask is empty")
    return tuple(float(value) for value in np.percentile(data[inside], LANDMARKS))


def match_histogram(volume: Volume, brain: Volume | None, *, reference: Sequence[float]) -> Volume:
    """Map intensities so that the brain's landmarks fall on those of a reference (Nyul, IEEE TMI 2000).

    Linear between landmarks; beyond the first and last with the slope of the segment next to it. Outside
    the brain 0. Equal neighbouring landmarks of the image are taken as one.

    Args:
        volume: any intensities.
        brain: where the histogram is taken; None takes every voxel.
        reference: rising intensities at the percentiles `LANDMARKS`.

    Returns:
        float32; zeros where the brain is constant or absent.

    Raises:
        ConfigurationError: the reference is not as many rising numbers as there are landmarks.
        NotAVolume: a value is not finite.
    """
    to = np.asarray(reference, dtype=np.float64)
    if to.shape != (len(LANDMARKS),) or not np.isfinite(to).all() or (np.diff(to) <= 0).any():
        raise ConfigurationError(f"reference landmarks must be {len(LANDMARKS)} rising numbers")
    data = finite(volume)
    inside = _inside(brain, data)
    result = np.zeros_like(data)
    if inside.any():
        here, first = np.unique(np.percentile(data[inside], LANDMARKS), return_index=True)
        if len(here) > 1:
            result[inside] = _piecewise(data[inside], here, to[first])
    return Volume(result, volume.grid)


def median_3x3(volume: Volume, brain: Volume | None) -> Volume:
    """3 x 3 median in every slice (system B, Sci Rep 2024, s41598-024-67130-6).

    Args:
        volume: any intensities.
        brain: not used: a step takes it as every step of values does.
    """
    del brain
    return Volume(ndimage.median_filter(volume.data, size=(1, 3, 3)), volume.grid)


def gaussian_blur(volume: Volume, brain: Volume | None, *, sigma_mm: float) -> Volume:
    """Gaussian blur in three dimensions (system C).

    Args:
        volume: any intensities.
        brain: not used: a step takes it as every step of values does.
        sigma_mm: standard deviation, the same in mm along every axis.
    """
    del brain
    sigma = [sigma_mm / spacing for spacing in volume.grid.spacing]
    return Volume(ndimage.gaussian_filter(volume.data.astype(np.float32), sigma), volume.grid)


def _piecewise(
    values: NDArray[np.float32], here: NDArray[np.floating[Any]], to: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Linear from `here` to `to`, with the outermost segments going on beyond the ends."""
    segment = np.clip(np.searchsorted(here, values) - 1, 0, len(here) - 2)
    slope = (np.diff(to) / np.diff(here))[segment]
    return (to[segment] + slope * (values - here[segment])).astype(np.float32)


def _image(sitk: Any, data: NDArray[Any], volume: Volume) -> Any:
    """As a SimpleITK image (float32; uint8 for a mask) with the grid's spacing."""
    image = sitk.GetImageFromArray(data.astype(np.uint8 if data.dtype == bool else np.float32))
    image.SetSpacing(volume.grid.spacing[::-1])
    return image


def _inside(brain: Volume | None, data: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the brain is; everywhere where nothing says."""
    return np.ones(data.shape, dtype=bool) if brain is None else brain.data > 0
