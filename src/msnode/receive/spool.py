"""Makes one instance durable, then answers it.

The stored file is a Part 10 header and the data set exactly as the sender encoded it. Success is answered
only after the bytes are on the disk, under a name that the node chose, and recorded in the ledger.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from msnode import crash_points
from msnode.dicom.header import is_valid_uid
from msnode.dicom.uids import MR_IMAGE_CLASSES
from msnode.domain.arrivals import AssociationFacts
from msnode.errors import NotReadable, OutOfResources, StoredBytesChanged
from msnode.receive.command import file_meta
from msnode.receive.group_commit import GroupCommit
from msnode.receive.held import Disk
from msnode.receive.incoming import read_arrival, read_stored_arrival
from msnode.receive.request import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    Answer,
    Refused,
)
from msnode.store import Blob

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from msnode.domain.arrivals import Arrival
    from msnode.receive.ledger import Ledger
    from msnode.receive.request import StoreRequest
    from msnode.store import Store

log = structlog.get_logger()

_MARGIN_S = 3600
_BATCH = 500
_PREAMBLE = bytes(128) + b"DICM"


class Spool:
    """Puts instances into the store and the ledger.

    Args:
        store: keeps the bytes.
        ledger: records the arrivals.
        same_image: whether two files hold the same pixels in the same place; asked only if a known SOP
            Instance UID comes with other bytes.
        min_free_bytes: an instance that would leave less room on the disk is answered 0xA700.
        also_accept: SOP Class UIDs that are answered 0x0000 and discarded, so that senders can send whole
            studies.
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
        self.disk = Disk(store.temporary, min_free_bytes)
        self._store = store
        self._same_image = same_image
        self._min_free_bytes = min_free_bytes
        self._group_commit = GroupCommit(ledger)

    def receive(self, request: StoreRequest, facts: AssociationFacts) -> Answer:
        """Store, record and answer one C-STORE request of an association. Pixels are never decoded here."""
        sop_class, sop_instance = request.sop_class_uid, request.sop_instance_uid
        try:
            self._receive(request, facts)
            return Answer(SUCCESS)
        except Refused as refused:
            answer = refused.answer
        except NotReadable as error:
            answer = Answer(CANNOT_UNDERSTAND, str(error))
        except OutOfResources as error:
            log.error("instance_not_stored", error=error)  # noqa: TRY400 - a traceback adds nothing
            answer = Answer(OUT_OF_RESOURCES, "no room to store")
        except Exception:  # whatever happens is logged and answered
            log.exception("storing_failed", association_id=facts.association_id)
            answer = Answer(PROCESSING_FAILURE, "unexpected error")
        refusal = Refused(answer)
        log.warning(
            "instance_refused",
            status=f"0x{answer.status:04X}",
            error=refusal,
            sop_class_uid=sop_class if is_valid_uid(sop_class) else "invalid",
            sop_instance_uid=sop_instance if is_valid_uid(sop_instance) else "invalid",
            association_id=facts.association_id,
        )
        return answer

    def recover_unrecorded(self) -> int:
        """Record blobs that are durable but not recorded, because the power failed in between.

        Call it at start. The association of such a blob was interrupted as well, so its series waits until it
        is sent again.

        A power failure takes from the record what was written last. An instance is recorded within a minute
        after its blob was stored. Therefore a lost instance is not much older than the last one on record,
        and older blobs are not looked at.

        A blob that cannot be recorded is set aside, whatever the reason: it must not keep the node from
        starting.

        Returns:
            The number of instances recorded.

        Raises:
            OutOfResources: record or store cannot be used.
        """
        last = self.ledger.last_received_at()
        since = 0 if last is None else last.timestamp() - _MARGIN_S
        now = datetime.now(UTC)
        facts = AssociationFacts(f"lost-{now:%Y%m%d%H%M%S}", "", "", "", now)
        count = 0
        blobs = self._store.blobs(since=since)
        while digests := list(itertools.islice(blobs, _BATCH)):
            for digest in self.ledger.unrecorded(digests):
                count += self._record_again(digest, facts)
        return count

    def _record_again(self, digest: str, facts: AssociationFacts) -> int:
        try:
            arrival = read_stored_arrival(self._readable_blob(digest), facts)
            return self.ledger.add_lost(arrival.evolve(digest=digest))
        except OutOfResources:
            raise
        except Exception as error:  # noqa: BLE001 - see `recover_unrecorded`
            self._set_aside(digest, error)
            return 0

    def _readable_blob(self, digest: str) -> Path:
        try:
            return self._store.checked_blob(digest)
        except OutOfResources as error:  # perhaps of this file alone; if not, it cannot be moved either
            raise NotReadable("stored file cannot be read") from error

    def _set_aside(self, digest: str, why: Exception) -> None:
        """Log and audit that a blob is set aside, and do so.

        A record or a store that takes nothing at all raises here again.
        """
        log.error("stored_instance_set_aside", digest=digest, exc_info=why)
        self.ledger.set_aside(digest, move=lambda: self._store.set_aside(digest))

    def _receive(self, request: StoreRequest, facts: AssociationFacts) -> None:
        if request.sop_class_uid in self.also_accept:
            log.info(
                "instance_discarded", sop_class_uid=request.sop_class_uid, association_id=facts.association_id
            )
            return
        if request.sop_class_uid not in MR_IMAGE_CLASSES:
            raise Refused(Answer(SOP_CLASS_NOT_SUPPORTED, "SOP class not accepted"))
        if not is_valid_uid(request.sop_instance_uid):
            raise NotReadable("SOP Instance UID is invalid")
        if request.data is None:
            raise OutOfResources("no room for the data set while it came in")
        if self._store.free_bytes() - len(request.data) < self._min_free_bytes:
            raise OutOfResources(f"less than {self._min_free_bytes} bytes would be free")
        arrival = read_arrival(request.data, request.transfer_syntax_uid, facts)
        if arrival.sop_class_uid != request.sop_class_uid:
            raise Refused(Answer(DOES_NOT_MATCH, "SOP Class UID in data set differs from command"))
        if arrival.sop_instance_uid != request.sop_instance_uid:
            raise Refused(Answer(DOES_NOT_MATCH, "SOP Instance UID in data set differs from command"))
        crash_points.reach("instance-read", arrival.study_instance_uid)
        meta = file_meta(arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid)
        if request.file is None:
            blob = Blob(_PREAMBLE, meta, request.data)
        else:
            blob = Blob(_PREAMBLE, meta, file=request.file)
        self._keep(blob, arrival.evolve(digest=blob.digest))
        crash_points.reach("instance-recorded", arrival.study_instance_uid)

    def _keep(self, blob: Blob, arrival: Arrival) -> None:
        """Store and record. The known version may change meanwhile, and is then compared again."""

        def keep_bytes() -> None:
            if not self._store.has_blob(blob.digest):
                self._store.put(blob)

        self._store.put(blob)
        crash_points.reach("instance-stored", arrival.study_instance_uid)
        try:
            self._record(blob, arrival, keep_bytes)
        except (Refused, OutOfResources):
            raise
        except Exception:  # recorded or removed: nothing could record these bytes later
            self.ledger.drop_unrecorded(arrival, drop_bytes=lambda: self._store.remove(blob.digest))
            raise

    def _record(self, blob: Blob, arrival: Arrival, keep_bytes: Callable[[], None]) -> None:
        while (known := self._group_commit.add(arrival, keep_bytes)) is not None:
            if not self._shows_the_same(known, blob.digest):
                self.ledger.refuse(arrival, known, drop_bytes=lambda: self._store.remove(blob.digest))
                raise Refused(
                    Answer(CANNOT_UNDERSTAND, "SOP Instance UID known with other pixels or geometry")
                )
            arrival = arrival.evolve(replaces=known)

    def _shows_the_same(self, known: str, new: str) -> bool:
        """Whether new bytes show the same image as known bytes.

        Also where retention has removed the known ones, or they have changed in the store.
        """
        try:
            return not self._store.has_blob(known) or self._same_image(
                self._store.checked_blob(known), self._store.blob_path(new)
            )
        except StoredBytesChanged as error:
            self._set_aside(known, error)
            return True
        except OSError as error:
            raise OutOfResources(f"cannot compare with the known version: {error.strerror}") from error
