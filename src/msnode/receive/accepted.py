"""What the listener accepts: SOP classes and transfer syntaxes (PS3.4 Annex B)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import sop_class
from pynetdicom.service_class import StorageServiceClass

from msnode.dicom.header import is_valid_uid
from msnode.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEGLSNearLossless,  # lossy ones are read with a warning in the result
    JPEG2000,
)
"""Transfer syntaxes in which an image is accepted."""


def sop_class_uids(names: Sequence[str]) -> frozenset[str]:
    """SOP Class UIDs from UIDs or keywords such as SecondaryCaptureImageStorage.

    Raises:
        ConfigurationError: a name is not a storage SOP class that the standard knows.
    """
    uids = set()
    for name in names:
        uid = name if is_valid_uid(name) else str(getattr(sop_class, name, ""))
        if not uid or sop_class.uid_to_service_class(uid) is not StorageServiceClass:
            raise ConfigurationError(
                f"also_accept: {name!r} is not a storage SOP class: give the keyword or UID of one"
            )
        uids.add(uid)
    return frozenset(uids)
