"""The planes of an instance: one for a classic image, one for each frame of an Enhanced multi-frame image.

A classic image has geometry at the top of the data set. An Enhanced image has it in functional groups, per
frame or shared (PS3.3 C.7.6.16). There are no defaults: what the header does not say is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msnode.dicom.header import integer, items, number, numbers, text, value
from msnode.dicom.uids import ENHANCED_MR_CLASSES
from msnode.domain.imaging import Frame
from msnode.errors import NotAVolume

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

    from msnode.domain.imaging import Instance

_CLASSIC_CONTRAST = (
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "RescaleType",
    "ImageType",
    "TemporalPositionIdentifier",
)
_ENHANCED_CONTRAST = (
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    ("MRModifierSequence", "InversionTimes"),
    ("MRImageFrameTypeSequence", "AcquisitionContrast"),
    ("MRImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("PixelValueTransformationSequence", "RescaleType"),
    ("FrameContentSequence", "StackID"),
    ("FrameContentSequence", "TemporalPositionIndex"),
)
_REAL_WORLD = "RealWorldValueMappingSequence"


@dataclass(frozen=True, eq=False)
class Plane:
    """Where one source frame lies and how its stored values become modality values.

    Attributes:
        frame: the instance and frame number.
        position: centre of the first voxel, LPS mm (3), or None.
        orientation: direction cosines along a row, then along a column, LPS (6), or None.
        spacing: distance between rows, between columns, mm (2), or None.
        rescale: slope and intercept, modality value = slope x stored value + intercept; None where the
            header states a rescale that cannot be applied.
        contrast: (attribute keyword, value) of what distinguishes frames at one position.
        rescaled: whether the header states a rescale; where it does not, stored values are the values.
        thickness_mm: Slice Thickness (0018,0050), or None.
        stated_step_mm: Spacing Between Slices (0018,0088), centre to centre, or None.
    """

    frame: Frame
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing: NDArray[np.float64] | None
    rescale: tuple[float, float] | None
    contrast: tuple[tuple[str, str], ...]
    rescaled: bool = False
    thickness_mm: float | None = None
    stated_step_mm: float | None = None


def frame_count(header: Dataset) -> int:
    """Number of Frames (0028,0008), at least 1; 1 if absent."""
    return max(1, integer(header, "NumberOfFrames") or 1)


def is_enhanced(header: Dataset) -> bool:
    """Whether the instance has its geometry in functional groups."""
    return text(header, "SOPClassUID") in ENHANCED_MR_CLASSES


def functional_group(header: Dataset, index: int, sequence: str) -> Dataset | None:
    """The first item of a functional group macro for frame `index` (from 0); None if the header has none."""
    found = functional_groups(header, index, sequence)
    return found[0] if found else None


def functional_groups(header: Dataset, index: int, sequence: str) -> Sequence[Dataset]:
    """The items of a functional group macro for frame `index` (from 0): the frame's own, else shared."""
    for groups, position in (
        ("PerFrameFunctionalGroupsSequence", index),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        found = items(header, groups)
        macro = items(found[position], sequence) if position < len(found) else ()
        if macro:
            return macro
    return ()


def planes_of(instance: Instance) -> tuple[Plane, ...]:
    """The planes of one instance in frame order.

    Raises:
        NotAVolume: several frames without functional groups that give their positions.
    """
    header = instance.header
    if not is_enhanced(header):
        if frame_count(header) > 1:
            raise NotAVolume(
                f"{frame_count(header)} frames in a classic image: only Enhanced MR places each frame"
            )
        return (_classic_plane(instance),)
    count = frame_count(header)
    described = len(items(header, "PerFrameFunctionalGroupsSequence"))
    if described != count:
        raise NotAVolume(
            f"{described} per-frame functional groups for {count} frames: one each is needed (PS3.3 C.7.6.16)"
        )
    return tuple(_enhanced_plane(instance, index) for index in range(count))


def _classic_plane(instance: Instance) -> Plane:
    header = instance.header
    rescale, rescaled = _rescale(header, instance.malformed)
    return Plane(
        frame=Frame(instance, 1),
        position=numbers(header, "ImagePositionPatient", 3),
        orientation=numbers(header, "ImageOrientationPatient", 6),
        spacing=numbers(header, "PixelSpacing", 2),
        rescale=rescale,
        contrast=(
            *((keyword, text(header, keyword)) for keyword in _CLASSIC_CONTRAST),
            ("RealWorldValueSlope", "" if rescaled else _real_world_slope(items(header, _REAL_WORLD))),
        ),
        rescaled=rescaled,
        thickness_mm=number(header, "SliceThickness"),
        stated_step_mm=number(header, "SpacingBetweenSlices"),
    )


def _enhanced_plane(instance: Instance, index: int) -> Plane:
    header = instance.header

    def group(sequence: str) -> Dataset | None:
        return functional_group(header, index, sequence)

    transformation = group("PixelValueTransformationSequence")
    rescale, rescaled = _rescale(header if transformation is None else transformation, instance.malformed)
    measures = group("PixelMeasuresSequence")
    return Plane(
        frame=Frame(instance, index + 1),
        position=numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing=numbers(measures, "PixelSpacing", 2),
        rescale=rescale,
        contrast=(
            *((keyword, text(group(sequence), keyword)) for sequence, keyword in _ENHANCED_CONTRAST),
            ("RealWorldValueSlope", "" if rescaled else _real_world_slope((group(_REAL_WORLD),))),
        ),
        rescaled=rescaled,
        thickness_mm=number(measures, "SliceThickness"),
        stated_step_mm=number(measures, "SpacingBetweenSlices"),
    )


def _rescale(header: Dataset, malformed: frozenset[str]) -> tuple[tuple[float, float] | None, bool]:
    """Slope and intercept, and whether they are stated (PS3.3 C.11.1.1).

    Both are needed where one is given, and each must be one number. A Modality LUT is not applied.
    """
    keywords = ("RescaleSlope", "RescaleIntercept")
    stated = any(value(header, k) is not None or (k in malformed and k not in header) for k in keywords)
    if items(header, "ModalityLUTSequence"):
        return None, True
    if not stated:
        return (1.0, 0.0), False
    slope, intercept = (number(header, k) for k in keywords)
    if not slope or intercept is None:
        return None, True
    return (slope, intercept), True


def _real_world_slope(mappings: Sequence[Dataset | None]) -> str:
    """Where no rescale is stated, one mapping for all slices is one scale (PS3.3 C.7.6.16.2.11)."""
    return text(mappings[0], "RealWorldValueSlope") if mappings else ""
