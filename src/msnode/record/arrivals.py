"""Received instances: the receiver's side of the record."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from msnode.errors import OutOfResources
from msnode.record import audit, schema
from msnode.record.database import clock_skew, lock
from msnode.record.filing import file_batch, unrecorded_of
from msnode.record.studies import study_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from msnode.domain.arrivals import Arrival, AssociationFacts
    from msnode.record.database import Database, Transaction

_I = schema.instance
_SERIES = schema.series
_STUDY = schema.study
_A = schema.association
_TRIES = 5


@dataclass(frozen=True)
class StoredInstance:
    """The latest version of one SOP instance.

    Attributes:
        digest: SHA-256 of its bytes, which names them in the store.
        removed_at: when retention removed the bytes, UTC; None where they are there.
    """

    sop_instance_uid: str
    series_instance_uid: str
    digest: str
    removed_at: datetime | None = None


class Arrivals:
    """Records what receivers get; every method is one transaction and may be called from any thread.

    Args:
        database: the record.
        receiver: executor id of the process whose associations are recorded.

    Raises:
        OutOfResources: from every method, where the database cannot be used.
    """

    def __init__(self, database: Database, receiver: str = "") -> None:
        self._database = database
        self._receiver = receiver

    def association_opened(self, facts: AssociationFacts) -> None:
        """Record that a peer opened an association."""
        row = _A.insert().values(
            association_id=facts.association_id,
            calling_ae=facts.calling_ae,
            called_ae=facts.called_ae,
            address=facts.address,
            receiver=self._receiver,
        )
        with self._database.write(durable=False) as tx:
            tx.execute(row.values(opened_at=facts.opened_at + clock_skew(tx)))

    def association_closed(self, association_id: str, *, released: bool, at: datetime) -> None:
        """Record the end of an association, by release or otherwise (abort, lost connection).

        Every instance recorded before is durable in the record when this returns.

        Args:
            association_id: see `AssociationFacts`.
            released: whether the peer released it.
            at: UTC, by this machine's clock.
        """
        which = _A.c.association_id == association_id
        with self._database.write() as tx:
            change = _A.update().where(which)
            tx.execute(change.values(closed_at=at + clock_skew(tx), released=released))

    def close_open_associations(self, receiver: str, *, at: datetime) -> int:
        """Record that a dead receiver's open associations were interrupted; returns their number.

        Includes associations without a receiver, which earlier versions recorded.
        """
        still_open = _A.c.closed_at.is_(None) & ((_A.c.receiver == receiver) | _A.c.receiver.is_(None))
        with self._database.write() as tx:
            change = _A.update().where(still_open)
            return tx.execute(change.values(closed_at=at + clock_skew(tx), released=False)).rowcount

    def open_receivers(self) -> frozenset[str]:
        """Executor ids of receivers with open associations, alive or dead."""
        query = (
            sa.select(_A.c.receiver).distinct().where(_A.c.closed_at.is_(None), _A.c.receiver.is_not(None))
        )
        with self._database.read() as tx:
            return frozenset(tx.execute(query).scalars())

    def add(
        self, *arrivals: Arrival, keep_bytes: Callable[[Arrival], None] = lambda _: None
    ) -> Mapping[str, str]:
        """Record instances whose bytes are durable, all or none of them.

        Bytes that are the latest version of an instance already add no row. They count as activity of the
        series, and undo a removal by retention. Other bytes become the latest version of the instance. New
        content that no node made needs a job in `receiving`: the present one, or else the next revision.

        On SQLite a power cut may lose the rows until the next durable commit, at the latest the one that
        closes the association; `unrecorded` finds the blobs to add again. A row that replaces a version is
        durable when this returns.

        Args:
            arrivals: the instances; no two of one SOP Instance UID.
            keep_bytes: called in the transaction before an arrival of a known instance is recorded. Retention
                may have removed the bytes since they were stored; from here on it cannot.

        Returns:
            SOP Instance UID → digest of the latest version, for each arrival that was not recorded because it
            must be compared with that version first; see `Arrival.replaces`.
        """
        durable = any(a.replaces for a in arrivals)
        for _ in range(_TRIES):
            try:
                with self._database.write(durable=durable) as tx:
                    return file_batch(tx, _by_common_clock(tx, arrivals), keep_bytes)
            except sa.exc.IntegrityError:
                continue  # another receiver recorded the same instance under another study meanwhile
        raise _outrun()

    def refuse(self, arrival: Arrival, known: str, *, drop_bytes: Callable[[], None]) -> None:
        """Audit that an instance was refused, because its pixels differ from those of a known version.

        Args:
            arrival: the refused instance.
            known: digest of the version that it was compared with.
            drop_bytes: called in the transaction where no version of any instance has these bytes. No version
                can get them before the transaction ends.
        """
        with self._database.write() as tx:
            lock(tx, study_lock(arrival.study_instance_uid))
            facts = {
                "sop_instance_uid": arrival.sop_instance_uid,
                "known_digest": known,
                "new_digest": arrival.digest,
                "association": arrival.association_id,
            }
            audit.append(tx, "instance_refused_other_pixels", at=arrival.received_at, facts=facts)
            _drop_unrecorded(tx, arrival, drop_bytes)

    def drop_unrecorded(self, arrival: Arrival, *, drop_bytes: Callable[[], None]) -> None:
        """Call `drop_bytes`, as `refuse` does, for an instance that could not be recorded."""
        with self._database.write() as tx:
            lock(tx, study_lock(arrival.study_instance_uid))
            _drop_unrecorded(tx, arrival, drop_bytes)

    def set_aside(self, digest: str, *, move: Callable[[], None]) -> None:
        """Audit that stored bytes cannot be recorded; `move` is called in the transaction."""
        with self._database.write() as tx:
            audit.append(tx, "stored_instance_set_aside", at=datetime.now(UTC), facts={"digest": digest})
            move()

    def add_lost(self, *arrivals: Arrival) -> int:
        """Record those of the instances that the record has lost; returns their number.

        What another receiver has recorded meanwhile stays as it is.
        """
        for _ in range(_TRIES):
            with suppress(sa.exc.IntegrityError), self._database.write() as tx:  # see `add`
                missing = unrecorded_of(tx, [a.digest for a in arrivals])
                lost = [a for a in arrivals if a.digest in missing]
                return len(lost) - len(file_batch(tx, _by_common_clock(tx, lost), lambda _: None))
        raise _outrun()

    def unrecorded(self, digests: Sequence[str]) -> frozenset[str]:
        """Those of at most some hundred digests that no version of any instance has."""
        with self._database.read() as tx:
            return unrecorded_of(tx, digests)

    def last_received_at(self) -> datetime | None:
        """When the most recently recorded instance arrived, UTC; None where there is none."""
        query = sa.select(_I.c.received_at).order_by(_I.c.id.desc()).limit(1)
        with self._database.read() as tx:
            return tx.execute(query).scalar()

    def study_instances(self, study_instance_uid: str) -> tuple[StoredInstance, ...]:
        """The latest version of every instance of the study that no node made."""
        with self._database.read() as tx:
            query = (
                sa.select(_I.c.sop_instance_uid, _SERIES.c.series_instance_uid, _I.c.digest, _I.c.removed_at)
                .join_from(_I, _SERIES)
                .join(_STUDY)
                .where(_STUDY.c.study_instance_uid == study_instance_uid)
                .where(_I.c.superseded.is_(False), _I.c.own.is_(False))
                .order_by(_I.c.id)
            )
            return tuple(StoredInstance(*row) for row in tx.execute(query))


def _outrun() -> OutOfResources:
    return OutOfResources(
        f"instances were not recorded in {_TRIES} tries: other receivers record the same ones"
    )


def _by_common_clock(tx: Transaction, arrivals: Iterable[Arrival]) -> list[Arrival]:
    """The arrivals with the times at which they came by the server's clock; see `clock_skew`."""
    skew = clock_skew(tx)
    return [replace(a, received_at=a.received_at + skew) if skew else a for a in arrivals]


def _drop_unrecorded(tx: Transaction, arrival: Arrival, drop_bytes: Callable[[], None]) -> None:
    if unrecorded_of(tx, [arrival.digest]):
        drop_bytes()
