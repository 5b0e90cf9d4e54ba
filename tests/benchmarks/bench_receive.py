"""Instances per second and time to the answer: msnode with and without durability, storescp, Orthanc.

Every round feeds every receiver, each new and empty, in an order that changes from round to round, so
that what else the machine does meets all alike. The senders begin at the same moment, with everything that
they send put together before; times are theirs.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.memory import peak_mib
from support import peers
from support.dicom_files import flair_series

EDGE = 512
ROUNDS = 5
SENDERS = {1: 160, 4: 160, 20: 800}
"""Associations at once → instances, which are shared out among them."""

Started = tuple[int, int]
"""Port and process id."""


@dataclass
class Measured:
    """What came out for one receiver with so many senders: a rate a round, all times to the answer in ms."""

    rates: list[float] = field(default_factory=list)
    answers_ms: list[float] = field(default_factory=list)


@contextmanager
def _msnode(folder: Path, mode: str) -> Iterator[Started]:
    port = peers.free_port()
    command = [
        sys.executable, str(Path(__file__).with_name("receiver_process.py")), str(port), str(folder), mode
    ]  # fmt: skip
    with peers.running(command, folder / "receiver.log", ready=lambda: peers.listens(port)) as process:
        yield port, process.pid


@contextmanager
def _storescp(folder: Path) -> Iterator[Started]:
    with peers.storescp(folder, aet="MSNODE", options=["--fork"]) as found:
        yield found.port, found.pid


@contextmanager
def _orthanc(folder: Path) -> Iterator[Started]:
    with peers.orthanc(folder, env={"TCP_NODELAY": "1"}) as found:
        yield found.dicom_port, found.pid


OURS = "msnode"
RECEIVERS: dict[str, Callable[[Path], object]] = {
    OURS: lambda folder: _msnode(folder, "durable"),
    "msnode, nothing synced, no record": lambda folder: _msnode(folder, "quick"),
    "DCMTK storescp": _storescp,
    "Orthanc": _orthanc,
}


def send(port: int, senders: int, folder: Path, count: int) -> tuple[float, list[float]]:
    """Responses a second while all of the senders send, and ms to each."""
    command = [sys.executable, str(Path(__file__).with_name("senders_process.py"))]
    done = subprocess.run(
        [*command, str(port), str(senders), str(folder), str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    times = json.loads(done.stdout)
    assert len(times) == count, done.stderr
    seconds = max(end for _, end in times) - min(begin for begin, _ in times)
    return count / seconds, [1000 * (end - begin) for begin, end in times]


def run() -> str:
    """All rounds; a Markdown table."""
    found: dict[tuple[str, int], Measured] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        count = max(SENDERS.values())
        noise = np.random.default_rng(1).integers(0, 4096, (count, EDGE, EDGE), dtype=np.uint16)
        flair_series(root / "instances", pixels=noise, spacing=(1.0, 0.5, 0.5))
        for number in range(ROUNDS):
            order = list(RECEIVERS)[number % len(RECEIVERS) :] + list(RECEIVERS)[: number % len(RECEIVERS)]
            for receiver in order:
                for senders, instances in SENDERS.items():
                    folder = root / "receiver"
                    folder.mkdir()
                    with RECEIVERS[receiver](folder) as (port, pid):  # type: ignore[attr-defined]
                        rate, answers_ms = send(port, senders, root / "instances", instances)
                        memory[receiver] = max(memory.get(receiver, 0), peak_mib(pid))
                    shutil.rmtree(folder)
                    measured = found.setdefault((receiver, senders), Measured())
                    measured.rates.append(rate)
                    measured.answers_ms += answers_ms
    return _table(found, memory, files_mib=EDGE * EDGE * 2 / 2**20)


def _table(found: dict[tuple[str, int], Measured], memory: dict[str, float], *, files_mib: float) -> str:
    about = (
        f"{', '.join(map(str, SENDERS.values()))} instances of {EDGE} x {EDGE} x 16 bit "
        f"({files_mib:.1f} MiB each) by {', '.join(map(str, SENDERS))} senders at once over loopback; msnode "
        "makes bytes and record durable before it answers, the others do not. Instances/s: median of "
        f"{ROUNDS} rounds (lowest to highest). Ratio: to msnode in the same run. p99: 99th percentile of the "
        "time from the beginning of a request to its response."
    )
    columns = " | ".join(f"{n} sender{'s' * (n > 1)}, instances/s | ratio | p99, ms" for n in SENDERS)
    lines = [
        about, "",
        f"| receiver | {columns} | peak memory, MiB |",
        "|---|" + "---:|---:|---:|" * len(SENDERS) + "---:|",
    ]  # fmt: skip
    for receiver in RECEIVERS:
        cells = []
        for senders in SENDERS:
            measured = found[receiver, senders]
            middle = statistics.median(measured.rates)
            ours = statistics.median(found[OURS, senders].rates)
            p99 = np.percentile(measured.answers_ms, 99)
            cells += [
                f"{middle:.0f} ({min(measured.rates):.0f}-{max(measured.rates):.0f})",
                f"{middle / ours:.2f}",
                f"{p99:.0f}",
            ]
        lines.append(f"| {receiver} | {' | '.join(cells)} | {memory[receiver]:.0f} |")
    return "\n".join(lines)
