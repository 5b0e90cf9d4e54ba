"""The results of a reading: recording a committed result set, and what it replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.errors import InvalidTransition
from msnode.record import deliveries, jobs, schema
from msnode.record.database import insert
from msnode.record.delivery import DeliveryState, Result
from msnode.record.job import BEING_DELIVERED, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from msnode.record.database import Transaction
    from msnode.record.delivery import Recipient
    from msnode.record.job import Job

_D = schema.delivery
_R = schema.result


def finish_reading(
    tx: Transaction,
    job: Job,
    results: Sequence[Result],
    recipients: Mapping[str, Recipient],
    *,
    at: datetime,
    why: str,
    **facts: Any,
) -> Job:
    """Record a committed result set and its deliveries; the job moves to `delivering`, or to its end.

    Args:
        tx: the caller's transaction.
        job: as `jobs.start` returned it.
        results: the objects of the set. Those already recorded for this job are kept.
        recipients: destination → what it receives.
        at: UTC.
        why: reason of the new state; for a rejected reading pass `rejection` too.
        facts: other columns of the job (`result_set`, `rejection`, `model_name`, `timings_s`, …).

    Returns:
        The job as it is now.

    Raises:
        InvalidTransition: see `jobs.move`; or an object is already recorded with other bytes, or for another
            job.
    """
    jobs.lock_job(tx, job.id)
    job = jobs.move(tx, job, JobState.DELIVERING, at=at, why=why, **facts)
    for result in results:
        result_id = _record(tx, job, result)
        known = set(tx.execute(sa.select(_D.c.destination).where(_D.c.result_id == result_id)).scalars())
        for destination, recipient in recipients.items():
            if result.kind in recipient.kinds and destination not in known:
                insert(
                    tx, _D, job_id=job.id, result_id=result_id, destination=destination,
                    state=DeliveryState.PENDING, attempts=0, answers=0, verify=recipient.verify,
                    verifications=0, note="", updated_at=at,
                )  # fmt: skip
    return deliveries.settle(tx, job, at=at)


def results_of(tx: Transaction, job_id: int) -> tuple[Result, ...]:
    """The recorded objects of the job."""
    columns = [_R.c[name] for name in Result.__dataclass_fields__]
    query = sa.select(*columns).where(_R.c.job_id == job_id).order_by(_R.c.id)
    return tuple(Result(**row._mapping) for row in tx.execute(query))  # noqa: SLF001 - SQLAlchemy's public name


def withdraw_former(tx: Transaction, job: Job, *, at: datetime) -> None:
    """Cancel the pending deliveries of earlier revisions of the study, which `job` replaces.

    A revision of which nothing was sent becomes `cancelled`. One that was delivered already stays as it is.
    """
    for former in jobs.replaced_by(tx, job):
        jobs.lock_job(tx, former.id)
        note = f"replaced by revision {job.revision}"
        pending = (_D.c.job_id == former.id) & (_D.c.state == DeliveryState.PENDING)
        change = _D.update().where(pending)
        tx.execute(change.values(state=DeliveryState.CANCELLED, note=note, next_try_at=None, updated_at=at))
        current = jobs.find(tx, former.id)
        if current is None or current.state not in BEING_DELIVERED:
            continue
        if all(d.state == DeliveryState.CANCELLED for d in deliveries.of_job(tx, former.id)):
            jobs.move(tx, current, JobState.CANCELLED, at=at, why=f"{note} before anything was sent")
        else:
            deliveries.settle(tx, current, at=at)


def _record(tx: Transaction, job: Job, result: Result) -> int:
    """Insert the object unless it is recorded; returns its key."""
    query = sa.select(_R).where(_R.c.sop_instance_uid == result.sop_instance_uid)
    present = tx.execute(query).one_or_none()
    if present is None:
        return insert(
            tx, _R, job_id=job.id, kind=result.kind, sop_instance_uid=result.sop_instance_uid,
            sop_class_uid=result.sop_class_uid, series_instance_uid=result.series_instance_uid,
            path=result.path, sha256=result.sha256,
        )  # fmt: skip
    if (present.job_id, present.sha256) != (job.id, result.sha256):
        raise InvalidTransition(
            f"job {job.id}: {result.sop_instance_uid} is already recorded with other bytes, or for "
            f"job {present.job_id}"
        )
    return int(present.id)
