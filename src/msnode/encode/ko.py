"""The rejection note (Key Object Selection Document, PS3.3 A.35.4; PS3.16 TID 2010).

By it an archive that follows IHE RAD Imaging Object Change Management stops showing the results of a former
revision. It stands in their study and under their identity, whatever the study is called today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, SegmentationStorage

from msnode.dicom.uids import EQUIPMENT
from msnode.domain.provenance import Output
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.kinds import SERIES_DESCRIPTIONS
from msnode.encode.normalise import tolerant_values
from msnode.encode.provenance import ResultIdentity, stamp
from msnode.encode.stand_ins import stand_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.dataset import Dataset

    from msnode.domain.provenance import Provenance
    from msnode.encode.provenance import Replaced, SentObject

_KIND = "ko"
_IMAGES = {SegmentationStorage, SecondaryCaptureImageStorage}
_NOT_IN_A_NOTE = {"FrameOfReferenceUID", "RequestAttributesSequence"}
"""Inherited attributes that have no place in this IOD, which has no geometry and is not requested."""


def encode_rejection_note(
    replaced: Replaced,
    identity_digest: str,
    provenance: Provenance,
    *,
    descriptions: Mapping[str, str] = SERIES_DESCRIPTIONS,
) -> Output:
    """Reject what destinations have of a former revision.

    The title is Rejected for Patient Safety Reasons (113037) where those objects bear another identity than
    the new ones, else Rejected for Quality Reasons (113001): the reading was of another series, or of a part.

    Args:
        replaced: the former revision's objects.
        identity_digest: `NormalisedHeader.identity_digest` of the results that replace them.
        provenance: of those results.
        descriptions: Series Description by kind.

    Returns:
        An output of kind "ko".
    """
    identity = ResultIdentity.of_rejection_note(replaced, identity_digest, provenance, descriptions)
    other = replaced.header.identity_digest != identity_digest
    why = "patient, study or order has changed" if other else "the images have changed"
    device = DeviceObserverIdentifyingAttributes(
        uid=identity.device_uid, name=EQUIPMENT, manufacturer_name=EQUIPMENT, model_name=EQUIPMENT
    )
    evidence = [_stand_in(sent, str(identity.header.dataset.StudyInstanceUID)) for sent in replaced.objects]
    with tolerant_values():
        content = KeyObjectSelection(
            document_title=codes.REJECTED_FOR_SAFETY if other else codes.REJECTED_FOR_QUALITY,
            referenced_objects=evidence,
            observer_device_context=ObserverContext(concept(codes.DEVICE), device),
            description=f"Results of revision {replaced.revision}: {why}. "
            f"Revision {provenance.revision} replaces them.",
        )
        ds = KeyObjectSelectionDocument(
            evidence=evidence,
            content=content,
            series_instance_uid=identity.series_uid(_KIND),
            series_number=identity.series_number(_KIND),
            sop_instance_uid=identity.instance_uid(_KIND),
            instance_number=1,
            manufacturer=EQUIPMENT,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            specific_character_set="ISO_IR 192",
        )
        ds.ContinuityOfContent = "SEPARATE"
        stamp(ds, _KIND, identity)
        for keyword in _NOT_IN_A_NOTE & set(ds.dir()):
            delattr(ds, keyword)
    return Output(kind=_KIND, dataset=ds)


def _stand_in(sent: SentObject, study_instance_uid: str) -> Dataset:
    ds = stand_in(study_instance_uid, sent.series_instance_uid, sent.sop_class_uid, sent.sop_instance_uid)
    if sent.sop_class_uid in _IMAGES:
        ds.Rows = ds.Columns = 1  # by these the library tells an image from another object
    return ds
