"""How long after a SIGKILL the work goes on: each process of a node, and a worker of another machine."""

import re
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from support.cluster import Cluster, cluster
from support.heads import head_series
from support.node import Node, dicom_destination, node, write_config
from support.peers import listens, orthanc, storescu, wait_until
from support.postgres import postgres_server

ROUNDS = 5
_EXTRA = '[model]\npreset = "fast"\nthreads = 1\n'


def run() -> str:
    """A Markdown table, seconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recovery-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user
        for name in ("pacs", "postgres", "many"):
            (folder / name).mkdir()
        pacs = stack.enter_context(orthanc(folder / "pacs", env={"TCP_NODELAY": "1"}))
        destination = dicom_destination("pacs", pacs.aet, pacs.dicom_port, verify="none")
        with node(folder / "one", destination, extra=_EXTRA) as one:
            rows = {
                "receiver, until it listens again": _receiver(one),
                "worker in the middle of a reading, until the study is read": _reading(one, "worker", folder),
                "its inference child, until the study is read": _reading(one, "child", folder),
            }
        url = stack.enter_context(postgres_server(folder / "postgres")).new_database()
        config = write_config(folder / "many", destination, port=0, extra=_EXTRA, database_url=url)
        with cluster(config, {"receiver": 1, "worker": 2, "sender": 1}) as many:
            rows["worker of another machine (PostgreSQL), until its study is being read again"] = _takeover(
                many, folder
            )
    lines = [
        f"Median (and worst) of {ROUNDS}, seconds after SIGKILL.", "", "| killed | s |", "|---|---|",
        *(f"| {what} | {statistics.median(t):.1f} ({max(t):.1f}) |" for what, t in rows.items()),
    ]  # fmt: skip
    return "\n".join(lines)


def _process(one: Node, role: str) -> psutil.Process:
    assert one.process is not None
    for process in psutil.Process(one.process.pid).children():
        if role in process.cmdline():
            return process
    raise AssertionError(f"no {role}")


def _receiver(one: Node) -> list[float]:
    found = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        process = _process(one, "receiver")
        process.kill()
        wait_until(lambda: not listens(one.port), what="the end of the receiver", poll_s=0.01)
        wait_until(lambda: listens(one.port), what="the receiver", timeout_s=60, poll_s=0.02)
        found.append(time.perf_counter() - begin)
    return found


def _send(port: int, folder: Path, name: str) -> None:
    files = head_series(folder / name, patient_id=name)
    done = storescu(files, port)
    assert done.returncode == 0, done.stderr


def _reading(one: Node, which: str, folder: Path) -> list[float]:
    found = []
    for number in range(ROUNDS):
        _send(one.port, folder, f"{which}-{number}".upper())
        wait_until(lambda: one.jobs()[0]["state"] == "running", what="a reading", timeout_s=60, poll_s=0.01)
        worker = _process(one, "worker")
        victim = worker if which == "worker" else max(worker.children(), key=lambda p: p.memory_info().rss)
        begin = time.perf_counter()
        victim.kill()
        wait_until(
            lambda: one.jobs()[0]["state"] in {"delivering", "completed"}, what="the result", timeout_s=120,
            poll_s=0.05,
        )  # fmt: skip
        found.append(time.perf_counter() - begin)
        wait_until(lambda: one.jobs()[0]["state"] == "completed", what="the end", timeout_s=60, poll_s=0.1)
    return found


def _takeover(many: Cluster, folder: Path) -> list[float]:
    found = []
    (port,) = many.ports.values()
    for number in range(ROUNDS):
        _send(port, folder, f"OTHER-{number}")
        wait_until(
            lambda: many.node.jobs()[0]["state"] == "running", what="a reading", timeout_s=60, poll_s=0.01
        )
        begin = time.perf_counter()
        for name in ("worker-1", "worker-2"):
            log = (many.node.folder / f"{name}.log").read_text(encoding="utf-8")
            if re.search(rf'"job_id": {many.node.jobs()[0]["id"]}\b', log):
                many.kill(name)
                dead = name
        wait_until(
            lambda: many.node.jobs()[0]["interruptions"] > 0 or many.node.jobs()[0]["state"] == "completed",
            what="the takeover", timeout_s=60, poll_s=0.02,
        )  # fmt: skip
        found.append(time.perf_counter() - begin)
        many.start(dead)
        wait_until(
            lambda: many.node.jobs()[0]["state"] == "completed", what="the end", timeout_s=60, poll_s=0.1
        )
    return found
