"""UIDs: SOP classes that several rooms need, and UIDs that the node derives for what it makes."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from pydicom.uid import UID, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from msnode.dicom.header import items, text

if TYPE_CHECKING:
    from pydicom import Dataset

EQUIPMENT = "msnode"
"""Manufacturer and model name in Contributing Equipment. By it, every node recognises results."""

ENHANCED_MR_CLASSES = frozenset({EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage})
"""SOP classes with several frames, whose geometry stands in functional groups."""

MR_IMAGE_CLASSES = frozenset({MRImageStorage, *ENHANCED_MR_CLASSES})
"""SOP classes of MR images, which the node keeps and reads."""

LABEL_MAP_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")
"""Label Map Segmentation Storage (supplement 243). pydicom's dictionary does not know it yet."""


def sop_class_name(sop_class_uid: str) -> str:
    """The name of a SOP class (PS3.6 Table A-1), or its UID if that is not known."""
    if sop_class_uid == LABEL_MAP_STORAGE:
        return "Label Map Segmentation Storage"
    return str(UID(sop_class_uid).name)


def derive_uid(*parts: str) -> str:
    """A UID that depends on the parts alone: 2.25.<128 bits of SHA-256> (PS3.5 B.2), at most 44 characters.

    The parts are encoded as a JSON array, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def is_own(header: Dataset) -> bool:
    """Whether a node made the object: Contributing Equipment (0018,A001) names it."""
    equipment = items(header, "ContributingEquipmentSequence")
    return any(text(item, "Manufacturer").strip().lower() == EQUIPMENT for item in equipment)
