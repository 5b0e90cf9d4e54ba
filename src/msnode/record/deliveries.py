"""Deliveries in the record: what destinations have still to get or to confirm, and what they answered.

Every change also settles the state of the job (`settlement`). All deliveries given to one call belong to one
job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.record import jobs, schema
from msnode.record.delivery import Delivery, DeliveryState, Result, Verify
from msnode.record.settlement import settlement_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from msnode.record.database import Transaction
    from msnode.record.job import Job

_D = schema.delivery
_R = schema.result
_PENDING = _D.c.state == DeliveryState.PENDING
_DELIVERED = _D.c.state == DeliveryState.DELIVERED


def of_job(tx: Transaction, job_id: int) -> tuple[Delivery, ...]:
    """Every delivery of the job, by destination."""
    return _deliveries(tx, _D.c.job_id == job_id)


def pending(tx: Transaction, job_id: int, destination: str) -> tuple[Delivery, ...]:
    """Deliveries of the job that this destination has not received yet."""
    return _deliveries(tx, (_D.c.job_id == job_id) & (_D.c.destination == destination) & _PENDING)


def unconfirmed(tx: Transaction, job_id: int, destination: str) -> tuple[Delivery, ...]:
    """Deliveries of the job that this destination has received and has still to confirm."""
    return tuple(d for d in of_job(tx, job_id) if d.destination == destination and d.unconfirmed)


def delivered(
    tx: Transaction, *which: Delivery, at: datetime, status: int | None = None, note: str = ""
) -> None:
    """Record that the destination has received these objects, whatever was decided meanwhile."""
    _change(
        tx, which, _D.c.state != DeliveryState.COMMITTED, at=at, state=DeliveryState.DELIVERED,
        status=status, note=note, answers=0, next_try_at=None,
    )  # fmt: skip


def committed(tx: Transaction, *which: Delivery, at: datetime, note: str) -> None:
    """Record that the destination confirmed these objects, whatever was decided meanwhile."""
    _change(tx, which, sa.true(), at=at, state=DeliveryState.COMMITTED, note=note, next_try_at=None)


def send_again(
    tx: Transaction,
    *which: Delivery,
    at: datetime,
    note: str,
    next_try_at: datetime | None,
    denied: bool = False,
) -> None:
    """Make delivered objects pending again, because the destination does not have or does not keep them.

    Args:
        tx: the caller's transaction.
        which: deliveries; one that is not in `delivered` any more stays as it is.
        at: UTC.
        note: why, for people.
        next_try_at: earliest time of the next attempt, UTC; None gives them up: they become `dead`.
        denied: a storage commitment report says that the destination does not have them.
    """
    state = DeliveryState.DEAD if next_try_at is None else DeliveryState.PENDING
    _change(
        tx, which, _DELIVERED, at=at, state=state, note=note,
        attempts=_D.c.attempts + 1, answers=0, denials=_D.c.denials + int(denied), next_try_at=next_try_at,
    )  # fmt: skip


def ask_later(
    tx: Transaction, *which: Delivery, at: datetime, note: str, next_try_at: datetime | None, no: bool = False
) -> None:
    """Count one request for confirmation, and set the time of the next.

    Args:
        tx: the caller's transaction.
        which: deliveries; one that is not unconfirmed any more stays as it is.
        at: UTC.
        note: the answer, for people.
        next_try_at: earliest time of the next request, UTC; None gives up, as `cannot_confirm`.
        no: the destination answered that it does not have them.
    """
    if next_try_at is None:
        cannot_confirm(tx, *which, at=at, note=note)
        return
    _change_unconfirmed(
        tx, which, at=at, note=note, next_try_at=next_try_at,
        verifications=_D.c.verifications + 1, answers=_D.c.answers + int(no),
    )  # fmt: skip


def ask_by_find(tx: Transaction, *which: Delivery, at: datetime, note: str) -> None:
    """Ask by query from now on, because the destination accepts no storage commitment request."""
    _change_unconfirmed(tx, which, at=at, note=note, verify=Verify.FIND, answers=0)


def doubt_reports(tx: Transaction, *which: Delivery, at: datetime, note: str) -> None:
    """Ask by query, now and from now on, whether the destination has what its reports deny."""
    _change_unconfirmed(
        tx, which, at=at, note=note, verify=Verify.FIND, answers=0, next_try_at=at,
        verifications=_D.c.verifications + 1, denials=_D.c.denials + 1,
    )  # fmt: skip


def trust_reports(tx: Transaction, *which: Delivery, at: datetime, note: str) -> None:
    """Ask by storage commitment again, because the destination cannot be queried."""
    _change_unconfirmed(tx, which, at=at, note=note, verify=Verify.COMMITMENT)


def cannot_confirm(tx: Transaction, *which: Delivery, at: datetime, note: str) -> None:
    """Ask no more: the destination has received the objects and cannot confirm them."""
    _change_unconfirmed(tx, which, at=at, note=note, verify=Verify.UNAVAILABLE, next_try_at=None)


def refused(
    tx: Transaction, delivery: Delivery, *, at: datetime, note: str, status: int | None = None
) -> None:
    """Record that the destination does not accept this object; ignored where it is no longer pending."""
    _close(tx, delivery, DeliveryState.REFUSED, at=at, note=note, status=status)


def gave_up(
    tx: Transaction, delivery: Delivery, *, at: datetime, note: str, status: int | None = None
) -> None:
    """Make a delivery dead after too many attempts; ignored where it is no longer pending."""
    _close(tx, delivery, DeliveryState.DEAD, at=at, note=note, status=status)


def postpone(
    tx: Transaction,
    delivery: Delivery,
    *,
    at: datetime,
    note: str,
    next_try_at: datetime,
    status: int | None = None,
) -> None:
    """Count one failed attempt, and set the time of the next; ignored where it is no longer pending.

    Args:
        tx: the caller's transaction.
        delivery: the one that was tried.
        at: UTC.
        note: why it failed, for people.
        next_try_at: earliest time of the next attempt, UTC.
        status: what the destination itself answered, which counts as an answer; None where it was not
            reached.
    """
    change = _D.update().where(_D.c.id == delivery.id, _PENDING)
    tx.execute(
        change.values(
            attempts=_D.c.attempts + 1, answers=_D.c.answers + int(status is not None),
            note=note, status=status, next_try_at=next_try_at, updated_at=at,
        )
    )  # fmt: skip


def settle(tx: Transaction, job: Job, *, at: datetime) -> Job:
    """Move a job to the state that its deliveries ask for; returns the job as it is now."""
    settlement = settlement_of(job, of_job(tx, job.id))
    if settlement is None:
        return job
    return jobs.move(tx, job, settlement.state, at=at, why=settlement.reason)


def _close(
    tx: Transaction, delivery: Delivery, state: DeliveryState, *, at: datetime, note: str, status: int | None
) -> None:
    _change(tx, (delivery,), _PENDING, at=at, state=state, note=note, status=status, next_try_at=None)


def _change_unconfirmed(tx: Transaction, which: Sequence[Delivery], *, at: datetime, **values: Any) -> None:
    still = _DELIVERED & _D.c.verify.in_([Verify.COMMITMENT, Verify.FIND])
    _change(tx, which, still, at=at, **values)


def _change(
    tx: Transaction, which: Sequence[Delivery], still: sa.ColumnElement[bool], *, at: datetime, **values: Any
) -> None:
    """Change those deliveries of which `still` holds, and settle their job."""
    if not which:
        return
    # Two senders that end two deliveries of one job at the same time must each see the other's change.
    jobs.lock_job(tx, which[0].job_id)
    these = _D.c.id.in_([d.id for d in which])
    tx.execute(_D.update().where(these, still).values(updated_at=at, **values))
    job = jobs.find(tx, which[0].job_id)
    if job is not None:
        settle(tx, job, at=at)


def _deliveries(tx: Transaction, which: sa.ColumnElement[bool]) -> tuple[Delivery, ...]:
    own = [_D.c[n] for n in Delivery.__dataclass_fields__ if n not in {"result", "result_set"}]
    of_result = [_R.c[name] for name in Result.__dataclass_fields__]
    query = (
        sa.select(*own, schema.job.c.result_set, *of_result)
        .join_from(_D, _R)
        .join(schema.job, schema.job.c.id == _D.c.job_id)
        .where(which)
        .order_by(_D.c.destination, _D.c.id)
    )
    found = []
    for row in tx.execute(query):
        values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
        result = Result(**{name: values.pop(name) for name in Result.__dataclass_fields__})
        values["state"] = DeliveryState(values["state"])
        values["verify"] = Verify(values["verify"])
        found.append(Delivery(result=result, **values))
    return tuple(found)
