"""Where a result comes from: derived UIDs, series numbers, equipment, and what every object shares.

Nothing here looks at the clock or at random numbers: the same source, provenance and kind of object give
the same UIDs and the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from msnode.dicom.planes import is_enhanced
from msnode.dicom.uids import EQUIPMENT, derive_uid
from msnode.encode import codes
from msnode.encode.codes import concept
from msnode.encode.kinds import KIND_NUMBERS, SERIES_DESCRIPTIONS
from msnode.encode.normalise import legal_value, normalise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from msnode.domain.imaging import Frame, Instance, SourceVolume
    from msnode.domain.provenance import Provenance
    from msnode.encode.normalise import NormalisedHeader

_FIRST_SERIES_NUMBER = 9800
_LONG_STRING = 64
_SHORT_TEXT = 1024


def series_uid_of(sop_instance_uid: str) -> str:
    """The series of a result that is alone in its series (SEG, SR).

    Derived from the instance, so that the predecessor of a revision can be referenced completely when
    only its SOP Instance UID was recorded.
    """
    return derive_uid("series of", sop_instance_uid)


@dataclass(frozen=True)
class SentObject:
    """A result object that a destination has."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, eq=False)
class Replaced:
    """What destinations have of a former revision.

    Attributes:
        revision: its number.
        header: the identity under which its objects were sent.
        objects: at least one.
    """

    revision: int
    header: NormalisedHeader
    objects: tuple[SentObject, ...]


@dataclass(frozen=True, eq=False)
class ResultIdentity:
    """Everything that results of one reading share.

    Attributes:
        key: digest over all that makes the result: source instances, pixels, geometry, identity of
            patient and study, bundle, settings, version, runtime, revision.
        header: what is inherited from the source.
        provenance: the recorded circumstances.
        descriptions: Series Description by kind.
    """

    key: str
    header: NormalisedHeader
    provenance: Provenance
    descriptions: Mapping[str, str]

    @classmethod
    def of_reading(
        cls,
        source: SourceVolume,
        provenance: Provenance,
        descriptions: Mapping[str, str] = SERIES_DESCRIPTIONS,
    ) -> ResultIdentity:
        """The identity of the results of a volume that was read."""
        header = normalise(source.frames[0].instance.header)
        return cls(_key([source.image_digest], header, provenance), header, provenance, descriptions)

    @classmethod
    def of_rejection(
        cls,
        instances: Sequence[Instance],
        reason: str,
        provenance: Provenance,
        descriptions: Mapping[str, str] = SERIES_DESCRIPTIONS,
    ) -> ResultIdentity:
        """The identity of the report on input that could not be read; one a study and reason."""
        clean = normalise(instances[0].header)
        content = [sorted({i.digest for i in instances}), reason]
        return cls(_key(content, clean, provenance), clean, provenance, descriptions)

    @classmethod
    def of_rejection_note(
        cls,
        replaced: Replaced,
        identity_digest: str,
        provenance: Provenance,
        descriptions: Mapping[str, str] = SERIES_DESCRIPTIONS,
    ) -> ResultIdentity:
        """The identity of the note that rejects what a former revision left: that of what it rejects."""
        uids = sorted(o.sop_instance_uid for o in replaced.objects)
        content = ["rejection note", replaced.revision, uids, identity_digest]
        return cls(_key(content, replaced.header, provenance), replaced.header, provenance, descriptions)

    def instance_uid(self, kind: str, number: int = 1) -> str:
        """SOP Instance UID of the `number`-th object of a kind."""
        return derive_uid("instance", self.key, kind, str(number))

    def series_uid(self, kind: str) -> str:
        """Series Instance UID of a kind."""
        return series_uid_of(self.instance_uid(kind))

    def uid(self, purpose: str) -> str:
        """A further UID of this reading, such as that of a dimension organization."""
        return derive_uid("result", self.key, purpose)

    @property
    def device_uid(self) -> str:
        """Device Observer UID: this software with this bundle."""
        model = self.provenance.model
        return derive_uid("device", self.provenance.msnode_version, model.sha256 if model else "")

    def series_number(self, kind: str) -> int:
        """9800 + 10 x revision + kind, moved on by tens while the study already uses one of the ten."""
        base = _FIRST_SERIES_NUMBER + 10 * self.provenance.revision
        known = self.provenance.known_series_numbers
        while any(base + n in known for n in KIND_NUMBERS.values()):
            base += 10
        return base + KIND_NUMBERS[kind]

    def series_description(self, kind: str) -> str:
        """Series Description; a revision says which one it replaces."""
        revision = self.provenance.revision
        suffix = f" rev {revision}, replaces rev {revision - 1}" if revision else ""
        return self.descriptions[kind][: _LONG_STRING - len(suffix)] + suffix

    @property
    def started_at(self) -> datetime:
        """The job's start in the time zone that the object's times are in.

        Where the source states a Timezone Offset From UTC it also rules our own dates and times
        (PS3.3 C.12.1.1.8); elsewhere the zone of the recorded start is kept.
        """
        started = self.provenance.started_at
        match = re.fullmatch(
            r"([+-])(\d{2})(\d{2})", str(self.header.dataset.get("TimezoneOffsetFromUTC") or "")
        )
        if match is None or started.tzinfo is None:
            return started
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return started.astimezone(timezone(-offset if match[1] == "-" else offset))


def _key(content: list[Any], header: NormalisedHeader, provenance: Provenance) -> str:
    model = provenance.model
    made_by = [
        model.sha256 if model else "",
        provenance.settings_digest,
        provenance.msnode_version,
        provenance.runtime,
        provenance.revision,
    ]
    return hashlib.sha256(json.dumps([content, header.identity_digest, made_by]).encode()).hexdigest()


def reference(frame: Frame) -> Dataset:
    """An item that references a source plane (PS3.3 Table 10-3, Image SOP Instance Reference)."""
    item = Dataset()
    item.ReferencedSOPClassUID = frame.instance.sop_class_uid
    item.ReferencedSOPInstanceUID = frame.instance.sop_instance_uid
    if is_enhanced(frame.instance.header):
        item.ReferencedFrameNumber = frame.frame_number
    return item


def inherit_lossy_compression(ds: Dataset, source: SourceVolume) -> None:
    """What once was compressed with loss stays marked so for ever (PS3.3 C.7.6.1.1.5)."""
    for frame in source.frames:
        header = frame.instance.header
        if header.get("LossyImageCompression") == "01":
            ds.LossyImageCompression = "01"
            for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
                value = legal_value(header, keyword)
                if value:
                    setattr(ds, keyword, value)
            return


def new_object(sop_class_uid: str, kind: str, identity: ResultIdentity, number: int = 1) -> Dataset:
    """A result object with its class, its instance and its series, and nothing else yet."""
    ds = Dataset()
    ds.SOPClassUID = UID(sop_class_uid)
    ds.SOPInstanceUID = UID(identity.instance_uid(kind, number))
    ds.SeriesInstanceUID = UID(identity.series_uid(kind))
    ds.InstanceNumber = number
    return ds


def stamp(ds: Dataset, kind: str, identity: ResultIdentity) -> None:
    """Set what every object has alike: identity, series, equipment, dates, character set, file meta.

    Overwrites what a library put there from its own clock.
    """
    for element in identity.header.dataset:
        ds.add(element)
    started = identity.started_at
    date, time = started.strftime("%Y%m%d"), started.strftime("%H%M%S.%f")
    for event in ("InstanceCreation", "Series", "Content"):
        setattr(ds, f"{event}Date", date)
        setattr(ds, f"{event}Time", time)
    ds.SeriesNumber = identity.series_number(kind)
    ds.SeriesDescription = identity.series_description(kind)
    provenance = identity.provenance
    ds.Manufacturer = ds.ManufacturerModelName = EQUIPMENT
    ds.SoftwareVersions = provenance.msnode_version[:_LONG_STRING]
    if provenance.model is not None:
        ds.DeviceSerialNumber = provenance.model.sha256
    ds.ContributingEquipmentSequence = [_equipment(identity)]
    ds.file_meta = _file_meta(ds, provenance.msnode_version)


def _equipment(identity: ResultIdentity) -> Dataset:
    """Contributing Equipment (PS3.3 C.12.1.1.5): what made this object, and from which bundle."""
    provenance = identity.provenance
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [concept(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = item.ManufacturerModelName = EQUIPMENT
    item.SoftwareVersions = provenance.msnode_version[:_LONG_STRING]
    item.ContributionDateTime = identity.started_at.strftime("%Y%m%d%H%M%S.%f%z")
    item.ContributionDescription = describe(provenance)[:_SHORT_TEXT]
    return item


def describe(provenance: Provenance) -> str:
    """One line: bundle, runtime and settings, each with its digest."""
    model = provenance.model
    bundle = f"bundle {model.name} {model.version} SHA-256 {model.sha256}" if model else "no bundle"
    return (
        f"Lesion segmentation: {bundle}; runtime {provenance.runtime}; "
        f"settings SHA-256 {provenance.settings_digest}"
    )


def _file_meta(ds: Dataset, version: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derive_uid("implementation", EQUIPMENT))
    meta.ImplementationVersionName = f"MSNODE_{version}"[:16]
    return meta
