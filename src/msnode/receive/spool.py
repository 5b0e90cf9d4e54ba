"""One instance made durable, then answered.

The file that is stored is Part 10 header plus the data set exactly as it was encoded by the sender.
Success is answered only after the bytes are on disk under a name of our own and the ledger has them.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import structlog
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage
from pynetdicom.dsutils import encode_file_meta

from msnode.domain import Arrival, AssociationFacts
from msnode.errors import MsnodeError, NotReadable, OutOfResources
from msnode.receive.incoming import read_filing, read_filing_of_file, valid_uid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event

    from msnode.receive.incoming import Filing
    from msnode.store import Store

log = structlog.get_logger()

READ_CLASSES = frozenset({MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage})
"""SOP classes that are kept."""

SUCCESS = 0x0000
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
_LOCKS = 64
_PREAMBLE = bytes(128) + b"DICM"


@dataclass(frozen=True)
class Answer:
    """A C-STORE response: status (PS3.4 B.2.3) and Error Comment (0000,0902), at most 64 characters."""

    status: int
    comment: str = ""


class Refused(MsnodeError):
    """Ends the handling of one instance with this answer; the comment is ours and names no patient."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.comment)
        self.answer = answer


class Ledger(Protocol):
    """Where arrivals are recorded; called from several threads.

    `add` is called for every instance of a kept class that is answered 0x0000, a re-send of the same
    bytes included: it shows that the series was sent again after an interruption.

    Raises:
        OutOfResources: from every method, where the record cannot be written.
    """

    def association_opened(self, facts: AssociationFacts) -> None:
        """A peer opened an association."""

    def association_closed(self, association_id: str, *, released: bool, at: datetime) -> None:
        """It ended, by release or otherwise (abort, lost connection)."""

    def latest_digest(self, sop_instance_uid: str) -> str | None:
        """Digest of the latest version of this instance, or None where it never came."""

    def is_output(self, sop_instance_uid: str) -> bool:
        """Whether this node made the object."""

    def add(self, arrival: Arrival) -> None:
        """Record an instance whose bytes are durable."""

    def audit(self, event: str, *, at: datetime, **facts: str | int) -> None:
        """Add a line to the audit trail; UIDs and numbers only."""


class MemoryLedger:
    """A ledger for tests: keeps what it was told, in order."""

    def __init__(self) -> None:
        self.opened: list[AssociationFacts] = []
        self.closed: dict[str, bool] = {}
        self.arrivals: list[Arrival] = []
        self.audited: list[tuple[str, dict[str, str | int]]] = []
        self.outputs: set[str] = set()
        self.changed = threading.Condition()

    def association_opened(self, facts: AssociationFacts) -> None:
        """Keep it."""
        self.opened.append(facts)

    def association_closed(self, association_id: str, *, released: bool, at: datetime) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep it, and wake up whoever waits on `changed`."""
        with self.changed:
            self.closed[association_id] = released
            self.changed.notify_all()

    def latest_digest(self, sop_instance_uid: str) -> str | None:
        """The last one added."""
        found = [a.digest for a in self.arrivals if a.sop_instance_uid == sop_instance_uid]
        return found[-1] if found else None

    def is_output(self, sop_instance_uid: str) -> bool:
        """Whether the test put it into `outputs`."""
        return sop_instance_uid in self.outputs

    def add(self, arrival: Arrival) -> None:
        """Keep it, and wake up whoever waits on `changed`."""
        with self.changed:
            self.arrivals.append(arrival)
            self.changed.notify_all()

    def audit(self, event: str, *, at: datetime, **facts: str | int) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep it."""
        self.audited.append((event, facts))


class Spool:
    """Takes data sets from associations into the store and the ledger.

    Args:
        store: where bytes go.
        ledger: where arrivals go.
        same_image: whether two files hold the same pixels in the same place; asked only where a known
            SOP Instance UID comes with other bytes.
        min_free_bytes: with less room than this after storing, 0xA700 is answered.
        also_accept: SOP Class UIDs answered 0x0000 and discarded, so that senders can send whole studies.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        *,
        same_image: Callable[[Path, Path], bool],
        min_free_bytes: int,
        also_accept: frozenset[str] = frozenset(),
    ) -> None:
        self.ledger = ledger
        self.also_accept = also_accept
        self._store = store
        self._same_image = same_image
        self._min_free_bytes = min_free_bytes
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def receive(self, event: Event, facts: AssociationFacts) -> Answer:
        """Take one C-STORE request; the data set is never decoded here.

        Args:
            event: pynetdicom's EVT_C_STORE.
            facts: the association it came on.
        """
        request = cast("C_STORE", event.request)
        sop_class, sop_instance = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        try:
            self._receive(event, facts, sop_class, sop_instance)
            return Answer(SUCCESS)
        except Refused as refused:
            answer = refused.answer
        except NotReadable as error:
            answer = Answer(CANNOT_UNDERSTAND, str(error))
        except OutOfResources as error:
            log.error("instance_not_stored", error=error)  # noqa: TRY400 - the error says it all
            answer = Answer(OUT_OF_RESOURCES, "no room to store")
        refusal = Refused(answer)
        log.warning(
            "instance_refused",
            status=f"0x{answer.status:04X}",
            error=refusal,
            sop_class_uid=sop_class if valid_uid(sop_class) else "invalid",
            sop_instance_uid=sop_instance if valid_uid(sop_instance) else "invalid",
            association_id=facts.association_id,
        )
        return answer

    def index_again(self, known_digests: Collection[str]) -> int:
        """At start: record blobs that were made durable but never recorded, because power failed in between.

        Their association was cut off as well, so that their series waits until it is sent again.

        Returns:
            How many there were.
        """
        lost = [digest for digest in self._store.blobs() if digest not in known_digests]
        now = datetime.now(UTC)
        facts = AssociationFacts(f"lost-{now:%Y%m%d%H%M%S}", "", "", "", now)
        for digest in lost:
            filing, syntax = read_filing_of_file(self._store.blob_path(digest))
            self.ledger.add(self._arrival(digest, filing, syntax, facts))
        return len(lost)

    def _receive(self, event: Event, facts: AssociationFacts, sop_class: str, sop_instance: str) -> None:
        if sop_class in self.also_accept:
            log.info("instance_discarded", sop_class_uid=sop_class, association_id=facts.association_id)
            return
        if sop_class not in READ_CLASSES:
            raise Refused(Answer(SOP_CLASS_NOT_SUPPORTED, "SOP class not accepted"))
        if not valid_uid(sop_instance):
            raise NotReadable("SOP Instance UID is invalid")
        data = event.encoded_dataset(include_meta=False)
        if self._store.free_bytes() - len(data) < self._min_free_bytes:
            raise OutOfResources(f"less than {self._min_free_bytes} bytes would be free")
        syntax = str(event.context.transfer_syntax)
        filing = read_filing(data, syntax)
        if filing.sop_class_uid != sop_class:
            raise Refused(Answer(DOES_NOT_MATCH, "SOP Class UID in data set differs from command"))
        if filing.sop_instance_uid != sop_instance:
            raise Refused(Answer(DOES_NOT_MATCH, "SOP Instance UID in data set differs from command"))
        parts = (_PREAMBLE, encode_file_meta(event.file_meta), data)
        with self._locks[hash(sop_instance) % _LOCKS]:  # one instance at a time from several associations
            if not self._is_version_of(parts, sop_instance, facts):
                raise Refused(
                    Answer(CANNOT_UNDERSTAND, "SOP Instance UID known with other pixels or geometry")
                )
            digest = self._store.put(*parts)
            self.ledger.add(self._arrival(digest, filing, syntax, facts))

    def _is_version_of(self, parts: tuple[bytes, ...], sop_instance: str, facts: AssociationFacts) -> bool:
        """Whether the bytes may stand under this UID: new, known, or the same image with another header."""
        known = self.ledger.latest_digest(sop_instance)
        if known is None or not self._store.blob_path(known).exists():  # bytes may have been removed by age
            return True
        hasher = hashlib.sha256()
        for part in parts:
            hasher.update(part)
        if hasher.hexdigest() == known:
            return True
        try:
            with tempfile.NamedTemporaryFile(dir=self._store.root / "tmp") as file:
                file.writelines(parts)
                file.flush()
                same = self._same_image(self._store.blob_path(known), Path(file.name))
        except OSError as error:
            raise OutOfResources(f"cannot compare with the known version: {error.strerror}") from error
        self.ledger.audit(
            "instance_new_version" if same else "instance_refused_other_pixels",
            at=datetime.now(UTC),
            sop_instance_uid=sop_instance,
            known_digest=known,
            new_digest=hasher.hexdigest(),
            association=facts.association_id,
        )
        return same

    def _arrival(self, digest: str, filing: Filing, syntax: str, facts: AssociationFacts) -> Arrival:
        return Arrival(
            digest=digest,
            sop_class_uid=filing.sop_class_uid,
            sop_instance_uid=filing.sop_instance_uid,
            series_instance_uid=filing.series_instance_uid,
            study_instance_uid=filing.study_instance_uid,
            transfer_syntax_uid=syntax,
            modality=filing.modality,
            patient_key=filing.patient_key,
            slice_position_mm=filing.slice_position_mm,
            frame_count=filing.frame_count,
            own=filing.own or self.ledger.is_output(filing.sop_instance_uid),
            association_id=facts.association_id,
            received_at=datetime.now(UTC),
        )
