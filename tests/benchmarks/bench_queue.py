"""A thousand series in the queue: what one job costs from first to last, and what the node holds in memory.

The series are drawn, 12 slices of 48 x 48 pixels without a brain: each is read up to the scope check and
answered by a report, so that the figures show the node rather than the network. First all are received
by a receiver alone, then a worker and a sender start and work them off.
"""

import statistics
import tempfile
import time
from pathlib import Path

import psutil
import sqlalchemy as sa

from benchmarks.memory import resident_mib
from msnode.record import schema
from msnode.record.database import Database
from support.cluster import Cluster, cluster
from support.dicom_files import flair_series, head_pixels
from support.node import write_config
from support.peers import storescu, wait_until

SERIES = 1000
SLICES = 12
OUTPUT = Path(__file__).resolve().parents[2] / "bench-output"
_FOLDER_DESTINATION = '[[destinations]]\nname = "results"\ntype = "folder"\npath = "{path}"\n'


def run() -> str:
    """A Markdown table; the plot goes to bench-output/queue.png."""
    with tempfile.TemporaryDirectory(prefix="queue-") as name:
        folder = Path(name)
        results = folder / "results"
        results.mkdir()
        config = write_config(
            folder, _FOLDER_DESTINATION.format(path=results), port=0, extra='[model]\npreset = "fast"\n'
        )
        with cluster(config, {"receiver": 1}) as machine:
            _fill(machine, folder / "studies")
            names = ("worker-1", "sender-1")
            begin = time.time()
            for each in names:
                machine.start(each)
            memory = _work_off(machine, names)
            ends = _seconds(machine, begin)
            reports = len(list(results.iterdir()))
    _plot(ends, memory)
    return _table(ends, memory, reports)


def _fill(machine: Cluster, folder: Path) -> None:
    (port,) = machine.ports.values()
    for number in range(SERIES):
        files = flair_series(
            folder / f"s{number}", pixels=head_pixels(SLICES, 48, 48), patient_id=f"QUEUE-{number}"
        )
        done = storescu(files, port)
        assert done.returncode == 0, done.stderr
    wait_until(lambda: _count(machine, "queued") == SERIES, what="all queued", timeout_s=300, poll_s=1)


def _count(machine: Cluster, *states: str) -> int:
    return sum(job["state"] in states for job in machine.node.jobs())


def _work_off(machine: Cluster, names: tuple[str, ...]) -> dict[str, list[float]]:
    """Resident memory of each process, MiB, sampled until the queue is empty."""
    memory: dict[str, list[float]] = {}

    def done() -> bool:
        for name in names:
            process = psutil.Process(machine.processes[name].pid)
            memory.setdefault(name, []).append(resident_mib(process))
            children = [resident_mib(child) for child in process.children()]
            if children:  # the largest is the one that reads; the other only keeps track of resources
                memory.setdefault(f"{name} child", []).append(max(children))
        return _count(machine, "rejected", "failed") == SERIES

    wait_until(done, what="the end of the queue", timeout_s=3600, poll_s=2)
    return memory


def _seconds(machine: Cluster, begin: float) -> list[float]:
    """When each job ended, seconds after the start of worker and sender, in order."""
    database = Database(machine.node.database_url)
    query = sa.select(schema.transition.c.at).where(schema.transition.c.state.in_(["rejected", "failed"]))
    with database.read() as tx:
        found = sorted(moment.timestamp() - begin for moment in tx.execute(query).scalars())
    database.close()
    return found


def _per_job(ends: list[float], part: slice) -> float:
    chosen = ends[part]
    return (chosen[-1] - chosen[0]) / (len(chosen) - 1)


def _table(ends: list[float], memory: dict[str, list[float]], reports: int) -> str:
    tenth = SERIES // 10
    first, last = slice(10, 10 + tenth), slice(SERIES - tenth, SERIES)
    lines = [
        (
            f"{SERIES} drawn series of {SLICES} slices were queued, then read by one worker and delivered by "
            f"one sender: {reports} reports."
        ),
        "",
        "| | first tenth | last tenth |",
        "|---|---|---|",
        f"| seconds a job | {_per_job(ends, first):.3f} | {_per_job(ends, last):.3f} |",
    ]
    for name, samples in memory.items():
        part = max(1, len(samples) // 10)
        early, late = statistics.median(samples[part : 2 * part]), statistics.median(samples[-part:])
        lines.append(f"| {name}, MiB | {early:.0f} | {late:.0f} |")
    return "\n".join(lines)


def _plot(ends: list[float], memory: dict[str, list[float]]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - for this alone

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6))
    window = SERIES // 20
    above.plot([(b - a) / window for a, b in zip(ends, ends[window:], strict=False)])
    above.set(xlabel="jobs done", ylabel=f"s a job, mean of {window}", ylim=(0, None))
    for name, samples in memory.items():
        below.plot([2 * n for n in range(len(samples))], samples, label=name)
    below.set(xlabel="s", ylabel="resident MiB", ylim=(0, None))
    below.legend()
    figure.tight_layout()
    OUTPUT.mkdir(exist_ok=True)
    figure.savefig(OUTPUT / "queue.png", dpi=100)
    plt.close(figure)
