"""Describes a series by its headers, in the terms of the selection rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.header import items, number, text, texts
from msnode.dicom.planes import functional_group, is_enhanced, planes_of
from msnode.dicom.uids import MR_IMAGE_CLASSES, is_own, sop_class_name
from msnode.errors import NotAVolume
from msnode.series import words as vocabulary

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

    from msnode.dicom.planes import Plane
    from msnode.domain.imaging import Series


_DERIVED_TYPES = {
    "MPR",
    "REFORMATTED",
    "MIP",
    "MIN IP",
    "PROJECTION IMAGE",
    "SUBTRACTION",
    "ADC",
    "MEAN",
    "AVERAGE",
    "CSA MPR",
}
_PHASE_TYPES = {"P", "R", "I", "PHASE MAP", "REAL", "IMAGINARY", "PHASE", "PHASE_MAP"}
_CORRECTED_TYPES = {"NORM", "DIS2D", "DIS3D", "FM"}
_SLICE_3D_MM = 2.0
_SAME_COSINE = 0.01
_SAME_PLACE_MM = 0.05


@dataclass(frozen=True)
class Description:
    """A series in the terms of the rules. Text that names a finding is empty if there is none.

    Times are in ms and None if the header has none. `coverage_mm` and `slice_distance_mm`, the median
    distance between slices, are None if slices have no position. `plane` is the nearest anatomical plane,
    `tilt_deg` the angle between its normal and that of the slices.
    """

    own: bool
    is_mr_image: bool
    modality: str
    sop_class_name: str
    flair_word: str
    named_other: str
    contrast: str
    inversion_time_ms: float | None
    echo_time_ms: float | None
    repetition_time_ms: float | None
    localiser: str
    diffusion: str
    derived: str
    not_magnitude: str
    post_contrast: str
    other_body_part: str
    orientation_count: int
    slice_count: int
    coverage_mm: float | None
    slice_distance_mm: float | None
    plane: str
    tilt_deg: float
    is_3d: bool
    pixel_mm: float
    corrections: int
    repeated: bool


def describe(series: Series) -> Description:
    """Describe a series. What must be equal in all instances is read from the first one."""
    header = series.instances[0].header
    words = _words(header)
    image_type = _image_type(header)
    modality = text(header, "Modality")
    planes = _planes(series)
    depths, plane_name, tilt_deg, orientations = _places(planes)
    steps = np.diff(depths)
    step = float(np.median(steps)) if len(steps) else None
    acquisition = text(header, "MRAcquisitionType")
    spacing = next((p.spacing for p in planes if p.spacing is not None), None)
    return Description(
        own=any(is_own(i.header) for i in series.instances),
        is_mr_image=modality == "MR" and text(header, "SOPClassUID") in MR_IMAGE_CLASSES,
        modality=modality,
        sop_class_name=sop_class_name(text(header, "SOPClassUID")),
        flair_word=_flair_word(header, words),
        named_other=_named_other(words),
        contrast=_acquisition_contrast(header),
        inversion_time_ms=_inversion_time(header),
        echo_time_ms=_timed(header, "EchoTime", "MREchoSequence", "EffectiveEchoTime"),
        repetition_time_ms=_timed(
            header, "RepetitionTime", "MRTimingAndRelatedParametersSequence", "RepetitionTime"
        ),
        localiser=_first(image_type & {"LOCALIZER"}) or _found(vocabulary.LOCALISER, words),
        diffusion=_diffusion(header, words),
        derived=_first(image_type & {"DERIVED", "SECONDARY", *_DERIVED_TYPES})
        or _found(vocabulary.DERIVED, vocabulary.NOT_DERIVED.sub(" ", words)),
        not_magnitude=_first(image_type & _PHASE_TYPES),
        post_contrast=_post_contrast(header, words),
        other_body_part=_other_body_part(header, words),
        orientation_count=orientations,
        slice_count=len(depths) or len(planes),
        coverage_mm=None if step is None else float(depths[-1] - depths[0]) + step,
        slice_distance_mm=step,
        plane=plane_name,
        tilt_deg=tilt_deg,
        is_3d=acquisition == "3D" or (acquisition != "2D" and step is not None and step < _SLICE_3D_MM),
        pixel_mm=0.0 if spacing is None else float(spacing.max()),
        corrections=len(image_type & _CORRECTED_TYPES) - bool(vocabulary.UNCORRECTED.search(words)),
        repeated=vocabulary.REPEAT.search(words) is not None,
    )


def _words(header: Dataset) -> str:
    """The words of the series description, else of the protocol, which may name the whole examination."""
    return vocabulary.normalised(
        text(header, "SeriesDescription").strip() or text(header, "ProtocolName").strip()
    )


def _flair_word(header: Dataset, words: str) -> str:
    """The word for a FLAIR in the description, or in the protocol if the description says only IR."""
    found = vocabulary.FLAIR.search(words)
    if found is None and vocabulary.INVERSION.search(words):
        found = vocabulary.FLAIR.search(vocabulary.normalised(text(header, "ProtocolName")))
    return found.group().strip() if found else ""


def _named_other(words: str) -> str:
    """The words for another contrast. A T1 FLAIR (GE) is one, unless its name says T2 too."""
    another = _found(vocabulary.ANOTHER_INVERSION, words)
    return another or ("" if vocabulary.T2.search(words) else _found(vocabulary.T1, words))


def _found(pattern: re.Pattern[str], words: str) -> str:
    match = pattern.search(words)
    return f"'{match.group().strip()}' in its description" if match else ""


def _first(values: set[str]) -> str:
    return f"Image Type {min(values)}" if values else ""


def _image_type(header: Dataset) -> set[str]:
    values = {each.upper() for each in texts(header, "ImageType")}
    if is_enhanced(header):
        item = functional_group(header, 0, "MRImageFrameTypeSequence")
        if item is not None:
            values |= {each.upper() for each in texts(item, "FrameType")}
            values |= {text(item, "ComplexImageComponent").upper()}
    return values


def _acquisition_contrast(header: Dataset) -> str:
    item = functional_group(header, 0, "MRImageFrameTypeSequence")
    return text(item, "AcquisitionContrast") or text(header, "AcquisitionContrast")


def _timed(header: Dataset, keyword: str, sequence: str, inside: str) -> float | None:
    """A time in ms, from the functional group if there is one; None for 0, which means not applicable."""
    item = functional_group(header, 0, sequence)
    found = number(item, inside)
    return (found if found is not None else number(header, keyword)) or None


def _inversion_time(header: Dataset) -> float | None:
    """Inversion Time (0018,0082), or the first of Inversion Times (0018,9079) if inversion recovery is on."""
    item = functional_group(header, 0, "MRModifierSequence")
    if item is None:
        return number(header, "InversionTime") or None
    if text(item, "InversionRecovery") == "NO":
        return None
    times = text(item, "InversionTimes").split("\\")
    try:
        return float(times[0])
    except ValueError:
        return number(item, "InversionTime") or number(header, "InversionTime") or None


def _diffusion(header: Dataset, words: str) -> str:
    item = functional_group(header, 0, "MRDiffusionSequence")
    b_value = number(item, "DiffusionBValue") or number(header, "DiffusionBValue")
    return f"b = {b_value:g}" if b_value else _found(vocabulary.DIFFUSION, words)


def _post_contrast(header: Dataset, words: str) -> str:
    agent = text(header, "ContrastBolusAgent")
    if vocabulary.names_an_agent(agent) or items(header, "ContrastBolusAgentSequence"):
        return "Contrast/Bolus Agent is given"
    word = vocabulary.contrast_word(words)
    return f"'{word}' in its description" if word else ""


def _other_body_part(header: Dataset, words: str) -> str:
    part = text(header, "BodyPartExamined").strip()
    if not vocabulary.may_be_a_head(part):
        return f"Body Part Examined {part.upper()}"
    word = vocabulary.other_part_of_the_body(words)
    return f"'{word}' in its description" if word else ""


def _planes(series: Series) -> list[Plane]:
    planes: list[Plane] = []
    for instance in series.instances:
        try:
            planes.extend(planes_of(instance))
        except NotAVolume:
            return []  # if the series is chosen, the checks of the volume give the reason
    return planes


def _places(planes: Sequence[Plane]) -> tuple[NDArray[np.float64], str, float, int]:
    """Distinct positions along the first normal (mm, rising), its plane and tilt, number of orientations."""
    placed = [
        (p.position, p.orientation) for p in planes if p.position is not None and p.orientation is not None
    ]
    if not placed:
        return np.zeros(0), "unplaced", 0.0, 0
    first = placed[0][1]
    normal = np.cross(first[:3], first[3:])
    name = ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(normal)))]
    tilt_deg = float(np.degrees(np.arccos(np.clip(np.abs(normal).max(), 0, 1))))
    orientations = [first]
    for _, orientation in placed:
        if min(float(np.abs(orientation - known).max()) for known in orientations) > _SAME_COSINE:
            orientations.append(orientation)
    depths = np.sort([position @ normal for position, _ in placed])
    return depths[np.diff(depths, prepend=-np.inf) > _SAME_PLACE_MM], name, tilt_deg, len(orientations)
