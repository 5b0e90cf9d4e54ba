"""The node's processes: what each is made of, and how it runs until told to stop."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog

import msnode
from msnode import logs
from msnode.deliver.retry import RetryPolicy
from msnode.engine.engine import Engine, QueueSlots
from msnode.engine.tables import create_tables
from msnode.errors import OutOfResources
from msnode.record import work
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.segment.runtime import choose_gpu
from msnode.series.assemble import Timers
from msnode.services.answer_commitments import CommitmentResponder
from msnode.services.complete_studies import StudyCompletion
from msnode.services.confirm_storage import Verifier
from msnode.services.dispatch import Dispatcher, retry_until_recorded
from msnode.services.inference_child import InferenceChild, Limits
from msnode.services.read_jobs import Worker
from msnode.services.run import StopSignal, run_checks, run_completion
from msnode.services.send_results import Sender
from msnode.services.upkeep import Upkeep
from msnode.store import Store
from msnode.wiring.destinations import destinations, recipients, reporting_addresses, verifiable
from msnode.wiring.model import check_model
from msnode.wiring.routing import check_routing, make_router, rules_of
from msnode.wiring.supervisor import Process, supervise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from msnode.reading.summary import ReadingSummary
    from msnode.settings import Settings

log = structlog.get_logger()

_STOP_S = 10
_FORMER_DELIVER_QUEUE = "deliver"
"""Where version 0.2 queued deliveries; what it left there is still sent."""


def executor_id(settings: Settings, role: str, instance: int) -> str:
    """The stable name of one process among all that share the record."""
    return f"{role}-{settings.host}-{instance}"


def configure_logs(settings: Settings) -> None:
    """Logs to stderr as the configuration says."""
    logs.configure(json=settings.node.log_format == "json", level=settings.node.log_level)


def open_store(settings: Settings) -> Store:
    """The store below data_dir.

    Raises:
        ConfigurationError: data_dir cannot be made or written.
        OutOfResources: not now: it is full, or the machine that has it does not answer.
    """
    return Store(settings.node.data_dir / "store")


def prepare(settings: Settings) -> None:
    """Folders, database schema and the engine's tables; before any role starts.

    A full data_dir keeps no process from starting: the receiver then answers 0xA700 until there is room.

    Raises:
        ConfigurationError: data_dir cannot be used, or does not keep what is written there.
        OutOfResources: the database does not answer.
    """
    try:
        open_store(settings).self_test()
    except OutOfResources as error:
        log.warning("store_not_tested", error=error)
    upgrade(settings.database_url)
    create_tables(settings.database_url)


def run_receiver(settings: Settings, instance: int) -> None:
    """Listen, and queue every study that is complete, until told to stop.

    Raises:
        ConfigurationError: see `routing.rules_of`.
    """
    from msnode.wiring.receiving import make_receiver  # noqa: PLC0415 - the others do not need pynetdicom's server

    stop = StopSignal()
    rules_of(settings)  # refuse a wrong file before anything is opened
    prepare(settings)
    database, store = Database(settings.database_url), open_store(settings)
    engine, name = Engine(settings.database_url), executor_id(settings, "receiver", instance)
    engine.hold(name)
    arrivals, dispatch = Arrivals(database, receiver=name), Dispatcher(engine)
    cut_off = arrivals.close_open_associations(name, at=datetime.now(UTC))
    receiver = make_receiver(settings, store, arrivals, database, dispatch)
    completion = StudyCompletion(
        Timers(**settings.completeness.model_dump()), settings.priority.alarm_after_s, database,
        make_router(settings, database, store), arrivals, engine=engine, dispatch=dispatch,
    )  # fmt: skip
    receiver.start()
    log.info("receiver_listening", port=receiver.port, count=cut_off)
    try:
        run_completion(stop, completion)
    finally:
        receiver.stop()
        engine.stop()
        database.close()


def run_worker(settings: Settings, instance: int) -> None:
    """Read queued jobs, one at a time, until told to stop.

    Raises:
        ConfigurationError: see `check_model` and `check_routing`.
    """
    stop = StopSignal()
    check_model(settings)
    check_routing(settings)
    prepare(settings)
    database, engine = Database(settings.database_url), Engine(settings.database_url)
    limits = Limits(settings.model.time_limit_s, settings.model.memory_limit_mb * 2**20)
    child = InferenceChild(partial(make_job_reader, settings, instance), limits)
    child.start()
    dispatch = Dispatcher(engine)
    worker = Worker(database, child, dispatch, recipients(settings), attempts=settings.model.attempts)
    engine.serve(
        executor_id(settings, "worker", instance),
        {work.JOB: retry_until_recorded(worker.run)},
        {work.JOB: QueueSlots(per_process=1)},
    )
    dispatch.reconcile(database)
    try:
        run_checks(stop, [lambda: dispatch.fail_dead_workflows(database)])
    finally:
        engine.stop(wait_s=_STOP_S)
        database.close()
        child.stop()


def run_sender(settings: Settings, instance: int) -> None:
    """Deliver result sets, and see that they are kept, until told to stop."""
    stop = StopSignal()
    prepare(settings)
    database, engine = Database(settings.database_url), Engine(settings.database_url)
    store, dispatch = open_store(settings), Dispatcher(engine)
    retry = RetryPolicy(**settings.retry.model_dump())
    there = destinations(settings)
    sender = Sender(database, store, there, retry, dispatch)
    verifier = Verifier(database, verifiable(there), retry, dispatch)
    reporter = CommitmentResponder(
        database, store, reporting_addresses(settings),
        calling_ae=settings.node.ae_title, retry=retry, enqueue=dispatch.enqueue_report,
    )  # fmt: skip
    with database.read() as tx:  # what is owed to one that was taken out of the configuration is then refused
        unknown = work.destinations_owed(tx) - there.keys()
    queues = {work.queue_of(name): QueueSlots(per_process=1) for name in unknown} | {
        work.queue_of(each.name): QueueSlots(per_process=each.concurrency, everywhere=each.concurrency)
        for each in settings.destinations
    }
    engine.serve(
        executor_id(settings, "sender", instance),
        {
            work.DELIVER: retry_until_recorded(sender.run),
            work.VERIFY: retry_until_recorded(verifier.run),
            work.REPORT: retry_until_recorded(reporter.run),
        },
        queues | {work.REPORT: QueueSlots(per_process=1), _FORMER_DELIVER_QUEUE: QueueSlots(per_process=1)},
    )
    upkeep = Upkeep(database, store, engine, settings.retention.received_days)
    try:
        run_checks(stop, [lambda: dispatch.fail_dead_workflows(database), upkeep.run_if_due])
    finally:
        engine.stop(wait_s=_STOP_S)
        database.close()


def make_job_reader(settings: Settings, instance: int = 1) -> Callable[[int], ReadingSummary]:
    """Load the model, in the worker's child; returns what reads one job's study, see `read_job`."""
    from msnode.reading.read_job import read_job  # noqa: PLC0415 - OpenVINO belongs to the child alone
    from msnode.wiring.reading import make_readers  # noqa: PLC0415 - as above

    configure_logs(settings)
    choose_gpu(instance)
    # Hosts that share data_dir may have different processors, for which networks are compiled.
    readers = make_readers(settings, settings.node.data_dir / "cache" / settings.host)
    readers().networks()
    database, store = Database(settings.database_url), open_store(settings)
    return partial(read_job, readers, database, Arrivals(database), store)


RUN: Mapping[str, Callable[[Settings, int], None]] = {
    "receiver": run_receiver,
    "worker": run_worker,
    "sender": run_sender,
}


def run_all(settings: Settings, config: Path | None) -> None:
    """Every role, supervised.

    Raises:
        ConfigurationError: model, device or data_dir is not there, the routing rules are wrong, or a role
            refused to start.
        OutOfResources: see `prepare`.
    """
    check_model(settings)
    check_routing(settings)
    prepare(settings)
    log.info("node_starting", version=msnode.__version__)
    counts = {"receiver": 1, "worker": settings.node.workers, "sender": settings.node.senders}
    supervise(
        [Process(role, number) for role, count in counts.items() for number in range(1, count + 1)], config
    )
