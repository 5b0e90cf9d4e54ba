"""Has destinations confirm that they keep what they were given, and takes what they report.

Nobody waits for a report: a request is stored, sent and noted, and its deadline is a later workflow.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from msnode import crash_points
from msnode.dicom import commitment
from msnode.dicom.commitment import Reference, Request
from msnode.errors import AssociationRejected, OutOfResources, PeerUnreachable
from msnode.record import commitments, deliveries, jobs
from msnode.record.commitments import State
from msnode.record.delivery import Verify
from msnode.record.job import BEING_DELIVERED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from msnode.deliver.destination import VerifiableDestination, VerificationSession
    from msnode.deliver.retry import RetryPolicy
    from msnode.dicom.commitment import Report
    from msnode.record.database import Database, Transaction
    from msnode.record.delivery import Delivery
    from msnode.record.job import Job

    Enqueue = Callable[[Transaction, Job], None]

log = structlog.get_logger()

_EARLY_S = 60.0
"""Clocks of two machines differ; a workflow that comes earlier than this was meant for what has passed."""
_UNANSWERED_LIMIT = 3
"""So many requests without a report, where nothing else can be asked, are enough."""


class Reports:
    """Takes the reports of destinations, whichever way they come (PS3.4 J.3.3).

    Args:
        database: the record.
        retry: when to send, or ask, again.
        enqueue: has the engine run what a job needs next, in the given transaction.
    """

    def __init__(self, database: Database, retry: RetryPolicy, enqueue: Enqueue) -> None:
        self._database = database
        self._retry = retry
        self._enqueue = enqueue

    def take(self, report: Report, senders: Collection[str]) -> int:
        """Note a report; returns the status that answers it, 0x0110 where it has to come again.

        Args:
            report: as it came.
            senders: names of the destinations that its sender may speak for.
        """
        crash_points.reach("report-received", report.transaction_uid)
        try:
            with self._database.write() as tx:
                noted = commitments.note_report(
                    tx, report, senders=senders, at=_now(), delay=self._retry.delay
                )
                job = None if noted.job_id is None else jobs.find(tx, noted.job_id)
                if job is not None:
                    self._enqueue(tx, job)
        except OutOfResources as error:
            log.warning("report_not_noted", transaction_uid=report.transaction_uid, error=error)
            return commitment.PROCESSING_FAILURE
        crash_points.reach("report-noted", report.transaction_uid)
        log.info(
            "commitment_reported", transaction_uid=report.transaction_uid, job_id=noted.job_id,
            outcome=noted.outcome.value, kept_count=len(report.kept), failed_count=len(report.failed),
        )  # fmt: skip
        return noted.status


class Verifier:
    """Runs the workflow `verify`.

    Args:
        database: the record.
        destinations: those that can be asked, by name.
        retry: when to ask again, and when that was enough.
        enqueue: has the engine run what the job needs next, in the given transaction.
    """

    def __init__(
        self,
        database: Database,
        destinations: Mapping[str, VerifiableDestination],
        retry: RetryPolicy,
        enqueue: Enqueue,
    ) -> None:
        self._database = database
        self._destinations = destinations
        self._retry = retry
        self._enqueue = enqueue
        self._reports = Reports(database, retry, enqueue)

    def run(self, job_id: int, destination: str) -> None:
        """Have the destination confirm what it has of the job; safe to call again after a crash.

        Raises:
            OutOfResources: the record cannot be used; call again.
        """
        with self._database.read() as tx:
            job = jobs.find(tx, job_id)
            owed = deliveries.unconfirmed(tx, job_id, destination)
            busy = deliveries.pending(tx, job_id, destination)
        if job is None or job.state not in BEING_DELIVERED:
            return
        if not owed or busy or _is_early(owed):
            return
        there = self._destinations.get(destination)
        if there is None:
            self._cannot_confirm(job, owed, why="the configuration has no such destination that confirms")
            return
        try:
            with there.open_session(lambda report: self._reports.take(report, {destination})) as session:
                self._ask(session, job, owed)
        except (PeerUnreachable, AssociationRejected) as error:
            self._ask_again(job, owed, note=str(error))

    def _ask(self, session: VerificationSession, job: Job, owed: Sequence[Delivery]) -> None:
        by_commitment = [d for d in owed if d.verify == Verify.COMMITMENT]
        by_find = [d for d in owed if d.verify == Verify.FIND]
        if by_commitment and session.commits:
            self._commit(session, job, by_commitment)
        elif by_commitment:
            self._switch_to_find(session, job, by_commitment, why="it offers no storage commitment")
        if by_find and session.finds:
            self._look(session, job, by_find)
        elif by_find:
            denied = [d for d in by_find if d.denials]
            self._send_denied_again(job, denied)
            self._cannot_confirm(
                job, [d for d in by_find if d not in denied], why="it cannot be asked by C-FIND"
            )

    def _commit(self, session: VerificationSession, job: Job, which: Sequence[Delivery]) -> None:
        """Go on with the requests that are under way, and request what no request covers."""
        with self._database.read() as tx:
            under_way = commitments.outstanding(tx, job.id, which[0].destination)
        covered: set[int] = set()
        for each in under_way:
            items = [d for d in which if d.id in each.delivery_ids]
            covered |= each.delivery_ids
            if not items:
                continue
            if each.state == State.PREPARED:  # this process, or one before it, ended before it was sent
                self._request(session, job, items, each.transaction_uid)
            elif _now() < each.deadline_at:
                with self._change(job) as tx:
                    deliveries.ask_later(
                        tx, *items, at=_now(), note=items[0].note, next_try_at=each.deadline_at
                    )
            else:
                self._overdue(session, job, items, each.transaction_uid)
        new = [d for d in which if d.id not in covered]
        if new and max(d.answers for d in new) >= self._retry.answers:
            self._switch_to_find(session, job, new, why=new[0].note)
        elif new:
            self._prepare_and_request(session, job, new)

    def _prepare_and_request(self, session: VerificationSession, job: Job, which: Sequence[Delivery]) -> None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"  # PS3.5 B.2
        with self._database.write() as tx:
            deadline = _now() + timedelta(seconds=session.deadline_s)
            commitments.prepare(tx, transaction_uid, which, at=_now(), deadline_at=deadline)
        crash_points.reach("commitment-prepared", transaction_uid)
        self._request(session, job, which, transaction_uid)

    def _request(
        self, session: VerificationSession, job: Job, which: Sequence[Delivery], transaction_uid: str
    ) -> None:
        wanted = tuple(Reference(d.result.sop_class_uid, d.result.sop_instance_uid) for d in which)
        answer = session.request(Request(transaction_uid, wanted))
        crash_points.reach("commitment-requested", transaction_uid)
        log.info(
            "commitment_requested", transaction_uid=transaction_uid, job_id=job.id, status=answer.status,
            destination=which[0].destination, count=len(which),
        )  # fmt: skip
        if answer.status != commitment.SUCCESS:
            note = f"commitment request answered with status 0x{answer.status:04X}"
            with self._change(job) as tx:
                commitments.close(tx, transaction_uid, State.REFUSED)
                commitments.ask_again(tx, which, at=_now(), delay=self._retry.delay, note=note, no=True)
            return
        now = _now()
        deadline = now + timedelta(seconds=session.deadline_s)
        with self._change(job) as tx:
            if commitments.requested(tx, transaction_uid, at=now, deadline_at=deadline):
                note = "waits for its report of storage commitment"
                deliveries.ask_later(tx, *which, at=now, note=note, next_try_at=deadline)
        crash_points.reach("commitment-noted", transaction_uid)
        session.linger(lambda: self._is_answered(transaction_uid))

    def _is_answered(self, transaction_uid: str) -> bool:
        with self._database.read() as tx:
            return commitments.is_answered(tx, transaction_uid)

    def _overdue(
        self, session: VerificationSession, job: Job, which: Sequence[Delivery], transaction_uid: str
    ) -> None:
        if session.finds:
            self._look(session, job, which, overdue=transaction_uid)
            return
        with self._change(job) as tx:
            commitments.close(tx, transaction_uid, State.OVERDUE)
            count = commitments.overdue_count(tx, job.id, which[0].destination)
        if count < _UNANSWERED_LIMIT:
            self._prepare_and_request(session, job, which)
        else:
            why = f"it never reported on {count} commitment requests"
            self._cannot_confirm(job, which, why=f"{why} and cannot be asked by C-FIND")

    def _switch_to_find(
        self, session: VerificationSession, job: Job, which: Sequence[Delivery], *, why: str
    ) -> None:
        """It takes no commitment request: ask whether it has the objects instead, now and from now on."""
        if not session.finds:
            self._cannot_confirm(job, which, why=f"{why}, and no C-FIND")
            return
        with self._change(job) as tx:
            deliveries.ask_by_find(tx, *which, at=_now(), note=why)
        self._look(session, job, [replace(d, verify=Verify.FIND, answers=0) for d in which])

    def _look(
        self, session: VerificationSession, job: Job, which: Sequence[Delivery], *, overdue: str | None = None
    ) -> None:
        """Ask whether it has the objects; what it has is committed, what it has not is sent again.

        Archives may list an object late, so that a no is believed at the third time only, or where the
        report of the request `overdue` has not come for so long.
        """
        series: dict[str, list[str]] = {}
        for delivery in which:
            series.setdefault(delivery.result.series_instance_uid, []).append(
                delivery.result.sop_instance_uid
            )
        found: set[str] = set()
        for series_uid, uids in series.items():
            answer = session.find(job.study_instance_uid, series_uid, uids)
            if answer.failure:
                self._ask_again(job, which, note=answer.failure)
                return
            found |= answer.sop_instance_uids
        there = [d for d in which if d.result.sop_instance_uid in found]
        missing = [d for d in which if d.result.sop_instance_uid not in found]
        no = f"not found by {session.asks_by}"
        with self._change(job) as tx:
            if overdue is not None:
                commitments.close(tx, overdue, State.OVERDUE)
            for each in there:
                but = f", though {each.denials} commitment reports denied it" if each.denials else ""
                deliveries.committed(tx, each, at=_now(), note=f"found by {session.asks_by}{but}")
            doubted = [d for d in missing if overdue is None and d.answers + 1 < self._retry.answers]
            commitments.ask_again(tx, doubted, at=_now(), delay=self._retry.delay, note=no, no=True)
            for each in missing:
                if each not in doubted:
                    commitments.send_again(tx, each, at=_now(), delay=self._retry.delay, note=no)
        log.info(
            "destination_asked", job_id=job.id, destination=which[0].destination, count=len(which),
            delivered_count=len(there),
        )  # fmt: skip

    def _send_denied_again(self, job: Job, which: Sequence[Delivery]) -> None:
        """Its reports deny these objects, and it cannot be queried: believe the reports."""
        with self._change(job) as tx:
            deliveries.trust_reports(tx, *which, at=_now(), note="it cannot be asked by C-FIND")
            for each in which:
                commitments.send_again(tx, each, at=_now(), delay=self._retry.delay, note=each.note)

    def _ask_again(self, job: Job, which: Sequence[Delivery], *, note: str) -> None:
        with self._change(job) as tx:
            commitments.ask_again(tx, which, at=_now(), delay=self._retry.delay, note=note)

    def _cannot_confirm(self, job: Job, which: Sequence[Delivery], *, why: str) -> None:
        if not which:
            return
        note = f'{why}: enable storage commitment or C-FIND there, or set verify = "none"'
        with self._change(job) as tx:
            deliveries.cannot_confirm(tx, *which, at=_now(), note=note)
        log.warning("destination_cannot_confirm", job_id=job.id, destination=which[0].destination)

    @contextmanager
    def _change(self, job: Job) -> Iterator[Transaction]:
        """One transaction, at whose end the engine is given what the job needs next."""
        with self._database.write() as tx:
            yield tx
            current = jobs.find(tx, job.id)
            if current is not None:
                self._enqueue(tx, current)


def _is_early(owed: Sequence[Delivery]) -> bool:
    """Whether nothing is due yet: this workflow was meant for a request that was reported on since."""
    soon = _now() + timedelta(seconds=_EARLY_S)
    return all(d.next_try_at is not None and d.next_try_at > soon for d in owed)


def _now() -> datetime:
    return datetime.now(UTC)
