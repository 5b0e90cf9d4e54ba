"""Between the record, which says what a job needs next, and the engine, which runs it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from msnode.errors import OutOfResources
from msnode.record import promises, work
from msnode.record.job import Priority

if TYPE_CHECKING:
    from collections.abc import Callable

    from msnode.engine.engine import Engine
    from msnode.record.database import Database, Transaction
    from msnode.record.job import Job
    from msnode.record.promises import OpenReport
    from msnode.record.work import Work

log = structlog.get_logger()

_AT_ONCE = 100
_PAUSES_S = (0.5, 1.0, 2.0, 5.0)


class Dispatcher:
    """Has the engine run what a job needs next, in the transaction that changed the job."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, tx: Transaction, job: Job) -> None:
        """Enqueue `work.of_job`; what is already enqueued stays as it is."""
        for each in work.of_job(tx, job):
            self.enqueue(tx, each)

    def enqueue(self, tx: Transaction, each: Work) -> None:
        """Enqueue one workflow."""
        self._engine.enqueue(
            tx, each.workflow, each.workflow_id, each.queue, *each.arguments,
            delay_s=work.delay_s(each.not_before, datetime.now(UTC)), priority=each.priority,
        )  # fmt: skip

    def enqueue_report(self, tx: Transaction, open_: OpenReport) -> None:
        """Enqueue the answer to a peer's commitment request."""
        self._engine.enqueue(
            tx, work.REPORT, open_.workflow_id, work.REPORT, open_.id,
            delay_s=work.delay_s(open_.not_before, datetime.now(UTC)), priority=Priority.ROUTINE,
        )  # fmt: skip

    def reconcile(self, database: Database) -> None:
        """At start: enqueue what should run; what the engine knows already stays as it is."""
        with database.read() as tx:
            expected, reports = work.expected(tx), promises.open_reports(tx)
        with database.write() as tx:
            for each_report in reports:
                self.enqueue_report(tx, each_report)
        for begin in range(0, len(expected), _AT_ONCE):
            with database.write() as tx:
                for each in expected[begin : begin + _AT_ONCE]:
                    self.enqueue(tx, each)

    def fail_dead_workflows(self, database: Database) -> None:
        """Fail what the engine gave up, once; its workflows are then forgotten there."""
        dead = self._engine.dead_workflows()
        for each in dead:
            log.error("workflow_dead", workflow_id=each.workflow_id)
            with database.write() as tx:
                work.fail_dead_workflow(tx, each.workflow_id, at=datetime.now(UTC), why=each.reason)
        if dead:
            self._engine.forget([each.workflow_id for each in dead])


def retry_until_recorded(
    run: Callable[..., None], wait: Callable[[float], object] = time.sleep
) -> Callable[..., None]:
    """The same function, called again until the record can be used.

    Every workflow may be run again from its beginning, so a database that is full, locked or gone for a
    while only delays it. At the end of the process the engine keeps it for the next one.
    """

    def run_until_recorded(*arguments: int | str) -> None:
        tries = 0
        while True:
            try:
                run(*arguments)
            except OutOfResources as error:
                log.warning("record_waited_for", error=error)
                wait(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
                tries += 1
            else:
                return

    return run_until_recorded
