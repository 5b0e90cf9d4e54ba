"""Presentation contexts (PS3.8 7.1.1.13): what is proposed to a peer."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import UID, ImplicitVRLittleEndian

from msnode.dicom import commitment
from msnode.dicom.uids import sop_class_name


@dataclass(frozen=True)
class Context:
    """One SOP class in one transfer syntax, both as UIDs."""

    sop_class_uid: str
    transfer_syntax_uid: str

    def __str__(self) -> str:
        return f"{sop_class_name(self.sop_class_uid)} in {UID(self.transfer_syntax_uid).name}"


VERIFICATION = Context("1.2.840.10008.1.1", ImplicitVRLittleEndian)
COMMITMENT = Context(commitment.SOP_CLASS_UID, ImplicitVRLittleEndian)
FIND = Context("1.2.840.10008.5.1.4.1.2.2.1", ImplicitVRLittleEndian)
"""Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2)."""
