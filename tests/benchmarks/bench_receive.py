"""Instances per second: msnode with and without durability, DCMTK storescp and Orthanc, one sender, one run.

Every round feeds every receiver, each new and empty, in an order that changes from round to round, so
that what else the machine does meets all alike. Times are those of the sender, connection included.
"""

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.memory import peak_mib
from support import peers
from support.dicom_files import flair_series

INSTANCES, EDGE = 160, 512
ROUNDS = 5
SENDERS = (1, 4)
"""Associations at once; the instances are shared out among them."""

Started = tuple[int, int]
"""Port and process id."""


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
    with peers.storescp(folder, aet="MSNODE") as found:
        yield found.port, found.pid


@contextmanager
def _orthanc(folder: Path) -> Iterator[Started]:
    with peers.orthanc(folder, env={"TCP_NODELAY": "1"}) as found:
        yield found.dicom_port, found.pid


RECEIVERS: dict[str, Callable[[Path], object]] = {
    "msnode": lambda folder: _msnode(folder, "durable"),
    "msnode, nothing synced, no record": lambda folder: _msnode(folder, "quick"),
    "DCMTK storescp": _storescp,
    "Orthanc": _orthanc,
}


def _send(port: int, shares: Sequence[Sequence[Path]]) -> float:
    """Seconds until every sender has its last response."""

    def one(share: Sequence[Path]) -> None:
        done = peers.storescu(share, port)
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(len(shares)) as pool:
        begin = perf_counter()
        list(pool.map(one, shares))
        return perf_counter() - begin


def run() -> str:
    """All rounds; a Markdown section."""
    rates: dict[tuple[str, int], list[float]] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        noise = np.random.default_rng(1).integers(0, 4096, (INSTANCES, EDGE, EDGE), dtype=np.uint16)
        files = flair_series(root / "instances", pixels=noise, spacing=(1.0, 0.5, 0.5))
        for number in range(ROUNDS):
            order = list(RECEIVERS)[number % len(RECEIVERS) :] + list(RECEIVERS)[: number % len(RECEIVERS)]
            for receiver in order:
                for senders in SENDERS:
                    folder = root / "receiver"
                    folder.mkdir()
                    with RECEIVERS[receiver](folder) as (port, pid):  # type: ignore[attr-defined]
                        seconds = _send(port, [files[i::senders] for i in range(senders)])
                        memory[receiver] = max(memory.get(receiver, 0), peak_mib(pid))
                    shutil.rmtree(folder)
                    rates.setdefault((receiver, senders), []).append(INSTANCES / seconds)
    return _table(rates, memory, files_mib=EDGE * EDGE * 2 / 2**20)


def _table(rates: dict[tuple[str, int], list[float]], memory: dict[str, float], *, files_mib: float) -> str:
    about = (
        f"{INSTANCES} instances of {EDGE} x {EDGE} x 16 bit ({files_mib:.1f} MiB each) by DCMTK storescu "
        f"over loopback; median of {ROUNDS} rounds, lowest to highest; ratio to msnode in the same run."
    )
    columns = " | ".join(f"{n} sender{'s' * (n > 1)}, instances/s | ratio" for n in SENDERS)
    lines = [
        "### Receiving", "", about, "",
        f"| receiver | {columns} | peak memory, MiB |",
        "|---|" + "---:|---:|" * len(SENDERS) + "---:|",
    ]  # fmt: skip
    for receiver in RECEIVERS:
        cells = []
        for senders in SENDERS:
            values = rates[receiver, senders]
            middle = statistics.median(values)
            ours = statistics.median(rates["msnode", senders])
            cells += [f"{middle:.0f} ({min(values):.0f}-{max(values):.0f})", f"{middle / ours:.2f}"]
        lines.append(f"| {receiver} | {' | '.join(cells)} | {memory[receiver]:.0f} |")
    return "\n".join(lines)
