"""Brain extraction without a trained network of our own: Gabor and morphology, FSL BET, HD-BET, none.

Each is an `Extractor`: a volume in axial order → uint8 on the same grid, 0 outside and 1 brain. None of
them tells ventricles apart.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from msnode.domain.imaging import Volume
from msnode.errors import ConfigurationError, ProcessDied
from msnode.preprocess.brain import BRAIN
from msnode.preprocess.steps import finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from msnode.preprocess.brain import Extractor

_PARENCHYMA = (0.55, 2.0)
"""Response of parenchyma, as a share of that of the middle of the head: under it bone and fluid, over it
fat. On 13 scans with expert masks 0.5-0.6 below, with or without the bound above, and 3-4.5 mm of erosion
differ by less than 0.015 in mean Dice."""

_BRIDGE_MM = 3.5
"""Erosion that cuts the bridges (vessels, nerves, meninges) between brain and scalp."""

_FISSURE_MM = 6.0
"""Closing that brings back sulci and fissures, which are dark in a FLAIR."""

_DRIFT_MM = 4.0
"""How far the brain's outline may grow from one slice to the next."""

_MIDDLE_MM = 30.0
"""Depth under the skin from which a slice of the middle third of the stack shows mostly brain."""

_BET_LIMIT_S, _HD_BET_LIMIT_S = 600, 1800


def whole_image(volume: Volume) -> Volume:
    """Everything is brain: for images that need no skull stripping, and to measure what it brings."""
    return Volume(np.full(volume.data.shape, BRAIN, dtype=np.uint8), volume.grid)


def gabor_kernel() -> NDArray[np.float64]:
    """The Gabor filter of system B (Sci Rep 2024, s41598-024-67130-6), (row, column), 7 x 7.

    g = exp(-(x'^2 + gamma^2 y'^2) / (2 sigma^2)) cos(2 pi x' / lambda + psi), x' = x cos(theta) +
    y sin(theta), y' = -x sin(theta) + y cos(theta), in pixels; cut off at 3 sigma.
    """
    wavelength, theta, psi, sigma, gamma = 5 * np.pi / 4, np.pi / 4, -0.5, 1.0, 1.0
    y, x = np.mgrid[-3:4, -3:4].astype(np.float64)
    along = x * np.cos(theta) + y * np.sin(theta)
    across = -x * np.sin(theta) + y * np.cos(theta)
    envelope = np.exp(-(along**2 + gamma**2 * across**2) / (2 * sigma**2))
    return np.asarray(envelope * np.cos(2 * np.pi * along / wavelength + psi))


def gabor_brain(volume: Volume) -> Volume:
    """System B's method: 3 x 3 median, Gabor filter, threshold, morphology; slice by slice.

    The paper gives the filter and leaves the morphology open. Here: what responds like the middle of the
    head is parenchyma; eroded, its largest component in the middle of the stack is the brain; from there
    each next slice keeps what overlaps with the slice before; dilated back, closed, holes filled.

    Args:
        volume: FLAIR, axial order.

    Returns:
        uint8 on the same grid; zeros for a constant image.

    Raises:
        NotAVolume: a value is not finite.
    """
    data = finite(volume)
    kernel = gabor_kernel()
    response = np.stack([ndimage.convolve(ndimage.median_filter(one, 3), kernel) for one in data])
    spacing = volume.grid.spacing[1:]
    middle = _middle_response(response, spacing)
    if middle is None:
        return Volume(np.zeros(data.shape, dtype=np.uint8), volume.grid)
    low, high = _PARENCHYMA
    candidates = (response > low * middle) & (response < high * middle)
    return Volume(_follow(candidates, spacing).astype(np.uint8), volume.grid)


def bet_brain(volume: Volume) -> Volume:
    """FSL BET (Smith, Human Brain Mapping 2002), robust centre (`-R`), from the program `bet` on PATH.

    Raises:
        ConfigurationError: there is no such program.
        ProcessDied: it failed or took more than ten minutes.
    """
    program = shutil.which("bet")
    if program is None:
        raise ConfigurationError("brain method 'bet' needs FSL's program bet on PATH, which is not there")
    with tempfile.TemporaryDirectory(prefix="msnode-bet-") as name:
        folder = Path(name)
        source = _write(volume, folder / "image.nii.gz")
        command = [program, str(source), str(folder / "brain"), "-R", "-m", "-n"]
        _run(command, "bet", _BET_LIMIT_S)
        return _read(folder / "brain_mask.nii.gz", volume, "bet")


def hd_bet_brain(volume: Volume) -> Volume:
    """HD-BET 2 (Isensee et al., Human Brain Mapping 2019) on the CPU, one network without mirrors.

    It runs in a process of its own, so that torch stays out of this one. It fetches its weights by itself
    where they are missing; so it is started only where they lie on disk.

    Raises:
        ConfigurationError: the package or its weights are not installed.
        ProcessDied: it failed or took more than half an hour.
    """
    if importlib.util.find_spec("HD_BET") is None:
        raise ConfigurationError("brain method 'hd-bet' needs the package hd-bet, which is not installed")
    weights = Path(importlib.import_module("HD_BET.paths").folder_with_parameter_files)
    if not (weights / "fold_all" / "checkpoint_final.pth").is_file():
        raise ConfigurationError(
            "brain method 'hd-bet' needs its weights on disk: unpack HD-BET's release into "
            f"{weights}, so that it holds fold_all/checkpoint_final.pth"
        )
    with tempfile.TemporaryDirectory(prefix="msnode-hd-bet-") as name:
        folder = Path(name)
        source = _write(volume, folder / "image.nii.gz")
        files = ["-i", str(source), "-o", str(folder / "brain.nii.gz")]
        options = ["-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"]
        _run([sys.executable, "-m", "HD_BET.entry_point", *files, *options], "hd-bet", _HD_BET_LIMIT_S)
        return _read(folder / "brain_bet.nii.gz", volume, "hd-bet")


BRAIN_METHODS: Mapping[str, Extractor] = MappingProxyType(
    {"gabor": gabor_brain, "bet": bet_brain, "hd-bet": hd_bet_brain, "none": whole_image}
)
"""Name → extractor. The learned one is not among them: it belongs to a bundle."""


def _middle_response(response: NDArray[np.float32], spacing: Sequence[float]) -> float | None:
    """Median response deep in the head, in the middle third of the slices; None where there is no head."""
    air, bright = np.percentile(response, [1, 99])
    head = response > air + 0.1 * (bright - air)
    third = len(head) // 3
    found = []
    for k in range(third, max(third + 1, 2 * third)):
        deep = _depth(ndimage.binary_fill_holes(head[k]), spacing) > _MIDDLE_MM
        found.append(response[k][deep & head[k]])
    values = np.concatenate(found)
    return float(np.median(values)) if values.size else None


def _follow(candidates: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.bool_]:
    """The brain among candidate voxels, from the middle of the stack outwards."""
    cores = np.stack([_depth(one, spacing) > _BRIDGE_MM for one in candidates])
    count = len(cores)
    largest = [_largest(one) for one in cores]
    quarter = count // 4
    start = max(range(quarter, count - quarter), key=lambda k: largest[k].sum())
    brain = np.zeros_like(candidates)
    brain[start] = _regrown(largest[start], candidates[start], spacing)
    for step in (1, -1):
        k = start + step
        while 0 <= k < count and brain[k - step].any():
            before = brain[k - step]
            core = _components_of_size(cores[k] & before, spacing)
            if core.any():
                grown = _regrown(core, candidates[k], spacing)
                brain[k] = grown & (_distance(before, spacing) <= _DRIFT_MM)
            k += step
    return brain


def _regrown(
    core: NDArray[np.bool_], candidates: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.bool_]:
    """What the erosion took, given back where it was a candidate; closed; holes filled."""
    if not core.any():
        return core
    grown = (_distance(core, spacing) <= _BRIDGE_MM + min(spacing)) & candidates
    margin = int(np.ceil(_FISSURE_MM / min(spacing))) + 1
    wide = _distance(np.pad(grown, margin), spacing) <= _FISSURE_MM
    closed = (_depth(wide, spacing) > _FISSURE_MM)[margin:-margin, margin:-margin]
    return np.asarray(ndimage.binary_fill_holes(closed | grown), dtype=bool)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    components, count = ndimage.label(mask)
    if not count:
        return mask
    return np.asarray(components == 1 + np.argmax(np.bincount(components.ravel())[1:]))


def _components_of_size(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.bool_]:
    """Components of at least 1 cm2; less is noise or a vessel."""
    components, _ = ndimage.label(mask)
    large = np.bincount(components.ravel()) * spacing[0] * spacing[1] >= 100  # noqa: PLR2004 - 1 cm2
    large[0] = False
    return np.asarray(large[components])


def _depth(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance of each pixel of a slice to the outside of the mask, mm; beyond the image is outside."""
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1])


def _distance(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance of each pixel of a slice to the mask, mm; 0 in it."""
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing))


def _simpleitk() -> Any:
    """Imported where it is needed: it takes half a second that most processes never use."""
    return importlib.import_module("SimpleITK")


def _write(volume: Volume, path: Path) -> Path:
    """As NIfTI with spacing and the axial order's directions: neither position nor tilt reach the program."""
    sitk = _simpleitk()
    image = sitk.GetImageFromArray(volume.data.astype(np.float32))
    image.SetSpacing(volume.grid.spacing[::-1])
    sitk.WriteImage(image, str(path))
    return path


def _read(path: Path, volume: Volume, method: str) -> Volume:
    """The mask that a program left.

    Raises:
        ProcessDied: there is none, or it lies on another grid.
    """
    if not path.is_file():
        raise ProcessDied(f"brain method {method!r} ended without a mask")
    sitk = _simpleitk()
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
    if mask.shape != volume.data.shape:
        raise ProcessDied(f"brain method {method!r} gave a mask of {mask.shape} for {volume.data.shape}")
    return Volume(mask.astype(np.uint8), volume.grid)


def _run(command: Sequence[str], method: str, limit_s: int) -> None:
    """Run a program to its end.

    Raises:
        ProcessDied: it failed, or took longer than `limit_s` seconds.
    """
    environment = {**os.environ, "FSLOUTPUTTYPE": "NIFTI_GZ"}
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=limit_s, env=environment)
    except subprocess.TimeoutExpired as error:
        raise ProcessDied(f"brain method {method!r} did not end within {limit_s} s") from error
    if done.returncode:
        raise ProcessDied(f"brain method {method!r} ended with status {done.returncode}")
