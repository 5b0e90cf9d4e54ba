"""The one way to read a header: text, numbers, sequences, UIDs and the patient's key.

pydicom converts a value when it is first asked for, so that a malformed one raises anywhere later. Every
function here takes a malformed value for an absent one. `drop_malformed` does so for a whole header at once.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

import numpy as np
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as ItemSequence
from pydicom.tag import Tag

from msnode.dicom import library_settings
from msnode.dicom.character_sets import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset
    from pydicom.tag import BaseTag

library_settings.configure_pydicom()

PARSER_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    UserWarning,
    ValueError,
    struct.error,
)
"""What pydicom raises on bytes that are not what they claim to be."""

MALFORMED = (*PARSER_ERRORS, OSError)
"""The same for bytes in memory, where an OSError cannot come from a disk either."""

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+\Z")
_UID_LENGTH = 64


def drop_malformed(dataset: Dataset) -> frozenset[str]:
    """Remove every element whose value cannot be parsed, in sequences too, and convert all others.

    Returns:
        The keywords of what was removed, of items of sequences too; private elements have none.
    """
    removed: set[str] = set()
    for tag in list(dataset.keys()):
        if not _is_readable(dataset, tag, removed):
            del dataset[tag]
            removed.add(keyword_for_tag(tag))
    return frozenset(removed - {""})


def _is_readable(dataset: Dataset, tag: BaseTag, removed: set[str]) -> bool:
    try:
        found = dataset[tag].value
    except MALFORMED:
        return False
    if isinstance(found, ItemSequence):
        for item in found:
            removed |= drop_malformed(item)
        return True
    return not (dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")


def value(dataset: Dataset | None, attribute: str | BaseTag) -> object | None:
    """An attribute's value; None if it is absent, empty or malformed.

    Args:
        dataset: None has no attributes.
        attribute: keyword or tag. An unknown keyword is absent.
    """
    if dataset is None:
        return None
    try:
        tag = Tag(attribute)
        found = dataset[tag].value if tag in dataset else None
    except MALFORMED:
        return None
    return None if found in ("", None) else found


def texts(dataset: Dataset | None, attribute: str | BaseTag) -> tuple[str, ...]:
    """Each value of an attribute as text that can be stored (see `storable`); () if there is none."""
    found = value(dataset, attribute)
    if found is None:
        return ()
    several = found if isinstance(found, MultiValue | list) else [found]  # a list of binary numbers (FD)
    return tuple(storable(str(each)) for each in several if each is not None)


def text(dataset: Dataset | None, attribute: str | BaseTag) -> str:
    """An attribute as text, several values joined by a backslash; empty if there is none."""
    return "\\".join(texts(dataset, attribute))


def numbers(dataset: Dataset | None, keyword: str, count: int) -> NDArray[np.float64] | None:
    """The `count` finite numbers of an attribute; None if there are more, fewer, or other things."""
    found = value(dataset, keyword)
    if found is None:
        return None
    try:
        converted = np.atleast_1d(np.asarray(found, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        return None
    return converted if converted.shape == (count,) and bool(np.isfinite(converted).all()) else None


def number(dataset: Dataset | None, keyword: str) -> float | None:
    """One finite number, or None."""
    found = numbers(dataset, keyword, 1)
    return None if found is None else float(found[0])


def integer(dataset: Dataset | None, keyword: str) -> int | None:
    """One finite number, rounded towards zero, or None."""
    found = number(dataset, keyword)
    return None if found is None else int(found)


def items(dataset: Dataset | None, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence; empty if it is absent, empty or not a sequence."""
    found = value(dataset, keyword)
    return found if isinstance(found, ItemSequence) else ()


def patient_key(header: Dataset) -> tuple[str, str]:
    """(issuer of patient ID, patient ID), which tell patients apart together; either may be empty."""
    return text(header, "IssuerOfPatientID").strip(), text(header, "PatientID").strip()


def is_valid_uid(uid: str) -> bool:
    """Whether a text from anywhere is a UID of at least two components (PS3.5 9.1)."""
    return len(uid) <= _UID_LENGTH and _UID.match(uid) is not None
