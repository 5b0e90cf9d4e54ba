"""Instances per second and time to the answer: msnode with and without durability, storescp, Orthanc, one run.

Every round feeds every receiver, each new and empty, in an order that changes from round to round, so
that what else the machine does meets all alike. Times are those that the senders log, from each request to
its response, between the moments when the last of them began and the first was done.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.memory import peak_mib
from support import peers
from support.dicom_files import flair_series
from support.environment import peer

EDGE = 512
ROUNDS = 5
SENDERS = {1: 160, 4: 160, 20: 800}
"""Associations at once → instances, which are shared out among them."""

_LOG = """\
log4cplus.rootLogger = INFO, out
log4cplus.appender.out = log4cplus::ConsoleAppender
log4cplus.appender.out.layout = log4cplus::PatternLayout
log4cplus.appender.out.layout.ConversionPattern = %D{%s.%q} %m%n
"""

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


def send(port: int, shares: Sequence[Sequence[Path]], log_settings: Path) -> tuple[float, list[float]]:
    """Every sender sends its share; returns responses a second, and ms to each, while all of them send."""
    log_settings.write_text(_LOG)

    def one(share: Sequence[Path]) -> list[tuple[float, float]]:
        command = [
            peer("storescu"), "--log-config", str(log_settings), "--call", "MSNODE", "127.0.0.1", str(port),
            *map(str, share),
        ]  # fmt: skip
        done = subprocess.run(
            command, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        asked = _times(done.stdout, "Sending Store Request")
        answered = _times(done.stdout, "Received Store Response (Success")
        assert len(asked) == len(answered) == len(share), done.stdout
        return list(zip(asked, answered, strict=True))

    with ThreadPoolExecutor(len(shares)) as pool:
        senders = list(pool.map(one, shares))
    begin, end = max(pairs[0][0] for pairs in senders), min(pairs[-1][1] for pairs in senders)
    assert begin < end, "some had sent everything before others began"
    meanwhile = [
        (asked, answered) for pairs in senders for asked, answered in pairs if begin <= answered <= end
    ]
    return len(meanwhile) / (end - begin), [1000 * (answered - asked) for asked, answered in meanwhile]


def _times(log: str, message: str) -> list[float]:
    found = []
    for line in log.splitlines():
        moment, _, text = line.partition(" ")
        if text.startswith(message):
            found.append(float(moment))
    return found


def run() -> str:
    """All rounds; a Markdown section."""
    found: dict[tuple[str, int], Measured] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        count = max(SENDERS.values())
        noise = np.random.default_rng(1).integers(0, 4096, (count, EDGE, EDGE), dtype=np.uint16)
        files = flair_series(root / "instances", pixels=noise, spacing=(1.0, 0.5, 0.5))
        for number in range(ROUNDS):
            order = list(RECEIVERS)[number % len(RECEIVERS) :] + list(RECEIVERS)[: number % len(RECEIVERS)]
            for receiver in order:
                for senders, instances in SENDERS.items():
                    folder = root / "receiver"
                    folder.mkdir()
                    shares = [files[i:instances:senders] for i in range(senders)]
                    with RECEIVERS[receiver](folder) as (port, pid):  # type: ignore[attr-defined]
                        rate, answers_ms = send(port, shares, root / "log.cfg")
                        memory[receiver] = max(memory.get(receiver, 0), peak_mib(pid))
                    shutil.rmtree(folder)
                    measured = found.setdefault((receiver, senders), Measured())
                    measured.rates.append(rate)
                    measured.answers_ms += answers_ms
    return _table(found, memory, files_mib=EDGE * EDGE * 2 / 2**20)


def _table(found: dict[tuple[str, int], Measured], memory: dict[str, float], *, files_mib: float) -> str:
    about = (
        f"{', '.join(map(str, SENDERS.values()))} instances of {EDGE} x {EDGE} x 16 bit ({files_mib:.1f} MiB each) "
        f"by {', '.join(map(str, SENDERS))} DCMTK storescu at once over loopback; msnode makes bytes and record "
        f"durable before it answers, the others do not. Instances/s while all send: median of {ROUNDS} rounds, "
        "lowest to highest; ratio to msnode in the same run; 99th percentile of the time from request to response."
    )
    columns = " | ".join(f"{n} sender{'s' * (n > 1)}, instances/s | ratio | p99, ms" for n in SENDERS)
    lines = [
        "### Receiving", "", about, "",
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
