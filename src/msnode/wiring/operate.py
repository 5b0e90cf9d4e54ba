"""What an administrator has the node do, from any process, while it runs or not."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msnode.engine.engine import Engine
from msnode.errors import InvalidTransition
from msnode.record import administration, jobs
from msnode.record.jobs import JobState
from msnode.wiring.dispatch import Dispatcher
from msnode.wiring.existing import existing_record
from msnode.wiring.node import open_store
from msnode.wiring.routing import Router, routed, rules_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from msnode.record.database import Database
    from msnode.record.jobs import Job
    from msnode.settings import Settings


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Database, Engine]]:
    database, engine = existing_record(settings), Engine(settings.database_url)
    try:
        yield database, engine
    finally:
        engine.stop()
        database.close()


def retry_job(settings: Settings, job_id: int) -> Job:
    """Have a job tried again.

    Raises:
        InvalidTransition: there is nothing to retry.
    """
    with _opened(settings) as (database, engine):
        columns = _routed(settings, database, job_id)
        with database.write() as tx:
            job = administration.retry(tx, job_id, at=datetime.now(UTC), routed=columns)
            Dispatcher(engine)(tx, job)
    return job


def _routed(settings: Settings, database: Database, job_id: int) -> Mapping[str, Any]:
    """What routing decides for a study that is still coming in and is to be read with what there is."""
    with database.read() as tx:
        job = jobs.find(tx, job_id)
    if job is None or job.state != JobState.RECEIVING:
        return {}
    router = Router(rules_of(settings), settings, database, open_store(settings))
    return routed(job, router.decide(job.study_instance_uid, datetime.now(UTC)))


def retry_failed(settings: Settings) -> tuple[Job, ...]:
    """Have every failed job tried again, each in a transaction of its own; returns them as they are now.

    One that somebody else moved on meanwhile is left to him.
    """
    tried = []
    with _opened(settings) as (database, engine):
        with database.read() as tx:
            failed = jobs.in_states(tx, [JobState.FAILED])
        for each in failed:
            with suppress(InvalidTransition), database.write() as tx:
                job = administration.retry(tx, each.id, at=datetime.now(UTC))
                Dispatcher(engine)(tx, job)
                tried.append(job)
    return tuple(tried)


def hurry_job(settings: Settings, job_id: int) -> Job:
    """Have a waiting job read before the others.

    Raises:
        InvalidTransition: there is no such job, or it waits no longer.
    """
    with _opened(settings) as (database, engine):
        with database.write() as tx:
            job, works = administration.hurry(tx, job_id, at=datetime.now(UTC))
            Dispatcher(engine)(tx, job)
        for each in works:
            engine.cancel(each.workflow_id)
    return job


def cancel_job(settings: Settings, job_id: int) -> Job:
    """End a job.

    Raises:
        InvalidTransition: there is no such job, or it has ended.
    """
    with _opened(settings) as (database, engine):
        with database.write() as tx:
            works = administration.cancel(tx, job_id, at=datetime.now(UTC))
            job = jobs.find(tx, job_id)
        for each in works:
            engine.cancel(each.workflow_id)
    if job is None:
        raise InvalidTransition(f"there is no job {job_id}")
    return job
