"""What came in: the ledger that the receiver writes and the assembler reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.domain import SeriesArrivals, StudyArrivals
from msnode.record import audit, jobs, schema
from msnode.record.database import insert
from msnode.record.jobs import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from msnode.domain import Arrival, AssociationFacts
    from msnode.record.audit import Fact
    from msnode.record.database import Database, Transaction

_I = schema.instance
_SERIES = schema.series
_STUDY = schema.study


@dataclass(frozen=True)
class StoredInstance:
    """The latest version of one SOP instance; `digest` names its bytes in the store."""

    sop_instance_uid: str
    series_instance_uid: str
    digest: str


class Arrivals:
    """The receiver's ledger; every method is one transaction and may be called from any thread.

    Raises:
        OutOfResources: from every method, where the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def association_opened(self, facts: AssociationFacts) -> None:
        """A peer opened an association."""
        row = schema.association.insert().values(
            association_id=facts.association_id,
            calling_ae=facts.calling_ae,
            called_ae=facts.called_ae,
            address=facts.address,
            opened_at=facts.opened_at,
        )
        with self._database.write(durable=False) as tx:
            tx.execute(row)

    def association_closed(self, association_id: str, *, released: bool, at: datetime) -> None:
        """It ended, by release or otherwise (abort, lost connection).

        What it brought is durable in the record from here on.
        """
        which = schema.association.c.association_id == association_id
        with self._database.write() as tx:
            tx.execute(schema.association.update().where(which).values(closed_at=at, released=released))

    def close_open_associations(self, *, at: datetime) -> int:
        """At the receiver's start: what was open when it last ended was cut off; returns how many."""
        still_open = schema.association.c.closed_at.is_(None)
        with self._database.write() as tx:
            change = schema.association.update().where(still_open)
            return tx.execute(change.values(closed_at=at, released=False)).rowcount

    def latest_digest(self, sop_instance_uid: str) -> str | None:
        """Digest of the latest version of this instance, or None where it never came."""
        with self._database.read() as tx:
            latest = _latest(tx, sop_instance_uid)
            return None if latest is None else str(latest.digest)

    def is_output(self, sop_instance_uid: str) -> bool:
        """Whether this node made the object."""
        column = schema.result.c.sop_instance_uid
        with self._database.read() as tx:
            return tx.execute(sa.select(column).where(column == sop_instance_uid)).first() is not None

    def known_digests(self) -> frozenset[str]:
        """Digests of every version of every instance: a blob that is not among them has lost its row."""
        with self._database.read() as tx:
            return frozenset(tx.execute(sa.select(_I.c.digest).distinct()).scalars())

    def audit(self, event: str, *, at: datetime, **facts: Fact) -> None:
        """Add a line to the audit trail; UIDs, numbers and machine-made words only."""
        with self._database.write() as tx:
            audit.append(tx, event, at=at, facts=facts)

    def add(self, arrival: Arrival) -> None:
        """Record an instance whose bytes are durable.

        The bytes that are already the instance's latest version add no row, but count as a sign of
        life of the series. Other bytes become its latest version. Content that is new, and not made
        by a node, makes sure that a job of the study is waiting for it: the one in `receiving`, else
        the next revision.

        The row itself may be lost in a power cut until the association is closed; `known_digests`
        tells which blobs have to be added again.
        """
        with self._database.write(durable=False) as tx:
            study_key = _study_key(tx, arrival)
            series_key = _series_key(tx, arrival, study_key)
            if not arrival.own:
                _note_association(tx, series_key, arrival.association_id)
            latest = _latest(tx, arrival.sop_instance_uid)
            if latest is not None and latest.digest == arrival.digest:
                return
            if latest is not None:
                tx.execute(_I.update().where(_I.c.id == latest.id).values(superseded=True))
            _insert(tx, arrival, series_key)
            if not arrival.own:
                _ensure_job(tx, study_key, arrival)

    def waiting_studies(self) -> tuple[StudyArrivals, ...]:
        """The studies whose job is in `receiving`, oldest job first."""
        with self._database.read() as tx:
            waiting = jobs.in_states(tx, [JobState.RECEIVING])
            arrivals = (_study_arrivals(tx, job) for job in waiting)
            return tuple(a for a in arrivals if a is not None)

    def study_instances(self, study_instance_uid: str) -> tuple[StoredInstance, ...]:
        """The latest version of every instance of the study that no node made."""
        with self._database.read() as tx:
            query = (
                sa.select(_I.c.sop_instance_uid, _SERIES.c.series_instance_uid, _I.c.digest)
                .join_from(_I, _SERIES)
                .join(_STUDY)
                .where(_STUDY.c.study_instance_uid == study_instance_uid)
                .where(_I.c.superseded.is_(False), _I.c.own.is_(False))
                .order_by(_I.c.id)
            )
            return tuple(StoredInstance(*row) for row in tx.execute(query))


def _latest(tx: Transaction, sop_instance_uid: str) -> sa.Row[Any, Any] | None:
    query = sa.select(_I.c.id, _I.c.digest).where(_I.c.sop_instance_uid == sop_instance_uid)
    return tx.execute(query.where(_I.c.superseded.is_(False))).one_or_none()


def _study_key(tx: Transaction, arrival: Arrival) -> int:
    """The study's key; the study belongs to the patient that its latest instance names."""
    issuer, patient_id = arrival.patient_key
    p = schema.patient
    known = tx.execute(
        sa.select(_STUDY.c.id, p.c.issuer, p.c.patient_id)
        .join_from(_STUDY, p)
        .where(_STUDY.c.study_instance_uid == arrival.study_instance_uid)
    ).one_or_none()
    if known is not None and (known.issuer, known.patient_id) == (issuer, patient_id):
        return int(known.id)
    whose = (p.c.issuer == issuer) & (p.c.patient_id == patient_id)
    patient_key = tx.execute(sa.select(p.c.id).where(whose)).scalar()
    if patient_key is None:
        patient_key = insert(tx, p, issuer=issuer, patient_id=patient_id)
    if known is not None:
        if not arrival.own:
            tx.execute(_STUDY.update().where(_STUDY.c.id == known.id).values(patient_key=patient_key))
        return int(known.id)
    return insert(tx, _STUDY, study_instance_uid=arrival.study_instance_uid, patient_key=patient_key)


def _series_key(tx: Transaction, arrival: Arrival, study_key: int) -> int:
    which = (_SERIES.c.study_key == study_key) & (
        _SERIES.c.series_instance_uid == arrival.series_instance_uid
    )
    seen = {"last_at": arrival.received_at, "last_association_id": arrival.association_id}
    key = tx.execute(sa.select(_SERIES.c.id).where(which)).scalar()
    if key is not None:
        tx.execute(_SERIES.update().where(_SERIES.c.id == key).values(**seen))
        return int(key)
    return insert(
        tx,
        _SERIES,
        study_key=study_key,
        series_instance_uid=arrival.series_instance_uid,
        modality=arrival.modality,
        **seen,
    )


def _note_association(tx: Transaction, series_key: int, association_id: str) -> None:
    t = schema.association_series
    which = (t.c.series_key == series_key) & (t.c.association_id == association_id)
    if tx.execute(sa.select(t.c.series_key).where(which)).first() is None:
        tx.execute(t.insert().values(series_key=series_key, association_id=association_id))


def _insert(tx: Transaction, arrival: Arrival, series_key: int) -> None:
    insert(
        tx,
        _I,
        series_key=series_key,
        sop_instance_uid=arrival.sop_instance_uid,
        sop_class_uid=arrival.sop_class_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        digest=arrival.digest,
        slice_position_mm=arrival.slice_position_mm,
        frame_count=arrival.frame_count,
        association_id=arrival.association_id,
        received_at=arrival.received_at,
        own=arrival.own,
        superseded=False,
    )


def _ensure_job(tx: Transaction, study_key: int, arrival: Arrival) -> None:
    j = schema.job
    query = sa.select(j.c.revision, j.c.state).where(j.c.study_key == study_key)
    latest = tx.execute(query.order_by(j.c.revision.desc()).limit(1)).first()
    if latest is None:
        jobs.create(tx, study_key, 0, at=arrival.received_at, why="first instance")
    elif latest.state != JobState.RECEIVING:
        why = f"new content after revision {latest.revision}"
        jobs.create(tx, study_key, latest.revision + 1, at=arrival.received_at, why=why)


def _study_arrivals(tx: Transaction, job: jobs.Job) -> StudyArrivals | None:
    a, link = schema.association, schema.association_series
    query = (
        sa.select(_SERIES, a.c.closed_at, a.c.released, a.c.association_id)
        .join_from(_SERIES, _STUDY)
        .outerjoin(a, a.c.association_id == _SERIES.c.last_association_id)
        .where(_STUDY.c.study_instance_uid == job.study_instance_uid)
        .order_by(_SERIES.c.id)
    )
    series = tuple(s for s in (_series_arrivals(tx, row) for row in tx.execute(query).all()) if s is not None)
    if not series:
        return None
    still_open = (
        sa.select(sa.func.count(a.c.association_id.distinct()))
        .join_from(a, link, link.c.association_id == a.c.association_id)
        .join(_SERIES, _SERIES.c.id == link.c.series_key)
        .join(_STUDY, _STUDY.c.id == _SERIES.c.study_key)
        .where(a.c.closed_at.is_(None), _STUDY.c.study_instance_uid == job.study_instance_uid)
    )
    return StudyArrivals(
        job.study_instance_uid, job.id, job.revision, series, int(tx.execute(still_open).scalar_one())
    )


def _series_arrivals(tx: Transaction, row: sa.Row[Any, Any]) -> SeriesArrivals | None:
    """What came of one series, or None where a node made all of it."""
    query = sa.select(_I.c.slice_position_mm).where(_I.c.series_key == row.id)
    query = query.where(_I.c.superseded.is_(False), _I.c.own.is_(False))
    positions = tx.execute(query.order_by(_I.c.id)).scalars().all()
    if not positions:
        return None
    # An association whose row a power cut took away was cut off as well.
    lost = row.association_id is None
    return SeriesArrivals(
        series_instance_uid=row.series_instance_uid,
        slice_positions_mm=tuple(p for p in positions if p is not None),
        instance_count=len(positions),
        last_at=row.last_at,
        interrupted=lost or (row.closed_at is not None and not row.released),
    )
