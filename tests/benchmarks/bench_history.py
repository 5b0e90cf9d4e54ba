"""A hundred thousand finished jobs in the record: what looking and enqueueing cost, on both databases."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msnode.engine.engine import Engine
from msnode.engine.tables import create_tables
from msnode.record import administration, jobs, schema
from msnode.record.database import Database, upgrade
from msnode.record.job import JobState
from msnode.record.overview import overview
from msnode.record.waiting import WaitingStudies
from msnode.services.dispatch import Dispatcher
from support.postgres import postgres_server

JOBS = 100_000
ROUNDS = 30
_AT_ONCE = 5_000
_STEPS = (None, "receiving", "queued", "running", "delivering", "completed")
_START = datetime(2025, 1, 1, tzinfo=UTC)


def run() -> str:
    """A Markdown table, milliseconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="history-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user
        (folder / "postgres").mkdir()
        server = stack.enter_context(postgres_server(folder / "postgres"))
        urls = {"SQLite": f"sqlite:///{folder / 'm.db'}", "PostgreSQL": server.new_database()}
        found = {name: _measure(url) for name, url in urls.items()}
    lines = [
        (
            f"{JOBS:,} completed jobs (2 series, 3 results and deliveries each) in the record; "
            f"median and worst of {ROUNDS}, ms."
        ),
        "",
        "| | " + " | ".join(found) + " |",
        "|---|" + "---|" * len(found),
    ]
    for step in next(iter(found.values())):
        cells = " | ".join(f"{statistics.median(f[step]):.1f} ({max(f[step]):.1f})" for f in found.values())
        lines.append(f"| {step} | {cells} |")
    return "\n".join(lines)


def _measure(url: str) -> dict[str, list[float]]:
    upgrade(url)
    create_tables(url)
    database = Database(url)
    for begin in range(1, JOBS + 1, _AT_ONCE):
        _insert(database, range(begin, min(begin + _AT_ONCE, JOBS + 1)))
    engine = Engine(url)
    dispatch, waiting_studies = Dispatcher(engine), WaitingStudies(database)
    now = _START + timedelta(days=400)

    def listed() -> None:
        with database.read() as tx:
            assert len(jobs.recent(tx)) == 50

    def failed() -> None:
        with database.read() as tx:
            jobs.recent(tx, state=JobState.FAILED)

    def shown() -> None:
        with database.read() as tx:
            assert administration.show(tx, JOBS // 2) is not None

    def stands() -> None:
        with database.read() as tx:
            overview(tx, now=now, alarm_after_s=1800)

    def looked() -> None:
        waiting_studies.due(now)

    waiting = iter(range(JOBS - ROUNDS + 1, JOBS + 1))

    def enqueued() -> None:
        with database.write() as tx:
            job = jobs.find(tx, next(waiting))
            assert job is not None
            dispatch(tx, job.evolve(state=JobState.QUEUED))

    try:
        return {
            "jobs list (50)": _times(listed),
            "jobs list --state failed": _times(failed),
            "jobs show": _times(shown),
            "status": _times(stands),
            "receiver's look at waiting studies": _times(looked),
            "enqueue": _times(enqueued),
        }
    finally:
        engine.stop()
        database.close()


def _times(call: Callable[[], None]) -> list[float]:
    found = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        found.append((time.perf_counter() - begin) * 1000)
    return found


def _insert(database: Database, ids: range) -> None:
    """Finished jobs as the node leaves them."""
    at = _START
    with database.write() as tx:
        rows = [{"id": n, "issuer": "H", "patient_id": str(n)} for n in ids]
        tx.execute(schema.patient.insert(), rows)
        rows = [{"id": n, "study_instance_uid": f"1.2.{n}", "patient_key": n} for n in ids]
        tx.execute(schema.study.insert(), rows)
        tx.execute(schema.series.insert(), [
            {"id": 2 * n + k, "study_key": n, "series_instance_uid": f"1.2.{n}.{k}", "modality": "MR",
             "last_at": at, "last_association_id": f"a{n}"}
            for n in ids for k in (0, 1)
        ])  # fmt: skip
        tx.execute(schema.job.insert(), [
            {"id": n, "study_key": n, "revision": 0, "state": "completed", "reason": "done",
             "state_since": at, "created_at": at, "started_at": at, "attempts": 1,
             "requeues": 0, "interruptions": 0,
             "priority": 5, "timings_s": {"segment": 1.0}, "result_set": f"job-{n}-0"}
            for n in ids
        ])  # fmt: skip
        tx.execute(schema.transition.insert(), [
            {"job_id": n, "state_before": before, "state": state, "at": at, "reason": "test"}
            for n in ids for before, state in itertools.pairwise(_STEPS)
        ])  # fmt: skip
        tx.execute(schema.result.insert(), [
            {"id": 3 * n + k, "job_id": n, "kind": kind, "sop_instance_uid": f"2.25.{n}.{k}",
             "sop_class_uid": "1.2", "series_instance_uid": f"2.25.{n}", "path": f"{kind}.dcm",
             "sha256": "0" * 64}
            for n in ids for k, kind in enumerate(("seg", "sr", "overlay"))
        ])  # fmt: skip
        tx.execute(schema.delivery.insert(), [
            {"job_id": n, "result_id": 3 * n + k, "destination": "pacs", "state": "committed", "attempts": 0,
             "answers": 0, "verify": "commitment", "verifications": 1, "note": "committed", "updated_at": at}
            for n in ids for k in range(3)
        ])  # fmt: skip
