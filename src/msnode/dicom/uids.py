"""How the node names itself and what it makes: its manufacturer's name and derived UIDs."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

EQUIPMENT = "msnode"
"""Manufacturer and model name in Contributing Equipment: by it every node knows results as results."""


def derive_uid(*parts: str) -> str:
    """A UID that depends on the parts alone: 2.25.<128 bits of SHA-256> (PS3.5 B.2), at most 44 characters.

    The parts are encoded as a JSON array, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def is_own(header: Dataset) -> bool:
    """Whether a node made the object: Contributing Equipment (0018,A001) names it."""
    return any(_manufacturer(item) == EQUIPMENT for item in header.get("ContributingEquipmentSequence") or ())


def _manufacturer(item: Dataset) -> str:
    try:
        return str(item.get("Manufacturer") or "").strip().lower()
    except (ValueError, TypeError, OverflowError, NotImplementedError):
        return ""  # pydicom converts lazily: a malformed value shows only now, and is not ours
