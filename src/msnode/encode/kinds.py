"""The kinds of result object: how each is numbered and called, and which of them a reading makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

KIND_NUMBERS: Mapping[str, int] = MappingProxyType({
    "seg": 1,
    "sr": 2,
    "overlay": 3,
    "ko": 4,
    "summary": 5,
    "pdf": 6,
    "probability": 7,
    "sr-comprehensive": 8,
    "sr-enhanced": 9,
})  # fmt: skip
"""Last digit of the series number by kind of object."""

SERIES_DESCRIPTIONS: Mapping[str, str] = MappingProxyType({
    "seg": "MS AI SEG",
    "sr": "MS AI REPORT",
    "overlay": "MS AI OVERLAY",
    "ko": "MS AI REJECTION NOTE",
    "summary": "MS AI SUMMARY",
    "pdf": "MS AI SUMMARY PDF",
    "probability": "MS AI PROBABILITY",
    "sr-comprehensive": "MS AI REPORT",
    "sr-enhanced": "MS AI REPORT",
})  # fmt: skip

REPORT_KINDS = ("sr", "sr-comprehensive", "sr-enhanced")
"""One report under three SOP classes, for archives that do not take the first; a destination takes one."""

USUAL_KINDS = frozenset({"seg", "sr", "overlay", "summary"})
"""What every reading makes, whatever the destinations take."""

SegmentationForm = Literal["lesions", "single", "labelmap"]
"""BINARY, one segment per lesion; BINARY, all lesions in one segment; LABELMAP, one segment per lesion."""


def segment_number(form: SegmentationForm, label: int) -> int:
    """The segment that holds the lesion with this label in a segmentation of this form."""
    return 1 if form == "single" else label


@dataclass(frozen=True)
class ResultRules:
    """What a site wants of the results.

    Attributes:
        kinds: which objects are made.
        segmentation: the form of "seg".
        mark_below: lesions of lower confidence are marked in every object.
        descriptions: Series Description by kind.
    """

    kinds: frozenset[str] = USUAL_KINDS
    segmentation: SegmentationForm = "lesions"
    mark_below: float = 0.0
    descriptions: Mapping[str, str] = field(default_factory=lambda: SERIES_DESCRIPTIONS)
