"""The node's processes: what each is made of, and how it runs until told to stop."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

import msnode
from msnode import logs
from msnode.association import DicomAddress
from msnode.deliver import DESTINATION_TYPES
from msnode.deliver.destination import RetryPolicy
from msnode.engine import Engine, create_tables
from msnode.errors import ConfigurationError, InvalidTransition, OutOfResources
from msnode.record import administration, jobs, work
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.record.jobs import JobState
from msnode.sender import Sender
from msnode.series.assemble import Timers, assess
from msnode.settings import DicomDestination
from msnode.store import Store
from msnode.wiring.existing import existing_record
from msnode.wiring.model import check_model
from msnode.wiring.supervisor import StopSignal, supervise
from msnode.worker import InferenceChild, Limits, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from msnode.deliver.destination import Destination
    from msnode.domain import StudyArrivals
    from msnode.record.database import Transaction
    from msnode.record.jobs import Job
    from msnode.record.work import Work
    from msnode.settings import Settings

log = structlog.get_logger()

_ASSEMBLE_S = 0.5
_RECONCILE_S = 5.0
_DELIVERIES_AT_ONCE = 4
_STOP_S = 10


def configure_logs(settings: Settings) -> None:
    """Logs to stderr as the configuration says."""
    logs.configure(json=settings.node.log_format == "json", level=settings.node.log_level)


def open_store(settings: Settings) -> Store:
    """The store below data_dir.

    Raises:
        ConfigurationError: data_dir cannot be made or written.
    """
    try:
        return Store(settings.node.data_dir / "store")
    except OSError as error:
        raise ConfigurationError(f"node.data_dir {settings.node.data_dir}: {error.strerror}") from None


def prepare(settings: Settings) -> None:
    """Folders, database schema and the engine's tables; before any role starts."""
    open_store(settings)
    upgrade(settings.database_url)
    create_tables(settings.database_url)


def retry_job(settings: Settings, job_id: int) -> Job:
    """Have a job tried again, by an administrator, while the node runs or not.

    Raises:
        InvalidTransition: there is nothing to retry.
    """
    database, engine = existing_record(settings), Engine(settings.database_url)
    with database.write() as tx:
        job = administration.retry(tx, job_id, at=datetime.now(UTC))
        Dispatcher(engine)(tx, job)
    engine.stop()
    return job


def cancel_job(settings: Settings, job_id: int) -> Job:
    """End a job, by an administrator, while the node runs or not.

    Raises:
        InvalidTransition: there is no such job, or it has ended.
    """
    database, engine = existing_record(settings), Engine(settings.database_url)
    with database.write() as tx:
        works = administration.cancel(tx, job_id, at=datetime.now(UTC))
        job = jobs.find(tx, job_id)
    for each in works:
        engine.cancel(each.workflow_id)
    engine.stop()
    if job is None:
        raise InvalidTransition(f"there is no job {job_id}")
    return job


def destinations(settings: Settings) -> Mapping[str, Destination]:
    """The configured destinations, by name."""
    made: dict[str, Destination] = {}
    for each in settings.destinations:
        common = {"name": each.name, "objects": frozenset(each.objects)}
        if isinstance(each, DicomDestination):
            address = DicomAddress(each.ae_title, each.host, each.port)
            made[each.name] = DESTINATION_TYPES[each.type](
                **common, address=address, calling_ae=settings.node.ae_title
            )
        else:
            made[each.name] = DESTINATION_TYPES[each.type](**common, folder=each.path)
    return made


class Dispatcher:
    """Has the engine run what a job needs next, in the transaction that changed the job."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, tx: Transaction, job: Job) -> None:
        """Enqueue `work.of_job`; what is already enqueued stays as it is."""
        for each in work.of_job(tx, job):
            self.enqueue(tx, each)

    def enqueue(self, tx: Transaction, each: Work) -> None:
        """Enqueue one workflow on the queue of its name."""
        delay_s = each.delay_s(datetime.now(UTC))
        self._engine.enqueue(
            tx, each.workflow, each.workflow_id, each.workflow, *each.arguments, delay_s=delay_s
        )

    def reconcile(self, database: Database) -> None:
        """At start: enqueue what should run; what the engine knows already stays as it is."""
        with database.write() as tx:
            for each in work.expected(tx):
                self.enqueue(tx, each)

    def bury_the_dead(self, database: Database) -> None:
        """Fail the jobs whose workflow the engine gave up."""
        with database.read() as tx:
            expected = {each.workflow_id: each for each in work.expected(tx)}
        for dead in self._engine.dead_workflows(expected):
            log.error("workflow dead", workflow_id=dead.workflow_id)
            with database.write() as tx:
                work.bury(tx, expected[dead.workflow_id], at=datetime.now(UTC), why=dead.reason)


def run_receiver(settings: Settings) -> None:
    """Listen, and queue every study that is complete, until told to stop."""
    from msnode.wiring.receiving import make_receiver  # noqa: PLC0415 - the others do not need pynetdicom's server

    stop = StopSignal()
    prepare(settings)
    database, store = Database(settings.database_url), open_store(settings)
    arrivals, engine = Arrivals(database), Engine(settings.database_url)
    cut_off = arrivals.close_open_associations(at=datetime.now(UTC))
    receiver = make_receiver(settings, store, arrivals)
    receiver.start()
    log.info("receiver listening", port=receiver.port, count=cut_off)
    timers = Timers(**settings.completeness.model_dump())
    dispatch = Dispatcher(engine)
    try:
        while not stop.wait(_ASSEMBLE_S):
            _look_at_studies(database, arrivals, timers, dispatch)
    finally:
        receiver.stop()
        engine.stop()
        database.close()


def _look_at_studies(database: Database, arrivals: Arrivals, timers: Timers, dispatch: Dispatcher) -> None:
    try:
        for study in arrivals.waiting_studies():
            verdict = assess(study, datetime.now(UTC), timers)
            if verdict.complete:
                _queue(database, study, verdict.reason, dispatch)
            elif verdict.next_look_at is None:
                _hold(database, study, verdict.reason)
    except OutOfResources as error:
        log.warning("studies not looked at", error=error)  # the next look comes in half a second


def _queue(database: Database, study: StudyArrivals, why: str, dispatch: Dispatcher) -> None:
    with database.write() as tx:
        job = jobs.find(tx, study.job_id)
        if job is None or job.state != JobState.RECEIVING:
            return
        dispatch(tx, jobs.move(tx, job, JobState.QUEUED, at=datetime.now(UTC), why=why))
    log.info("study complete", job_id=job.id, study_instance_uid=study.study_instance_uid)


def _hold(database: Database, study: StudyArrivals, why: str) -> None:
    """Say once why a study waits that time alone will not complete."""
    with database.read() as tx:
        job = jobs.find(tx, study.job_id)
    if job is None or job.reason == why:
        return
    with database.write() as tx:
        jobs.explain(tx, job, why)
    log.warning("study held", job_id=job.id, study_instance_uid=study.study_instance_uid)


def run_worker(settings: Settings) -> None:
    """Read queued jobs, one at a time, until told to stop.

    Raises:
        ConfigurationError: see `check_model`.
    """
    stop = StopSignal()
    check_model(settings)
    prepare(settings)
    database, engine = Database(settings.database_url), Engine(settings.database_url)
    limits = Limits(settings.model.time_limit_s, settings.model.memory_limit_mb * 2**20)
    child = InferenceChild(partial(make_job_reader, settings), limits)
    child.start()
    dispatch = Dispatcher(engine)
    takes = {d.name: d.objects for d in settings.destinations}
    worker = Worker(database, child, dispatch, takes, attempts=settings.model.attempts)
    engine.serve("worker-1", {work.JOB: worker.run}, {work.JOB: 1})
    dispatch.reconcile(database)
    _serve_until(stop, engine, lambda: dispatch.bury_the_dead(database), database)
    child.stop()


def run_sender(settings: Settings) -> None:
    """Deliver result sets until told to stop."""
    stop = StopSignal()
    prepare(settings)
    database, engine = Database(settings.database_url), Engine(settings.database_url)
    retry = RetryPolicy(**settings.retry.model_dump())
    sender = Sender(database, open_store(settings), destinations(settings), retry, Dispatcher(engine))
    engine.serve("sender-1", {work.DELIVER: sender.run}, {work.DELIVER: _DELIVERIES_AT_ONCE})
    _serve_until(stop, engine, lambda: None, database)


def _serve_until(stop: StopSignal, engine: Engine, look: Callable[[], None], database: Database) -> None:
    try:
        look()
        while not stop.wait(_RECONCILE_S):
            look()
    finally:
        engine.stop(wait_s=_STOP_S)
        database.close()


def make_job_reader(settings: Settings) -> Callable[[int], dict[str, Any]]:
    """In the worker's child: the model loaded, and the function that reads one job's study.

    Returns:
        job id → what the committed result set holds (`result.json`), with its key under "result_set".
    """
    from msnode.wiring.reader import Reader, read_job  # noqa: PLC0415 - OpenVINO belongs to the child alone

    configure_logs(settings)
    reader = Reader(settings)
    reader.predictor()
    database, store = Database(settings.database_url), open_store(settings)
    return partial(read_job, reader, database, Arrivals(database), store)


RUN: Mapping[str, Callable[[Settings], None]] = {
    "receiver": run_receiver,
    "worker": run_worker,
    "sender": run_sender,
}


def run_all(settings: Settings, config: Path | None) -> None:
    """Every role, supervised.

    Raises:
        ConfigurationError: model, device or data_dir is not there, or a role refused to start.
    """
    check_model(settings)
    prepare(settings)
    open_store(settings).sweep()
    log.info("node starting", version=msnode.__version__)
    supervise(config)
