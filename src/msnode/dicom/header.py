"""A header without what cannot be parsed.

pydicom converts values when they are first asked for, so that a malformed one would show anywhere later, in
whatever happens to look at it. Here all are converted at once, and what is malformed counts as absent.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.errors import BytesLengthException
from pydicom.sequence import Sequence

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

_MALFORMED = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    UserWarning,
    ValueError,
    struct.error,
)
"""What pydicom raises on values that are not what their value representation says."""


def drop_malformed(dataset: Dataset) -> None:
    """Remove every element whose value cannot be parsed, in sequences too; the others are converted."""
    for tag in list(dataset.keys()):
        if not _is_readable(dataset, tag):
            del dataset[tag]


def _is_readable(dataset: Dataset, tag: BaseTag) -> bool:
    try:
        value = dataset[tag].value
    except _MALFORMED:
        return False
    if isinstance(value, Sequence):
        for item in value:
            drop_malformed(item)
        return True
    return not (dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ")
