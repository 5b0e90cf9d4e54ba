"""The node's processes: what each is made of, and how it runs until told to stop."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

import msnode
from msnode import logs
from msnode.deliver.retry import RetryPolicy
from msnode.engine.engine import Engine, QueueSlots, create_tables
from msnode.errors import OutOfResources
from msnode.record import work
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.record.retention import remove_old
from msnode.services.answer_commitments import Reporter
from msnode.services.confirm_storage import Verifier
from msnode.services.read_jobs import InferenceChild, Limits, Worker
from msnode.services.send_results import Sender
from msnode.store import Store
from msnode.wiring.assembling import Assembler
from msnode.wiring.destinations import destinations, reporting_addresses, takes, verifiable
from msnode.wiring.dispatch import Dispatcher, insistent
from msnode.wiring.model import check_model
from msnode.wiring.routing import Router, check_routing, rules_of
from msnode.wiring.supervisor import Process, StopSignal, supervise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from msnode.settings import Settings

log = structlog.get_logger()

_ASSEMBLE_S = 0.5
_LOOK_S = 5.0
_LOOKS_BETWEEN_UPKEEP = 120
_LOOKS_AROUND = 4
_STOP_S = 10
_GPUS = Path("/proc/driver/nvidia/gpus")
_FORMER_DELIVER_QUEUE = "deliver"
"""Where version 0.2 queued deliveries; what it left there is still sent."""
_FINISHED_KEPT_S = 86400.0
_REMOVED_AT_ONCE = 200
_ABANDONED_S = 3600.0


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

    Raises:
        ConfigurationError: data_dir cannot be used, or does not keep what is written there.
        OutOfResources: it is full, or the database does not answer.
    """
    open_store(settings).self_test()
    upgrade(settings.database_url)
    create_tables(settings.database_url)


def run_receiver(settings: Settings, instance: int) -> None:
    """Listen, and queue every study that is complete, until told to stop.

    Raises:
        ConfigurationError: see `routing.rules_of`.
    """
    from msnode.wiring.receiving import make_receiver  # noqa: PLC0415 - the others do not need pynetdicom's server

    stop = StopSignal()
    rules = rules_of(settings)
    prepare(settings)
    database, store = Database(settings.database_url), open_store(settings)
    engine, name = Engine(settings.database_url), executor_id(settings, "receiver", instance)
    engine.hold(name)
    arrivals, dispatch = Arrivals(database, receiver=name), Dispatcher(engine)
    cut_off = arrivals.close_open_associations(name, at=datetime.now(UTC))
    receiver = make_receiver(settings, store, arrivals, database, dispatch)
    router = Router(rules, settings, database, store)
    assembler = Assembler(settings, database, router, arrivals, engine=engine, dispatch=dispatch)
    receiver.start()
    log.info("receiver listening", port=receiver.port, count=cut_off)
    looks = 0
    try:
        while not stop.wait(_ASSEMBLE_S):
            assembler.look()
            if looks % _LOOKS_AROUND == 0:
                assembler.look_around()
            looks += 1
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
    worker = Worker(database, child, dispatch, takes(settings), attempts=settings.model.attempts)
    engine.serve(
        executor_id(settings, "worker", instance),
        {work.JOB: insistent(worker.run)},
        {work.JOB: QueueSlots(per_process=1)},
    )
    dispatch.reconcile(database)
    _serve_until(stop, engine, [lambda: dispatch.bury_the_dead(database)], database)
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
    reporter = Reporter(
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
            work.DELIVER: insistent(sender.run),
            work.VERIFY: insistent(verifier.run),
            work.REPORT: insistent(reporter.run),
        },
        queues | {work.REPORT: QueueSlots(per_process=1), _FORMER_DELIVER_QUEUE: QueueSlots(per_process=1)},
    )
    _serve_until(
        stop, engine,
        [lambda: dispatch.bury_the_dead(database), _upkeep(settings, database, store, engine)], database,
    )  # fmt: skip


def _upkeep(settings: Settings, database: Database, store: Store, engine: Engine) -> Callable[[], None]:
    """What is done now and then: remove received bytes that are old, forget workflows that ended."""
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks % _LOOKS_BETWEEN_UPKEEP != 1:
            return
        store.sweep(older_than_s=_ABANDONED_S)
        engine.forget_finished(_FINISHED_KEPT_S)
        if settings.retention.received_days > 0:
            before = datetime.now(UTC) - timedelta(days=settings.retention.received_days)
            removed = remove_old(database, store, before=before, limit=_REMOVED_AT_ONCE)
            if removed:
                log.info("received bytes removed by age", count=removed)

    return look


def _serve_until(
    stop: StopSignal, engine: Engine, looks: list[Callable[[], None]], database: Database
) -> None:
    try:
        while True:
            for look in looks:
                try:
                    look()
                except OutOfResources as error:
                    log.warning("could not look", error=error)
            if stop.wait(_LOOK_S):
                return
    finally:
        engine.stop(wait_s=_STOP_S)
        database.close()


def make_job_reader(settings: Settings, instance: int = 1) -> Callable[[int], dict[str, Any]]:
    """In the worker's child: the model loaded, and the function that reads one job's study.

    Returns:
        job id → what the committed result set holds (`result.json`), with its key under "result_set".
    """
    from msnode.wiring.reader import Readers, read_job  # noqa: PLC0415 - OpenVINO belongs to the child alone

    configure_logs(settings)
    _choose_gpu(instance)
    # Hosts that share data_dir may have different processors, for which networks are compiled.
    readers = Readers(settings, cache=settings.node.data_dir / "cache" / settings.host)
    readers().predictor()
    database, store = Database(settings.database_url), open_store(settings)
    return partial(read_job, readers, database, Arrivals(database), store)


def _choose_gpu(instance: int) -> None:
    """Each worker of a machine has a GPU of its own, as long as there are enough; before CUDA is loaded."""
    count = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
    if count > 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str((instance - 1) % count))


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
    log.info("node starting", version=msnode.__version__)
    counts = {"receiver": 1, "worker": settings.node.workers, "sender": settings.node.senders}
    supervise(
        [Process(role, number) for role, count in counts.items() for number in range(1, count + 1)], config
    )
