"""Describes a series by its headers, in the terms of the selection rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msnode.dicom.header import items, number, text, texts
from msnode.dicom.planes import functional_group, functional_groups, is_enhanced, planes_of
from msnode.dicom.uids import MR_IMAGE_CLASSES, is_own, sop_class_name
from msnode.errors import NotAVolume
from msnode.series import words as vocabulary
from msnode.series.aside import DERIVED_TYPES, PHASE_TYPES

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

    from msnode.dicom.planes import Plane
    from msnode.domain.imaging import Series


_REFORMAT_TYPES = {"MPR", "REFORMATTED", "CSA MPR"}
_CORRECTED_TYPES = {"NORM", "DIS2D", "DIS3D", "FM"}
_TI_MS, _TE_MS, _TR_MS = (10.0, 10_000.0), (0.01, 5_000.0), (0.5, 100_000.0)
"""What inversion, echo and repetition time of any MR sequence can be; beside it, none is stated."""
_B_VALUES = (1.0, 100_000.0)  # s/mm2
_SLICE_3D_MM = 2.0
_SAME_COSINE = 0.01
_SAME_PLACE_MM = 0.05


@dataclass(frozen=True)
class Description:
    """A series in the terms of the rules. Text that names a finding is empty if there is none.

    `words` are those of the name, normalised. Where they name the whole examination (`exam_name`), nothing
    but a FLAIR in them counts.

    Times are in ms and None if the header states none. `coverage_mm` and `slice_distance_mm`, the median
    distance between slices, are None if slices have no position. `other_body_part` is shown instead of the
    head, `second_region` is named beside it. `reformat` is true for derived images that show the acquired
    values in other planes, and nothing else. `plane` is the nearest anatomical plane, `tilt_deg` the angle
    between its normal and that of the slices.
    """

    own: bool
    words: str
    exam_name: bool
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
    reformat: bool
    not_magnitude: str
    post_contrast: str
    other_body_part: str
    second_region: str
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


def describe(series: Series, exam_names: frozenset[str] = frozenset()) -> Description:
    """Describe a series. What must be equal in all instances is read from the first one.

    Args:
        series: at least one instance.
        exam_names: words that are known to name the whole examination.
    """
    header = series.instances[0].header
    name = _words(header)
    words = "" if name in exam_names else name
    image_type = _image_type(header)
    modality = text(header, "Modality")
    planes = _planes(series)
    depths, plane_name, tilt_deg, orientations = _places(planes)
    steps = np.diff(depths)
    step = float(np.median(steps)) if len(steps) else None
    elsewhere, beside = _regions(header, words)
    acquisition = text(header, "MRAcquisitionType")
    spacing = next((p.spacing for p in planes if p.spacing is not None), None)
    return Description(
        own=any(is_own(i.header) for i in series.instances),
        words=name,
        exam_name=name in exam_names or not text(header, "SeriesDescription").strip(),
        is_mr_image=modality == "MR" and text(header, "SOPClassUID") in MR_IMAGE_CLASSES,
        modality=modality,
        sop_class_name=sop_class_name(text(header, "SOPClassUID")),
        flair_word=_flair_word(header, name),
        named_other=_named_other(words),
        contrast=_acquisition_contrast(header),
        inversion_time_ms=_inversion_time(header),
        echo_time_ms=_time(header, "EchoTime", "MREchoSequence", "EffectiveEchoTime", _TE_MS),
        repetition_time_ms=_time(
            header, "RepetitionTime", "MRTimingAndRelatedParametersSequence", "RepetitionTime", _TR_MS
        ),
        localiser=_first(image_type & {"LOCALIZER"}) or _found(vocabulary.LOCALISER, words),
        diffusion=_diffusion(header, words),
        derived=_first(image_type & {"DERIVED", "SECONDARY", *DERIVED_TYPES})
        or _found(vocabulary.DERIVED, _without_networks(words)),
        reformat=_is_reformat(image_type, words),
        not_magnitude=_first(image_type & PHASE_TYPES),
        post_contrast=_post_contrast(header, words),
        other_body_part=elsewhere,
        second_region=beside,
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


def _without_networks(words: str) -> str:
    return vocabulary.NOT_DERIVED.sub(" ", words)


def _is_reformat(image_type: set[str], words: str) -> bool:
    """Whether images are a reformat, by their type or description, and nothing says that they are more.

    GE writes DERIVED, SECONDARY, REFORMATTED, AVERAGE for the mean over a slab.
    """
    rest = vocabulary.REFORMAT.sub(" ", _without_networks(words))
    more = image_type & (DERIVED_TYPES - _REFORMAT_TYPES - {"MEAN", "AVERAGE"})
    said = image_type & _REFORMAT_TYPES or vocabulary.REFORMAT.search(_without_networks(words))
    return bool(said) and not more and not vocabulary.DERIVED.search(rest)


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


def _stated(values: Iterable[float | None], limits: tuple[float, float]) -> float | None:
    """The first value that can be one; None if none is. 0 and the absurd are place-holders."""
    low, high = limits
    return next((v for v in values if v is not None and low <= v <= high), None)


def _time(
    header: Dataset, keyword: str, sequence: str, inside: str, limits: tuple[float, float]
) -> float | None:
    """A time in ms, from the functional group if it states one, else from the top of the data set."""
    item = functional_group(header, 0, sequence)
    return _stated((number(item, inside), number(header, keyword)), limits)


def _inversion_time(header: Dataset) -> float | None:
    """Inversion Time (0018,0082), or the first of Inversion Times (0018,9079) if inversion recovery is on."""
    item = functional_group(header, 0, "MRModifierSequence")
    if text(item, "InversionRecovery") == "NO":
        return None
    several = [_as_number(each) for each in texts(item, "InversionTimes")]
    return _stated((*several, number(item, "InversionTime"), number(header, "InversionTime")), _TI_MS)


def _as_number(written: str) -> float | None:
    try:
        return float(written)
    except ValueError:
        return None


def _diffusion(header: Dataset, words: str) -> str:
    item = functional_group(header, 0, "MRDiffusionSequence")
    b_value = _stated((number(item, "DiffusionBValue"), number(header, "DiffusionBValue")), _B_VALUES)
    return f"b = {b_value:g}" if b_value else _found(vocabulary.DIFFUSION, words)


def _post_contrast(header: Dataset, words: str) -> str:
    word = vocabulary.contrast_word(words)
    if word:
        return f"'{word}' in its description"
    return "Contrast/Bolus Agent is given" if _names_an_agent(header) and _administered(header) else ""


def _names_an_agent(header: Dataset) -> bool:
    codes = items(header, "ContrastBolusAgentSequence")
    meanings = [text(code, "CodeMeaning") or text(code, "CodeValue") for code in codes]
    return any(map(vocabulary.names_an_agent, [text(header, "ContrastBolusAgent"), *meanings]))


def _administered(header: Dataset) -> bool:
    """Whether an agent that is named may be in the images.

    Contrast/Bolus Agent Administered (0018,9342) says NO in the images before the injection (PS3.3
    C.7.6.16.2.12).
    """
    of_frames = [
        item
        for index in range(len(items(header, "PerFrameFunctionalGroupsSequence")) or 1)
        for item in functional_groups(header, index, "ContrastBolusUsageSequence")
    ]
    return not of_frames or any(text(i, "ContrastBolusAgentAdministered") != "NO" for i in of_frames)


def _regions(header: Dataset, words: str) -> tuple[str, str]:
    """What is shown instead of the head, and what is named beside it; each empty if there is none.

    Evidence of a head outweighs a second region: Body Part Examined may be left from another examination, and
    the words of a description may be a person or a project.
    """
    part = text(header, "BodyPartExamined").strip()
    word = vocabulary.other_part_of_the_body(words)
    named = f"'{word}' in its description" if word else ""
    if vocabulary.names_the_head(words):
        return "", named
    if not vocabulary.may_be_a_head(part):
        return f"Body Part Examined {part.upper()}", ""
    return ("", named) if vocabulary.is_a_head(part) or _exam_of_the_head(header) else (named, "")


def _exam_of_the_head(header: Dataset) -> bool:
    """Whether region, study or protocol names the head and nothing else."""
    regions = [text(item, "CodeMeaning") for item in items(header, "AnatomicRegionSequence")]
    texts_of_exam = [*regions, text(header, "StudyDescription"), text(header, "ProtocolName")]
    return any(
        vocabulary.names_the_head(words) and not vocabulary.other_part_of_the_body(words)
        for words in map(vocabulary.normalised, texts_of_exam)
    )


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
