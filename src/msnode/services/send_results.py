"""Sends what a job still owes to one destination; whatever fails for now becomes a later workflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from msnode import crash_points
from msnode.deliver.destination import Outcome, ResultObject, SendResult
from msnode.errors import DeliveryRefused, OutOfResources, StoredBytesChanged, Transient
from msnode.record import audit, deliveries, jobs
from msnode.store import check_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from msnode.deliver.destination import Destination
    from msnode.deliver.retry import RetryPolicy
    from msnode.record.database import Database, Transaction
    from msnode.record.delivery import Delivery
    from msnode.record.job import Job
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
        crash_points.reach("delivery-began", destination)
        changed = self._changed(owed)
        results = self._send([d for d in owed if d not in changed], destination)
        crash_points.reach("objects-sent", destination)
        with self._database.write() as tx:
            self._give_up(tx, changed)
            self._note(tx, [d for d in owed if d not in changed], results)
            job = jobs.find(tx, job_id)
            if job is not None:
                self._enqueue(tx, job)
        crash_points.reach("delivery-noted", destination)
        done = sum(r.outcome.is_delivered for r in results.values())
        log.info(
            "delivery_tried", job_id=job_id, destination=destination, count=len(owed), delivered_count=done,
            attempt=max(d.attempts for d in owed) + 1,
        )  # fmt: skip

    def _path(self, delivery: Delivery) -> Path:
        return self._store.set_path(delivery.result_set or "") / delivery.result.path

    def _changed(self, owed: Sequence[Delivery]) -> dict[Delivery, StoredBytesChanged]:
        """Those whose files in the store are not what was written."""
        changed: dict[Delivery, StoredBytesChanged] = {}
        for delivery in owed:
            try:
                check_digest(self._path(delivery), delivery.result.sha256)
            except StoredBytesChanged as error:
                changed[delivery] = error
            except OutOfResources:  # told, and tried again, when it is to be sent
                continue
        return changed

    def _give_up(self, tx: Transaction, changed: Mapping[Delivery, StoredBytesChanged]) -> None:
        """An object that is not what was written is never sent: its job fails and needs a person."""
        for delivery, error in changed.items():
            now, uid = datetime.now(UTC), delivery.result.sop_instance_uid
            deliveries.gave_up(tx, delivery, at=now, note=f"not sent, it has changed in the store: {error}")
            audit.stored_bytes_changed(tx, error, at=now, job_id=delivery.job_id, sop_instance_uid=uid)
            log.error(
                "stored_bytes_changed", job_id=delivery.job_id, destination=delivery.destination,
                sop_instance_uid=uid, error=error,
            )  # fmt: skip

    def _send(self, owed: Sequence[Delivery], name: str) -> dict[str, SendResult]:
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
                objects.append(ResultObject.from_file(delivery.result.kind, self._path(delivery)))
            except DeliveryRefused as error:
                results[uid] = SendResult(uid, Outcome.REFUSED, None, str(error))
            except Transient as error:
                results[uid] = SendResult(uid, Outcome.TRY_LATER, None, str(error))
        if destination is not None and objects:
            try:
                answers = destination.send(objects)
            except Transient as error:
                answers = tuple(
                    SendResult(o.sop_instance_uid, Outcome.TRY_LATER, None, str(error)) for o in objects
                )
            results.update((answer.sop_instance_uid, answer) for answer in answers)
        return results

    def _note(self, tx: Transaction, owed: Sequence[Delivery], results: Mapping[str, SendResult]) -> None:
        now = datetime.now(UTC)
        arrived: dict[tuple[int | None, str], list[Delivery]] = {}
        for delivery in owed:
            result = results[delivery.result.sop_instance_uid]
            note = f"{result.text}: {result.comment}" if result.comment else result.text
            if result.outcome.is_delivered:
                arrived.setdefault((result.status, note), []).append(delivery)
            elif result.outcome is Outcome.UNCLEAR and delivery.answers + 1 >= self._retry.answers:
                why = f"{note}, {delivery.answers + 1} times"
                deliveries.refused(tx, delivery, at=now, status=result.status, note=why)
            elif result.outcome.is_final:
                deliveries.refused(tx, delivery, at=now, status=result.status, note=note)
            else:
                self._put_off(tx, delivery, result, at=now, note=note)
        for (status, note), which in arrived.items():
            deliveries.delivered(tx, *which, at=now, status=status, note=note)

    def _put_off(
        self, tx: Transaction, delivery: Delivery, result: SendResult, *, at: datetime, note: str
    ) -> None:
        attempt = delivery.attempts + 1
        delay = self._retry.delay(attempt, f"{delivery.job_id}/{delivery.destination}")
        if delay is None:
            why = f"given up after {attempt} tries: {note}"
            deliveries.gave_up(tx, delivery, at=at, status=result.status, note=why)
        else:
            later = at + timedelta(seconds=delay)
            deliveries.postpone(tx, delivery, at=at, note=note, status=result.status, next_try_at=later)
