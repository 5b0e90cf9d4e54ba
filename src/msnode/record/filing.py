"""Records a batch of received instances in one transaction.

A batch from several associations costs little more than one instance: every statement here serves the whole
batch, or one of its studies or series.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from msnode.record import audit, jobs, schema
from msnode.record.database import insert, lock
from msnode.record.job import JobState
from msnode.record.studies import study_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from msnode.domain.arrivals import Arrival
    from msnode.record.database import Transaction

_I = schema.instance
_SERIES = schema.series
_STUDY = schema.study
_PATIENT = schema.patient
_LINK = schema.association_series
_J = schema.job

_Latest = sa.Row[Any, Any, Any, Any]
"""SOP Instance UID, key, digest and time of removal of a latest version."""

# Built once: SQLAlchemy finds the compiled form of a statement by its structure, which is slow to derive.
_some: sa.BindParameter[Any] = sa.bindparam("some", expanding=True)
_LATEST = (
    sa.select(_I.c.sop_instance_uid, _I.c.id, _I.c.digest, _I.c.removed_at)
    .where(_I.c.sop_instance_uid.in_(_some))
    .where(~_I.c.superseded)  # as in the index: SQLite does not use it for another expression
)
_RECORDED = sa.select(_I.c.digest).where(_I.c.digest.in_(_some))
_OUTPUTS = sa.select(schema.result.c.sop_instance_uid).where(schema.result.c.sop_instance_uid.in_(_some))
_STUDIES = (
    sa.select(_STUDY.c.study_instance_uid, _STUDY.c.id, _PATIENT.c.issuer, _PATIENT.c.patient_id)
    .join_from(_STUDY, _PATIENT)
    .where(_STUDY.c.study_instance_uid.in_(_some))
)
_WHOSE = sa.select(_PATIENT.c.id).where(
    _PATIENT.c.issuer == sa.bindparam("issuer"), _PATIENT.c.patient_id == sa.bindparam("patient_id")
)
_SEEN = (
    _SERIES.update()
    .where(_SERIES.c.study_key == sa.bindparam("study"), _SERIES.c.series_instance_uid == sa.bindparam("uid"))
    .values(last_at=sa.bindparam("at"), last_association_id=sa.bindparam("association"))
    .returning(_SERIES.c.id)
)
_INSERT = _I.insert()
_JOBS = (
    sa.select(_J.c.study_key, _J.c.revision, _J.c.state)
    .where(_J.c.study_key.in_(_some))
    .order_by(_J.c.revision)
)


def file_batch(
    tx: Transaction, arrivals: Iterable[Arrival], keep_bytes: Callable[[Arrival], None]
) -> Mapping[str, str]:
    """Record the arrivals that need no comparison with a known version; see `Arrivals.add`.

    Args:
        tx: the caller's transaction; it holds the locks of the studies from here on.
        arrivals: no two of one SOP Instance UID.
        keep_bytes: called before an arrival of a known instance is recorded. Retention removes bytes under
            the study's lock only, so bytes that are there now stay.

    Returns:
        For each arrival that was not recorded: SOP Instance UID → digest of the latest version, whose bytes
        are neither the arrival's nor those that it was compared with.
    """
    # One order of locks everywhere, so that two batches never deadlock.
    arrivals = sorted(arrivals, key=lambda a: (a.study_instance_uid, a.sop_instance_uid))
    for uid in sorted({a.study_instance_uid for a in arrivals}):
        lock(tx, study_lock(uid))
    uids = [a.sop_instance_uid for a in arrivals]
    latest = {row.sop_instance_uid: row for row in tx.execute(_LATEST, {"some": uids})}
    others: dict[str, str] = {}
    taken: list[Arrival] = []
    for arrival in arrivals:
        known = latest.get(arrival.sop_instance_uid)
        if known is not None and known.digest not in {arrival.digest, arrival.replaces}:
            others[arrival.sop_instance_uid] = known.digest
            continue
        if known is not None:  # retention removes bytes of recorded instances only
            keep_bytes(arrival)
        taken.append(arrival)
    if taken:
        _record(tx, taken, latest)
    return others


def unrecorded_of(tx: Transaction, digests: Iterable[str]) -> frozenset[str]:
    """Those of at most some hundred digests that no version of any instance has."""
    wanted = frozenset(digests)
    return wanted.difference(tx.execute(_RECORDED, {"some": list(wanted)}).scalars())


def _record(tx: Transaction, arrivals: Sequence[Arrival], latest: Mapping[str, _Latest]) -> None:
    outputs = frozenset(tx.execute(_OUTPUTS, {"some": [a.sop_instance_uid for a in arrivals]}).scalars())
    own = frozenset(a.sop_instance_uid for a in arrivals if a.own) | outputs
    studies = _study_keys(tx, arrivals, own)
    series = _series_keys(tx, arrivals, studies)
    _link(tx, {(series[_place(a)], a.association_id) for a in arrivals if a.sop_instance_uid not in own})
    fresh, returned = [], []
    for arrival in arrivals:
        known = latest.get(arrival.sop_instance_uid)
        if known is None or known.digest != arrival.digest:
            fresh.append(arrival)
        elif known.removed_at is not None:
            _came_back(tx, arrival)
            returned.append(arrival)
        if known is not None and known.digest != arrival.digest:
            _supersede(tx, known, arrival)
    if fresh:
        tx.execute(_INSERT, [_instance(a, series[_place(a)], own=a.sop_instance_uid in own) for a in fresh])
    # A reading may have lacked bytes that retention had removed; where it did not, the job ends `unchanged`.
    news = [a for a in (*fresh, *returned) if a.sop_instance_uid not in own]
    if news:
        _ensure_jobs(tx, news, studies)


def _place(arrival: Arrival) -> tuple[str, str]:
    return arrival.study_instance_uid, arrival.series_instance_uid


def _instance(arrival: Arrival, series_key: int, *, own: bool) -> dict[str, Any]:
    return {
        "series_key": series_key,
        "sop_instance_uid": arrival.sop_instance_uid,
        "sop_class_uid": arrival.sop_class_uid,
        "transfer_syntax_uid": arrival.transfer_syntax_uid,
        "digest": arrival.digest,
        "slice_position_mm": arrival.slice_position_mm,
        "frame_count": arrival.frame_count,
        "association_id": arrival.association_id,
        "received_at": arrival.received_at,
        "own": own,
        "superseded": False,
    }


def _came_back(tx: Transaction, arrival: Arrival) -> None:
    """Mark the bytes as present again, in every version that has them."""
    same = (_I.c.sop_instance_uid == arrival.sop_instance_uid) & (_I.c.digest == arrival.digest)
    tx.execute(_I.update().where(same).values(removed_at=None))


def _supersede(tx: Transaction, known: _Latest, arrival: Arrival) -> None:
    """Mark the known version as superseded by the arrival, and audit that."""
    tx.execute(_I.update().where(_I.c.id == known.id).values(superseded=True))
    facts = {
        "sop_instance_uid": arrival.sop_instance_uid,
        "known_digest": known.digest,
        "new_digest": arrival.digest,
        "association": arrival.association_id,
    }
    audit.append(tx, "instance_new_version", at=arrival.received_at, facts=facts)


def _study_keys(tx: Transaction, arrivals: Sequence[Arrival], own: frozenset[str]) -> dict[str, int]:
    """Study Instance UID → key; a study belongs to the patient that its latest instance names."""
    wanted = {a.study_instance_uid: a for a in arrivals}
    wanted |= {a.study_instance_uid: a for a in arrivals if a.sop_instance_uid not in own}
    known = {row.study_instance_uid: row for row in tx.execute(_STUDIES, {"some": list(wanted)})}
    keys = {uid: int(row.id) for uid, row in known.items()}
    moved = [
        a
        for uid, a in wanted.items()
        if uid not in known
        or (a.sop_instance_uid not in own and (known[uid].issuer, known[uid].patient_id) != a.patient_key)
    ]
    patients = {key: _patient_key(tx, key) for key in sorted({a.patient_key for a in moved})}
    for arrival in moved:
        uid, patient = arrival.study_instance_uid, patients[arrival.patient_key]
        if uid in known:
            tx.execute(_STUDY.update().where(_STUDY.c.id == keys[uid]).values(patient_key=patient))
        else:
            keys[uid] = insert(tx, _STUDY, study_instance_uid=uid, patient_key=patient)
    return keys


def _patient_key(tx: Transaction, whose: tuple[str, str]) -> int:
    """Key of the patient, inserted where missing: a study's lock does not exclude their other studies."""
    values = dict(zip(("issuer", "patient_id"), whose, strict=True))
    found = tx.execute(_WHOSE, values).scalar()
    if found is None:
        tx.execute(_insert_missing(tx.dialect.name, _PATIENT), values)
        found = tx.execute(_WHOSE, values).scalar_one()
    return int(found)


def _series_keys(
    tx: Transaction, arrivals: Sequence[Arrival], studies: Mapping[str, int]
) -> dict[tuple[str, str], int]:
    """Study and Series Instance UID → key; updates the last arrival of each series."""
    last: dict[tuple[str, str], Arrival] = {}
    for arrival in sorted(arrivals, key=lambda a: a.received_at):
        last[_place(arrival)] = arrival
    keys = {}
    for place, arrival in last.items():
        study_key, uid = studies[place[0]], place[1]
        seen = {"at": arrival.received_at, "association": arrival.association_id}
        key = tx.execute(_SEEN, {"study": study_key, "uid": uid, **seen}).scalar()
        if key is None:
            key = insert(
                tx, _SERIES, study_key=study_key, series_instance_uid=uid, modality=arrival.modality,
                last_at=arrival.received_at, last_association_id=arrival.association_id,
            )  # fmt: skip
        keys[place] = int(key)
    return keys


def _link(tx: Transaction, links: set[tuple[int, str]]) -> None:
    if links:
        rows = [{"series_key": key, "association_id": association} for key, association in sorted(links)]
        tx.execute(_insert_missing(tx.dialect.name, _LINK), rows)


@cache
def _insert_missing(dialect: str, table: sa.Table) -> sa.Insert:
    """An insert that does nothing where the row exists."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _ensure_jobs(tx: Transaction, arrivals: Sequence[Arrival], studies: Mapping[str, int]) -> None:
    """Create a job for every study that has new content and no job in `receiving`."""
    first = {studies[a.study_instance_uid]: a for a in reversed(arrivals)}
    if not first:
        return
    latest = {row.study_key: row for row in tx.execute(_JOBS, {"some": list(first)})}
    for study_key, arrival in first.items():
        job = latest.get(study_key)
        if job is None:
            jobs.create(tx, study_key, 0, at=arrival.received_at, why="first instance")
        elif job.state != JobState.RECEIVING:
            why = f"new content after revision {job.revision}"
            jobs.create(tx, study_key, job.revision + 1, at=arrival.received_at, why=why)
