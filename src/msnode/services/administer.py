"""What an administrator has the node do, from any process, while it runs or not."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msnode.errors import InvalidTransition
from msnode.record import administration, jobs
from msnode.record.job import JobState
from msnode.services.dispatch import Dispatcher
from msnode.services.router import routed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from msnode.engine.engine import Engine
    from msnode.record.database import Database
    from msnode.record.job import Job
    from msnode.services.router import Router


class Administrator:
    """Changes jobs, and has the engine run what they need next.

    Args:
        database: the record.
        engine: runs what a job needs next.
        open_router: gives what decides about a study that is read before it is complete.
    """

    def __init__(self, database: Database, engine: Engine, open_router: Callable[[], Router]) -> None:
        self._database = database
        self._engine = engine
        self._dispatch = Dispatcher(engine)
        self._open_router = open_router

    def retry(self, job_id: int) -> Job:
        """Have a job tried again.

        Raises:
            InvalidTransition: there is nothing to retry.
            ConfigurationError: the routing rules are wrong, and the job needs them.
        """
        columns = self._routed(job_id)
        with self._database.write() as tx:
            job = administration.retry(tx, job_id, at=datetime.now(UTC), routed=columns)
            self._dispatch(tx, job)
        return job

    def _routed(self, job_id: int) -> Mapping[str, Any]:
        """What routing decides for a study that is still coming in and is to be read with what there is."""
        with self._database.read() as tx:
            job = jobs.find(tx, job_id)
        if job is None or job.state != JobState.RECEIVING:
            return {}
        return routed(job, self._open_router().decide(job.study_instance_uid, datetime.now(UTC)))

    def retry_failed(self) -> tuple[Job, ...]:
        """Have every failed job tried again, each in a transaction of its own; returns them as they are now.

        One that somebody else changed meanwhile is left alone.
        """
        tried = []
        with self._database.read() as tx:
            failed = jobs.in_states(tx, [JobState.FAILED])
        for each in failed:
            with suppress(InvalidTransition), self._database.write() as tx:
                job = administration.retry(tx, each.id, at=datetime.now(UTC))
                self._dispatch(tx, job)
                tried.append(job)
        return tuple(tried)

    def hurry(self, job_id: int) -> Job:
        """Have a waiting job read before the others.

        Raises:
            InvalidTransition: there is no such job, or it waits no longer.
        """
        with self._database.write() as tx:
            job, works = administration.hurry(tx, job_id, at=datetime.now(UTC))
            self._dispatch(tx, job)
        for each in works:
            self._engine.cancel(each.workflow_id)
        return job

    def cancel(self, job_id: int) -> Job:
        """End a job.

        Raises:
            InvalidTransition: there is no such job, or it has ended.
        """
        with self._database.write() as tx:
            works = administration.cancel(tx, job_id, at=datetime.now(UTC))
            job = jobs.find(tx, job_id)
        for each in works:
            self._engine.cancel(each.workflow_id)
        if job is None:
            raise InvalidTransition(f"there is no job {job_id}")
        return job
