"""Sends what a job still owes to one destination; whatever fails for now becomes a later workflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from msnode.deliver.destination import Outcome, ResultObject, SendResult
from msnode.errors import DeliveryRefused, Transient
from msnode.record import deliveries, jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from msnode.deliver.destination import Destination, RetryPolicy
    from msnode.record.database import Database, Transaction
    from msnode.record.deliveries import Delivery
    from msnode.record.jobs import Job
    from msnode.store import Store

log = structlog.get_logger()


class Sender:
    """Runs the workflow `deliver`.

    Args:
        database: the record.
        store: where result sets lie.
        destinations: those of the configuration, by name.
        retry: when to try again, and when to give up.
        enqueue: has the engine run what the job needs next, in the given transaction.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        destinations: Mapping[str, Destination],
        retry: RetryPolicy,
        enqueue: Callable[[Transaction, Job], None],
    ) -> None:
        self._database = database
        self._store = store
        self._destinations = destinations
        self._retry = retry
        self._enqueue = enqueue

    def run(self, job_id: int, destination: str) -> None:
        """Send what this destination has still to get of the job; safe to call again after a crash."""
        with self._database.read() as tx:
            owed = deliveries.pending(tx, job_id, destination)
        if not owed:
            return
        attempt = max(d.attempts for d in owed) + 1
        results = self._send(owed, destination, attempt)
        with self._database.write() as tx:
            for delivery in owed:
                self._note(tx, delivery, results[delivery.result.sop_instance_uid], attempt)
            job = jobs.find(tx, job_id)
            if job is not None:
                self._enqueue(tx, job)
        done = sum(r.outcome.is_delivered for r in results.values())
        log.info(
            "delivery tried", job_id=job_id, destination=destination, attempt=attempt,
            count=len(owed), delivered_count=done,
        )  # fmt: skip

    def _send(self, owed: Sequence[Delivery], name: str, attempt: int) -> dict[str, SendResult]:
        """One result for each delivery, by SOP Instance UID."""
        results: dict[str, SendResult] = {}
        destination = self._destinations.get(name)
        objects = []
        for delivery in owed:
            uid = delivery.result.sop_instance_uid
            if destination is None or not destination.takes(delivery.result.kind):
                text = "the configuration no longer sends this object there"
                results[uid] = SendResult(uid, Outcome.REFUSED, None, text)
                continue
            try:
                path = self._store.set_path(delivery.result_set or "") / delivery.result.path
                objects.append(ResultObject.from_file(delivery.result.kind, path))
            except DeliveryRefused as error:
                results[uid] = SendResult(uid, Outcome.REFUSED, None, str(error))
        if destination is not None and objects:
            try:
                answers = destination.send(objects, attempt=attempt)
            except Transient as error:
                answers = tuple(
                    SendResult(o.sop_instance_uid, Outcome.TRY_LATER, None, str(error)) for o in objects
                )
            results.update((answer.sop_instance_uid, answer) for answer in answers)
        return results

    def _note(self, tx: Transaction, delivery: Delivery, result: SendResult, attempt: int) -> None:
        now = datetime.now(UTC)
        note = f"{result.text}: {result.comment}" if result.comment else result.text
        if result.outcome.is_delivered:
            deliveries.delivered(tx, delivery, at=now, status=result.status, note=note)
        elif result.outcome.is_final:
            deliveries.refused(tx, delivery, at=now, status=result.status, note=note)
        else:
            delay = self._retry.delay(attempt, f"{delivery.job_id}/{delivery.destination}")
            if delay is None:
                why = f"given up after {attempt} tries: {note}"
                deliveries.gave_up(tx, delivery, at=now, status=result.status, note=why)
            else:
                later = now + timedelta(seconds=delay)
                deliveries.postpone(tx, delivery, at=now, note=note, status=result.status, next_try_at=later)
