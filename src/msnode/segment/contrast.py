"""What the pixels say about a series that calls itself a FLAIR: whether fluid and grey matter look like it.

In a FLAIR, fluid is darker than brain and grey matter brighter than white. In a T2 fluid is the brightest
of all, in a T1 grey matter is darker than white. Both comparisons are ratios within one image, so that no
scanner's scale matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from msnode.domain.imaging import Prepared

_BRAIN, _VENTRICLES = 1, 2
"""Labels of `Prepared.brain`."""

BRIGHTEST_FLUID = 0.65
"""Ventricles over brain, medians, from which an image is no FLAIR. Measured with the built-in bundle's brain
network: 20 FLAIR of 5 scanners 0.14 to 0.47, 8 T1 0.20 to 0.50, 8 T2 0.81 to 1.03 (the network takes grey
matter for ventricles there); with noise, shading, blur and gamma 0.7 to 1.4 added FLAIR up to 0.59, T2 from
0.72."""

DARKEST_CORTEX = 0.945
"""Cortex over white matter, medians, under which an image is no FLAIR. Measured on the same images: FLAIR
1.02 to 1.10, T1 0.90 to 0.92; with noise, shading, gamma, a painted confluent load around the ventricles and
1.2 mm of blur added FLAIR from 0.99, T1 up to 0.94. Blurred by 1.8 mm, FLAIR comes to 0.952."""

_LEAST_VENTRICLES_ML = 1.0
"""Less is partial volume; the T2 with the fewest voxels taken for ventricles had 1.2 ml."""

_LEAST_AREA_MM2 = 50.0
"""Slices with this much ventricle lie in the middle of the brain, away from skull base and vertex."""

_FLUID, _BRIGHTEST_TISSUE, _DARKEST_TISSUE = 0.6, 1.5, 0.7
"""Of the brain's median: fluid lies below the first, tissue (no lesion, no fat) between the other two."""

_CORTEX_MM, _DEEP_MM, _BESIDE_VENTRICLES_MM = (1.8, 4.5), 7.0, 6.0
"""Distance in the slice from fluid or the brain's edge; beside the ventricles lie lesions and no cortex."""

_NOISE_MM, _SHADING_MM = 1.0, 8.0
"""Standard deviations of the Gaussians that take away noise, and shading over the coil's field."""

_LEAST_TISSUE_ML = 5.0


@dataclass(frozen=True)
class ContrastRatios:
    """Ratios of medians within one prepared image; None where too little was found to tell.

    Attributes:
        fluid_to_brain: ventricles over brain.
        cortex_to_white: tissue close to fluid or to the brain's edge over tissue far from them, each over its
            surroundings.
    """

    fluid_to_brain: float | None
    cortex_to_white: float | None


def not_a_flair(prepared: Prepared) -> str | None:
    """Why the first channel is no FLAIR, as the end of a sentence; None where it may be one.

    Nothing can be told, and nothing is refused, where the recipe strips no skull or no ventricles were found.
    """
    found = contrast_ratios(prepared)
    fluid, cortex = found.fluid_to_brain, found.cortex_to_white
    if fluid is not None and fluid > BRIGHTEST_FLUID:
        return (
            f"the ventricles are not dark, as in a T2 image; this is no FLAIR "
            f"({fluid:.2f} of the brain's intensity, at most {BRIGHTEST_FLUID:g} in a FLAIR)"
        )
    if cortex is not None and cortex < DARKEST_CORTEX:
        return (
            f"the cortex is darker than white matter, as in a T1 image; this is no FLAIR "
            f"({cortex:.2f} of its intensity, at least {DARKEST_CORTEX:g} in a FLAIR)"
        )
    return None


def contrast_ratios(prepared: Prepared) -> ContrastRatios:
    """Compare fluid with brain, and cortex with white matter, in the slices that hold ventricles.

    Args:
        prepared: by a recipe that strips the skull; intensities of the first channel.
    """
    nothing = ContrastRatios(None, None)
    if prepared.brain is None:
        return nothing
    _, height, width = prepared.grid.spacing
    area = np.count_nonzero(prepared.brain == _VENTRICLES, axis=(1, 2)) * height * width
    through = area >= _LEAST_AREA_MM2
    labels, values = prepared.brain[through], prepared.data[0][through].astype(np.float32)
    ventricles, brain = labels == _VENTRICLES, labels == _BRAIN
    voxel_ml = prepared.grid.voxel_volume_mm3 / 1000
    if np.count_nonzero(ventricles) * voxel_ml < _LEAST_VENTRICLES_ML or not brain.any():
        return nothing
    median = float(np.median(values[brain]))
    if median <= 0:  # a recipe whose intensities have no zero, such as z-scores
        return nothing
    return ContrastRatios(
        fluid_to_brain=float(np.median(values[ventricles])) / median,
        cortex_to_white=_cortex_to_white(values / median, labels, (height, width), voxel_ml),
    )


def _cortex_to_white(
    values: NDArray[np.float32], labels: NDArray[np.uint8], spacing: tuple[float, float], voxel_ml: float
) -> float | None:
    inside = (labels > 0).astype(np.float32)
    smooth = _mean_around(values, inside, _NOISE_MM, spacing)
    brain = labels == _BRAIN
    tissue = brain & (smooth > _DARKEST_TISSUE) & (smooth < _BRIGHTEST_TISSUE)
    from_fluid = _distance(~brain | (smooth < _FLUID), spacing)
    away = tissue & (_distance(labels == _VENTRICLES, spacing) > _BESIDE_VENTRICLES_MM)
    cortex = away & (from_fluid > _CORTEX_MM[0]) & (from_fluid < _CORTEX_MM[1])
    white = away & (from_fluid > _DEEP_MM)
    if min(np.count_nonzero(cortex), np.count_nonzero(white)) * voxel_ml < _LEAST_TISSUE_ML:
        return None
    relative = smooth / np.maximum(_mean_around(smooth, tissue.astype(np.float32), _SHADING_MM, spacing), 0.1)
    return float(np.median(relative[cortex]) / np.median(relative[white]))


def _mean_around(
    values: NDArray[np.floating], weight: NDArray[np.float32], sigma_mm: float, spacing: tuple[float, float]
) -> NDArray[np.floating]:
    """Gaussian mean in the slice of what has weight."""
    sigma = (0.0, sigma_mm / spacing[0], sigma_mm / spacing[1])
    total = ndimage.gaussian_filter(values * weight, sigma)
    mean: NDArray[np.floating] = total / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-3)
    return mean


def _distance(mask: NDArray[np.bool_], spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Distance in the slice to the mask or the slice's border, mm."""
    return np.stack(
        [ndimage.distance_transform_edt(np.pad(~one, 1), sampling=spacing)[1:-1, 1:-1] for one in mask]
    )
