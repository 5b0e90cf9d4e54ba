"""A picture of the overlay series for a quick look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydicom import dcmread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom import Dataset

_TILE = 360  # pixels
_COLUMNS = 4
_MOST_TILES = 12


def save_picture(overlay: Sequence[Path], lesion_levels: Sequence[float], target: Path) -> int:
    """Save a grid of overlay images as PNG: those with lesions, or a sample of all if there are none.

    Args:
        overlay: files of single-frame RGB Secondary Capture images with Image Position and Orientation.
        lesion_levels: positions along the normal of the planes with lesions, mm, see `level`.
        target: the PNG file.

    Returns:
        The number of images shown, from inferior to superior, left to right and top to bottom.
    """
    images = sorted((dcmread(path) for path in overlay), key=level)
    levels = np.array([level(image) for image in images])
    wanted = np.unique([int(np.abs(levels - one).argmin()) for one in lesion_levels])
    if not len(wanted):
        wanted = np.arange(len(images))
    if len(wanted) > _MOST_TILES:
        wanted = wanted[np.linspace(0, len(wanted) - 1, _MOST_TILES).round().astype(int)]
    tiles = [_tile(images[index]) for index in wanted]
    rows = -(-len(tiles) // _COLUMNS)
    sheet = Image.new("RGB", (min(len(tiles), _COLUMNS) * _TILE, rows * _TILE))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, ((number % _COLUMNS) * _TILE, (number // _COLUMNS) * _TILE))
    sheet.save(target)
    return len(tiles)


def level(image: Dataset) -> float:
    """Position along the normal of the image's plane, mm (PS3.3 C.7.6.2.1.1)."""
    orientation = np.array(image.ImageOrientationPatient, dtype=np.float64)
    normal = np.cross(orientation[:3], orientation[3:])
    return float(normal @ np.array(image.ImagePositionPatient, dtype=np.float64))


def _tile(image: Dataset) -> Image.Image:
    picture = Image.fromarray(image.pixel_array)
    scale = _TILE / max(picture.size)
    size = round(picture.width * scale), round(picture.height * scale)
    tile = Image.new("RGB", (_TILE, _TILE))
    resized = picture.resize(size, Image.Resampling.LANCZOS)
    tile.paste(resized, ((_TILE - size[0]) // 2, (_TILE - size[1]) // 2))
    return tile
