"""Storage commitment requests of peers to this node as SCP (PS3.4 Annex J), and the reports that answer them.

A request is `open` until its report has reached the peer (`reported`) or was given up (`dead`). The answer is
decided when it is reported. Instances that it promises to keep are marked in the record before it is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.dicom import commitment
from msnode.dicom.commitment import Reference, Report, Request
from msnode.record import audit, schema
from msnode.record.database import insert, lock
from msnode.record.studies import study_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from msnode.record.audit import Fact
    from msnode.record.database import Transaction

_REQUEST = schema.commitment_request
_I = schema.instance
_AT_ONCE = 500


@dataclass(frozen=True)
class OpenReport:
    """A peer's request whose report has still to be sent.

    Attributes:
        attempts: number of reports that did not reach the peer.
        not_before: earliest time of the next attempt, UTC; None for now.
    """

    id: int
    attempts: int
    not_before: datetime | None
    calling_ae: str
    request: Request

    @property
    def workflow_id(self) -> str:
        """Id of the workflow that sends the report."""
        return f"report:{self.id}:{self.attempts + 1}"


def note_request(tx: Transaction, request: Request, *, calling_ae: str, at: datetime) -> OpenReport | None:
    """Record a peer's request; None where it repeats a recorded one. Both are audited."""
    lock(tx, f"request {request.transaction_uid}")
    same = (_REQUEST.c.transaction_uid == request.transaction_uid) & (_REQUEST.c.calling_ae == calling_ae)
    is_new = tx.execute(sa.select(_REQUEST.c.id).where(same)).first() is None
    facts: dict[str, Fact] = {
        "transaction_uid": request.transaction_uid,
        "calling_ae": calling_ae,
        "instances": len(request.instances),
    }
    audit.append(tx, f"commitment_request_{'taken' if is_new else 'repeated'}", at=at, facts=facts)
    if not is_new:
        return None
    request_id = insert(
        tx, _REQUEST, transaction_uid=request.transaction_uid, calling_ae=calling_ae, received_at=at,
        state="open", attempts=0, note="",
        instances=[[each.sop_class_uid, each.sop_instance_uid] for each in request.instances],
    )  # fmt: skip
    return OpenReport(request_id, 0, None, calling_ae, request)


def open_reports(tx: Transaction) -> tuple[OpenReport, ...]:
    """Every request that has still to be answered; oldest first."""
    return tuple(_reports(tx, _REQUEST.c.state == "open"))


def open_report(tx: Transaction, request_id: int) -> OpenReport | None:
    """The request; None where it does not exist or is not open any more."""
    return next(_reports(tx, (_REQUEST.c.id == request_id) & (_REQUEST.c.state == "open")), None)


def _reports(tx: Transaction, which: sa.ColumnElement[bool]) -> Iterator[OpenReport]:
    for row in tx.execute(sa.select(_REQUEST).where(which).order_by(_REQUEST.c.id)).all():
        instances = tuple(Reference(*each) for each in row.instances)
        request = Request(row.transaction_uid, instances)
        yield OpenReport(row.id, row.attempts, row.next_try_at, row.calling_ae, request)


def promise(tx: Transaction, request: Request, *, has_bytes: Callable[[str], bool]) -> Report:
    """Decide for every instance of a request whether this node keeps it, and mark those that it keeps.

    Retention never removes the bytes of a marked instance. Commit the transaction before the report is sent.

    Args:
        tx: the caller's transaction.
        request: the peer's request.
        has_bytes: tells whether the store has the bytes of a digest.

    Returns:
        The report; failure reasons are those of PS3.3 C.14 (Failure Reason, 0008,1197).
    """
    batches = [
        request.instances[begin : begin + _AT_ONCE] for begin in range(0, len(request.instances), _AT_ONCE)
    ]
    _lock_studies(tx, batches)
    kept, failed = [], {}
    for batch in batches:
        there = _rows_held(tx, [each.sop_instance_uid for each in batch])
        promised = []
        for each in batch:
            row = there.get(each.sop_instance_uid)
            if row is None or not has_bytes(row.digest):
                failed[each] = commitment.NO_SUCH_INSTANCE
            elif row.sop_class_uid != each.sop_class_uid:
                failed[each] = commitment.CLASS_INSTANCE_CONFLICT
            else:
                kept.append(each)
                promised.append(row.id)
        tx.execute(_I.update().where(_I.c.id.in_(promised)).values(promised=True))
    return Report(request.transaction_uid, tuple(kept), failed)


def _lock_studies(tx: Transaction, batches: Sequence[Sequence[Reference]]) -> None:
    """Lock these studies against retention; in one order, so that two requests never deadlock."""
    series, study = schema.series, schema.study
    studies: set[str] = set()
    for batch in batches:
        query = sa.select(study.c.study_instance_uid).distinct().join_from(_I, series).join(study)
        uids = [each.sop_instance_uid for each in batch]
        # Latest versions; as in the index, because SQLite does not use it for another expression.
        query = query.where(_I.c.sop_instance_uid.in_(uids), ~_I.c.superseded)
        studies.update(tx.execute(query).scalars())
    for study_instance_uid in sorted(studies):
        lock(tx, study_lock(study_instance_uid))


def _rows_held(tx: Transaction, sop_instance_uids: Sequence[str]) -> dict[str, Any]:
    """Latest versions of the instances whose bytes were not removed, by SOP Instance UID."""
    query = (
        sa.select(_I.c.id, _I.c.sop_instance_uid, _I.c.sop_class_uid, _I.c.digest)
        .where(_I.c.sop_instance_uid.in_(sop_instance_uids))
        .where(~_I.c.superseded, _I.c.removed_at.is_(None))
    )
    return {row.sop_instance_uid: row for row in tx.execute(query).all()}


def reported(tx: Transaction, open_: OpenReport, report: Report, *, at: datetime) -> None:
    """Record that the peer accepted the report."""
    _close_report(tx, open_, "reported", note="")
    facts: dict[str, Fact] = {
        "transaction_uid": report.transaction_uid, "calling_ae": open_.calling_ae,
        "kept": len(report.kept), "failed": len(report.failed),
    }  # fmt: skip
    audit.append(tx, "commitment_reported", at=at, facts=facts)


def report_later(
    tx: Transaction, open_: OpenReport, *, at: datetime, delay: Callable[[int, str], float | None], note: str
) -> OpenReport | None:
    """Record that the report did not reach the peer.

    Args:
        tx: the caller's transaction.
        open_: the request.
        at: UTC.
        delay: seconds to wait after attempt number n, or None after the last; see `RetryPolicy.delay`.
        note: why it failed, for people.

    Returns:
        The request with its next attempt; None where it was given up.
    """
    attempts = open_.attempts + 1
    delay_s = delay(attempts, f"report/{open_.calling_ae}")
    if delay_s is None:
        report_never(tx, open_, at=at, note=f"given up after {attempts} tries: {note}")
        return None
    later = replace(open_, attempts=attempts, not_before=at + timedelta(seconds=delay_s))
    change = _REQUEST.update().where(_REQUEST.c.id == open_.id)
    tx.execute(change.values(attempts=attempts, next_try_at=later.not_before, note=note))
    return later


def report_never(tx: Transaction, open_: OpenReport, *, at: datetime, note: str) -> None:
    """Give the report up; instances that were promised stay promised."""
    _close_report(tx, open_, "dead", note=note)
    facts: dict[str, Fact] = {
        "transaction_uid": open_.request.transaction_uid,
        "calling_ae": open_.calling_ae,
    }
    audit.append(tx, "commitment_report_dead", at=at, facts=facts)


def _close_report(tx: Transaction, open_: OpenReport, state: str, *, note: str) -> None:
    change = _REQUEST.update().where(_REQUEST.c.id == open_.id)
    tx.execute(change.values(state=state, note=note, next_try_at=None))
