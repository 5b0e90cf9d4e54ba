"""Normal anatomy as FLAIR contrast, for the demo patient and for synthetic training scans.

The brain comes from the ICBM 152 nonlinear 2009a symmetric average (Fonov et al., NeuroImage 2011,
doi 10.1016/j.neuroimage.2010.07.033), whose tissue maps nilearn ships inside its package. The maps
show the brain alone; skull, scalp, orbits, sinuses and neck are added here as layers around it and
as ellipsoids at their usual places.

All positions are in head coordinates: x to the left, y to the back, z to the top (LPS), mm, origin at the
anterior commissure. All intensities are multiples of normal white matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from msnode.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Field = NDArray[np.float32]

# Ratios to white matter, measured on clinical axial 2D FLAIR at 1.5 T without fat saturation: grey matter
# 0.93-1.11, ventricles 0.17-0.27, scalp fat 0.8-2.4, bone 0.1-0.3.
GREY = 1.09
CSF = 0.2
FAT = 2.1
SKIN = 0.6
BONE = 0.15
MARROW = 0.55
MUSCLE = 0.5
VITREOUS = 0.15
AIR = 0.0

_UNEVEN = 0.015  # standard deviation of parenchyma over a few millimetres
_MASK_STEP = 3  # mm; the envelope is smooth, so a coarse grid serves
_MASK_MARGIN = 20  # voxels of `_MASK_STEP` around the template, room for scalp and neck
_SULCUS_BRIDGE_MM = 6.0
_SKULL_BASE_BRIDGE_MM = 45.0


@dataclass(frozen=True, eq=False)
class Tissue:
    """The head on a fine grid, each array float32 (slice, row, column).

    Attributes:
        flair: FLAIR intensity, multiples of white matter.
        white: fraction of white matter, 0-1.
        grey: fraction of grey matter, 0-1.
        depth: distance below the surface of the brain's envelope, mm; negative outside.
    """

    flair: Field
    white: Field
    grey: Field
    depth: Field


@dataclass(frozen=True, eq=False)
class _Map:
    """A template map that can be sampled at head coordinates (n, 3)."""

    data: Field
    origin: NDArray[np.float64]
    step: float
    outside: float

    def at(self, x: Field, y: Field, z: Field) -> Field:
        """Linear interpolation; the template's axes run to the right, to the front and to the top."""
        points = [(a - o) / self.step for a, o in zip((-x, -y, z), self.origin, strict=True)]
        result: Field = ndimage.map_coordinates(
            self.data, points, order=1, mode="constant", cval=self.outside, output=np.float32
        )
        return result


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], knots: tuple[int, ...], amplitude: float
) -> Field:
    """A random field of the given shape and standard deviation about `amplitude` near its knots.

    Args:
        rng: source of randomness.
        shape: shape of the result.
        knots: number of independent random values along each axis.
        amplitude: standard deviation of the knots' values.
    """
    field: NDArray[Any] = rng.standard_normal(knots)
    for axis, (size, count) in enumerate(zip(shape, knots, strict=True)):
        position = np.linspace(0, count - 1, size)[:, None] - np.arange(count)
        weights = np.exp(-0.5 * (position / 0.7) ** 2)
        weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return np.asarray(amplitude * field, dtype=np.float32)


def make_tissue(x: Field, y: Field, z: Field, rng: np.random.Generator) -> Tissue:
    """The head at head coordinates `x`, `y`, `z`, each float32 (slice, row, column), mm."""
    _, grey_map, white_map = _template()
    inner, outer = _envelopes()
    grey, white = grey_map.at(x, y, z), white_map.at(x, y, z)
    to_brain, to_hull = inner.at(x, y, z), outer.at(x, y, z)
    texture = _texture(rng, x.shape)
    flair = _outside_brain(x, y, z, to_brain=to_brain, to_hull=to_hull, texture=texture)
    parenchyma, csf = _sharpen(grey + white)
    share = grey / np.maximum(grey + white, 1e-3)
    inside = _step(-to_brain, 0.8)
    tissue = parenchyma * (1 + (GREY - 1) * share + _UNEVEN * texture) + csf * CSF
    flair += inside * (tissue - flair)
    return Tissue(flair, parenchyma * (1 - share) * inside, parenchyma * share * inside, -to_brain)


@cache
def _template() -> tuple[_Map, _Map, _Map]:
    """Brain (T1 contrast, zero outside), grey and white matter at 1 mm.

    Raises:
        ConfigurationError: nilearn is not installed.
    """
    try:
        from nilearn import datasets  # noqa: PLC0415 - brings scikit-learn, seconds that only this needs
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is missing: install the demo extra, msnode[demo]") from None
    maps = []
    for load in (
        datasets.load_mni152_template,
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
    ):
        image = load(resolution=1)
        maps.append(_Map(np.asarray(image.dataobj, dtype=np.float32), image.affine[:3, 3], 1.0, 0.0))
    return maps[0], maps[1], maps[2]


@cache
def _envelopes() -> tuple[_Map, _Map]:
    """Signed distance (mm, negative inside) to the brain with its sulci closed, and to its smooth hull."""
    brain = _template()[0]
    coarse = np.pad(brain.data[::_MASK_STEP, ::_MASK_STEP, ::_MASK_STEP] > 0, _MASK_MARGIN)
    origin = brain.origin - _MASK_MARGIN * _MASK_STEP
    # the template ends at the medulla: let the closed shape run on below it, as a neck does
    coarse[:, :, :_MASK_MARGIN] = coarse[:, :, _MASK_MARGIN : _MASK_MARGIN + 1]

    def closed(bridge_mm: float) -> _Map:
        grown = ndimage.distance_transform_edt(~coarse) * _MASK_STEP <= bridge_mm
        mask = ndimage.distance_transform_edt(grown) * _MASK_STEP > bridge_mm
        outside = ndimage.distance_transform_edt(~mask)
        signed = (outside - ndimage.distance_transform_edt(mask)) * _MASK_STEP
        smooth = ndimage.gaussian_filter(signed.astype(np.float32), 1.0)
        return _Map(smooth, origin, float(_MASK_STEP), 100.0)

    return closed(_SULCUS_BRIDGE_MM), closed(_SKULL_BASE_BRIDGE_MM)


def _step(distance: NDArray[Any], width: float) -> Field:
    """0 to 1 around distance 0, over about `width` mm on either side: a partial-volume edge."""
    return np.asarray(np.clip(0.5 + distance / (2 * width), 0, 1), dtype=np.float32)


def _sharpen(parenchyma: Field) -> tuple[Field, Field]:
    """Parenchyma and CSF fractions of one brain, from the blurred average of many.

    An average of 152 brains has shallow grey sulci; a steeper edge gives them back their CSF.
    """
    steep = np.asarray(np.clip((parenchyma - 0.48) / 0.26, 0, 1), dtype=np.float32)
    return steep, np.asarray(1 - steep, dtype=np.float32)


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> Field:
    """Random texture a few millimetres coarse, standard deviation 1, for fat septa, marrow and mucosa."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (2.5, 1.6, 1.6))
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _ellipsoid(
    x: Field, y: Field, z: Field, centre: tuple[float, float, float], axes: tuple[float, float, float]
) -> Field:
    """Approximate depth below the surface of an ellipsoid, mm; negative outside."""
    scaled = [(a - c) / r for a, c, r in zip((x, y, z), centre, axes, strict=True)]
    radius = np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2)
    return np.asarray((1 - radius) * min(axes), dtype=np.float32)


def _outside_brain(x: Field, y: Field, z: Field, *, to_brain: Field, to_hull: Field, texture: Field) -> Field:
    """Everything around the brain: air, skin, fat, muscle, bone with marrow, orbits and sinuses."""
    vault = 13.5 + 1.5 * np.clip((z - 40) / 40, 0, 1) + 1.5 * np.clip(y / 90, 0, 1) - to_hull
    parts: list[NDArray[Any]] = [
        vault,
        _ellipsoid(x, y, z, (0, -22, -58), (70, 68, 62)),  # face
        _ellipsoid(x, y, z, (0, 32, -75), (66, 66, 90)),  # neck
        _ellipsoid(x, y, z, (0, -92, -52), (13, 20, 24)),  # nose
    ]
    skin_depth = np.maximum.reduce(parts)
    lateral = np.abs(x)
    septa = np.clip(2 * (texture - 1.2), 0, 1)
    flair = np.asarray(MUSCLE + 0.08 * texture + 0.8 * FAT * septa, dtype=np.float32)

    def paint(depth: NDArray[Any], value: NDArray[Any] | float, width: float = 0.8) -> None:
        edge = _step(depth, width)
        np.add(flair, edge * (value - flair), out=flair)

    # cranial bone: two tables with marrow between
    skull = 3.8 - np.abs(to_brain - 4.6)
    paint(skull, BONE)
    paint(1.4 - np.abs(to_brain - 4.8), MARROW + 0.3 * np.clip(z / 80, 0, 1))
    petrous = _ellipsoid(lateral, y, z, (42, 22, -42), (26, 14, 13))
    paint(petrous, BONE + (MARROW - BONE) * np.clip(texture - 0.5, 0, 1))
    clivus = _ellipsoid(lateral, y, z, (0, -6, -46), (16, 11, 16))
    paint(clivus, MARROW + 0.2 * texture)
    _paint_face(paint, lateral, y, z, texture)
    fat = 6.0 + 1.5 * np.clip(z / 60, -0.5, 1) + 0.4 * np.clip(texture, -1, 1)
    paint(fat - skin_depth, FAT)
    paint(1.3 - skin_depth, SKIN)
    paint(-skin_depth, AIR)
    # what lies between the brain and the bone
    paint(np.minimum(1.2 - to_brain, 20.0), CSF)
    return flair


def _paint_face(paint: Callable[..., None], lateral: Field, y: Field, z: Field, texture: Field) -> None:
    """Orbits with their globes, nasal cavity and sinuses, both sides at once (`lateral` = |x|)."""
    mucosa = 1.4 * np.clip(1.5 * (texture - 0.2), 0, 1)
    nerve = 2.6 - np.hypot(lateral - 26 - 0.12 * (-y - 30), z + 36)
    # a flat roof: thick slices then show an orbit or none, not a grey blur above it
    orbit = np.minimum(_ellipsoid(lateral, y, z, (29, -46, -37), (18, 27, 40)), -22 - z)
    paint(orbit + 2.5, BONE)
    paint(orbit, FAT * 0.9)
    paint(np.minimum(orbit, nerve), MUSCLE)
    globe = _ellipsoid(lateral, y, z, (32, -62, -36), (12.5, 12.5, 12.5))
    paint(globe, 0.5)
    paint(globe - 1.5, VITREOUS)
    paint(_ellipsoid(lateral, y, z, (0, -60, -44), (13, 30, 24)), mucosa)
    paint(_ellipsoid(lateral, y, z, (0, -18, -40), (14, 13, 11)), AIR)  # sphenoid sinus
    paint(_ellipsoid(lateral, y, z, (30, -52, -70), (15, 18, 17)), AIR)  # maxillary sinus
    paint(_ellipsoid(lateral, y, z, (8, -80, -6), (14, 5, 12)), AIR)  # frontal sinus
    paint(_ellipsoid(lateral, y, z, (50, 28, -46), (11, 12, 13)), 0.25 * mucosa)
