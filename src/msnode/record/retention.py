"""Removes received bytes that are not needed any more.

The bytes of an old study are removed once all of its jobs have ended well, every destination has confirmed
what it received (or is not asked to), and no peer was promised that they are kept. Rows and result sets stay.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from msnode.record import audit, schema
from msnode.record.database import lock
from msnode.record.delivery import DeliveryState, Verify
from msnode.record.job import JobState
from msnode.record.studies import study_lock

if TYPE_CHECKING:
    from msnode.record.audit import Fact
    from msnode.record.database import Database, Transaction
    from msnode.store import Store

_I = schema.instance
_SERIES = schema.series
_STUDY = schema.study
_J = schema.job
_D = schema.delivery

_ENDED_WELL = (
    JobState.COMPLETED, JobState.REJECTED, JobState.PASSED_OVER, JobState.UNCHANGED, JobState.CANCELLED,
)  # fmt: skip
_OWED = _D.c.state.in_([DeliveryState.PENDING, DeliveryState.DEAD]) | (
    (_D.c.state == DeliveryState.DELIVERED) & (_D.c.verify != Verify.NONE)
)


def remove_old(database: Database, store: Store, *, before: datetime, limit: int) -> int:
    """Remove the received bytes of studies without an instance since `before`.

    It may be killed at any point, and may run on several machines at once.

    Args:
        database: the record.
        store: where the bytes are.
        before: UTC; a study with a later instance stays.
        limit: maximum number of studies.

    Returns:
        The number of removed files.

    Raises:
        OutOfResources: the record cannot be used.
    """
    old = sa.select(_SERIES.c.study_key).join_from(_I, _SERIES)
    old = old.where(_I.c.removed_at.is_(None), _I.c.received_at < before)
    with database.read() as tx:
        studies = tx.execute(_removable(before).where(_STUDY.c.id.in_(old)).limit(limit)).all()
    return sum(_remove(database, store, row.id, row.study_instance_uid, before) for row in studies)


def _removable(before: datetime) -> sa.Select[tuple[int, str]]:
    of_study = _SERIES.c.study_key == _STUDY.c.id
    instances = sa.select(_I.c.id).join_from(_I, _SERIES).where(of_study).correlate(_STUDY)
    still_there = instances.where(_I.c.removed_at.is_(None))
    promised = instances.where(_I.c.promised.is_(True))
    recent = sa.select(_SERIES.c.id).where(of_study, _SERIES.c.last_at >= before).correlate(_STUDY)
    unended = sa.select(_J.c.id).where(_J.c.study_key == _STUDY.c.id, _J.c.state.not_in(_ENDED_WELL))
    owed = sa.select(_D.c.id).join_from(_D, _J).where(_J.c.study_key == _STUDY.c.id, _OWED)
    return sa.select(_STUDY.c.id, _STUDY.c.study_instance_uid).where(
        still_there.exists(),
        ~promised.exists(),
        ~recent.exists(),
        ~unended.correlate(_STUDY).exists(),
        ~owed.correlate(_STUDY).exists(),
    )


def _remove(
    database: Database, store: Store, study_key: int, study_instance_uid: str, before: datetime
) -> int:
    """Remove one study's bytes, unless the conditions have changed; returns their number.

    Files are removed inside the transaction. A kill in between leaves rows that say the bytes are there, and
    the next call repeats the removal; after an earlier commit the files would stay for ever. An instance that
    is received again meanwhile waits for the lock, and its bytes are then stored again.
    """
    with database.write() as tx:
        lock(tx, study_lock(study_instance_uid))
        if tx.execute(_removable(before).where(_STUDY.c.id == study_key)).first() is None:
            return 0
        digests = _digests(tx, study_key)
        now = datetime.now(UTC)
        series = sa.select(_SERIES.c.id).where(_SERIES.c.study_key == study_key)
        present = _I.c.series_key.in_(series) & _I.c.removed_at.is_(None)
        tx.execute(_I.update().where(present).values(removed_at=now))
        facts: dict[str, Fact] = {"study_instance_uid": study_instance_uid, "instances": len(digests)}
        audit.append(tx, "received_bytes_removed", at=now, facts=facts)
        for digest in digests:
            store.remove(digest)
    return len(digests)


def _digests(tx: Transaction, study_key: int) -> list[str]:
    """Digests of all instance versions of the study that have bytes; no other study has equal bytes."""
    query = sa.select(_I.c.digest).distinct().join_from(_I, _SERIES)
    found = tx.execute(query.where(_SERIES.c.study_key == study_key, _I.c.removed_at.is_(None)))
    return list(found.scalars())
