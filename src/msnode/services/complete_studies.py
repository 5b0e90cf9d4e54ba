"""Queues studies once they are complete; says which wait, and for whom a person should look."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from msnode import crash_points
from msnode.errors import OutOfResources
from msnode.record import jobs
from msnode.record.database import lock
from msnode.record.job import JobState
from msnode.record.overview import overdue
from msnode.record.studies import study_lock
from msnode.record.waiting import WaitingStudies
from msnode.series.assemble import assess
from msnode.services.clock import WallClock
from msnode.services.router import queue

if TYPE_CHECKING:
    from msnode.domain.arrivals import StudyArrivals
    from msnode.engine.engine import Engine
    from msnode.record.arrivals import Arrivals
    from msnode.record.database import Database
    from msnode.series.assemble import Timers
    from msnode.services.dispatch import Dispatcher
    from msnode.services.router import Router

log = structlog.get_logger()


class StudyCompletion:
    """Checks, whenever it is told to, the studies that are coming in.

    Args:
        timers: when a study counts as complete.
        alarm_after_s: a job that has waited longer than this is an alarm, seconds.
        database: the record.
        router: decides what becomes of a study.
        arrivals: the ledger.
        engine: knows which other receivers live.
        dispatch: queues a job.
        clock: by which timers run; the record's if None.
    """

    def __init__(
        self,
        timers: Timers,
        alarm_after_s: float,
        database: Database,
        router: Router,
        arrivals: Arrivals,
        *,
        engine: Engine,
        dispatch: Dispatcher,
        clock: WallClock | None = None,
    ) -> None:
        self._timers = timers
        self._alarm_after_s = alarm_after_s
        self._database = database
        self._router = router
        self._arrivals = arrivals
        self._waiting = WaitingStudies(database, quiet_s=timers.shortest_s)
        self._clock = WallClock(database.now) if clock is None else clock
        self._engine = engine
        self._dispatch = dispatch
        self._suspects: frozenset[str] = frozenset()
        self._alarmed: set[int] = set()

    def queue_complete(self) -> None:
        """Queue the studies that are complete; say once why another is held.

        Where the clock was set, all timers begin anew: no study is complete early, and none is late by more
        than one quiet time.
        """
        try:
            clock = self._clock.read()
            if clock is None:
                return
            if clock.step_s:
                log.warning("clock_stepped", step_s=round(clock.step_s))
                self._waiting.restart_timers(clock.now)
            for study in self._waiting.due(clock.now):
                verdict = assess(study, clock.now, self._timers)
                if verdict.complete:
                    self._queue(study, verdict.reason)
                    continue
                if verdict.held:
                    self._hold(study, verdict.reason)
                self._waiting.check_again_at(study, verdict.next_look_at)
        except OutOfResources as error:  # they are checked again in half a second
            log.warning("studies_not_checked", error=error)

    def check_receivers_and_ages(self) -> None:
        """End what dead receivers left open, and raise the alarm for jobs that wait too long."""
        try:
            self._close_associations_of_dead_receivers()
            self._alarm()
        except OutOfResources as error:
            log.warning("receivers_and_ages_not_checked", error=error)

    def _queue(self, study: StudyArrivals, why: str) -> None:
        crash_points.reach("study-complete", study.study_instance_uid)
        decision = self._router.decide(study.study_instance_uid, datetime.now(UTC))
        with self._database.write() as tx:
            # An instance that comes now is read with the study, or finds it queued and makes a revision.
            lock(tx, study_lock(study.study_instance_uid))
            job = jobs.find(tx, study.job_id)
            if job is None or job.state != JobState.RECEIVING:
                return
            moved = queue(tx, job, decision, at=datetime.now(UTC), why=why)
            self._dispatch(tx, moved)
        crash_points.reach("study-queued", study.study_instance_uid)
        log.info(
            "study_complete", job_id=job.id, study_instance_uid=study.study_instance_uid, state=moved.state
        )

    def _hold(self, study: StudyArrivals, why: str) -> None:
        """Say once why a study waits for its sender."""
        with self._database.read() as tx:
            job = jobs.find(tx, study.job_id)
        if job is None or job.reason == why:
            return
        with self._database.write() as tx:
            jobs.explain(tx, job, why)
        log.warning("study_held", job_id=job.id, study_instance_uid=study.study_instance_uid)

    def _close_associations_of_dead_receivers(self) -> None:
        """A receiver whose lock is free twice in a row is dead, and what it had open was cut off."""
        free = frozenset(name for name in self._arrivals.open_receivers() if self._engine.is_free(name))
        for name in free & self._suspects:
            count = self._arrivals.close_open_associations(name, at=datetime.now(UTC))
            log.warning("receiver_dead", executor_id=name, count=count)
        self._suspects = free - self._suspects

    def _alarm(self) -> None:
        now = datetime.now(UTC)
        with self._database.read() as tx:
            late = overdue(tx, now=now, alarm_after_s=self._alarm_after_s)
        for job in late:
            if job.id not in self._alarmed:
                age_s = (now - job.created_at).total_seconds()
                log.error("job_waits_too_long", job_id=job.id, state=job.state, age_s=round(age_s))
        self._alarmed = {job.id for job in late}
