"""How the node names itself and what it makes: its manufacturer's name and derived UIDs."""

from __future__ import annotations

import hashlib
import json

EQUIPMENT = "msnode"
"""Manufacturer and model name in Contributing Equipment: by it every node knows results as results."""


def derive_uid(*parts: str) -> str:
    """A UID that depends on the parts alone: 2.25.<128 bits of SHA-256> (PS3.5 B.2), at most 44 characters.

    The parts are encoded as a JSON array, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
