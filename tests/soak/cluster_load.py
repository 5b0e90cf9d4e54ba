"""Receivers, workers and senders of several machines on PostgreSQL; one of each is killed under load."""

import argparse
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from soak.counting import Sender, count, make_series, say, wait_for_ends
from support.cluster import Cluster, cluster
from support.node import dicom_destination, write_config
from support.peers import orthanc, wait_until
from support.postgres import postgres_server

_EXTRA = """
interrupted_quiet_s = 5
[model]
preset = "fast"
threads = 1
[retry]
first_s = 0.5
max_s = 2
"""
MANY = {"receiver": 3, "worker": 4, "sender": 2}
ONE = {"receiver": 1, "worker": 1, "sender": 1}


def add_command(commands: Any) -> None:
    """`cluster` and its options."""
    parser = commands.add_parser("cluster", help=__doc__)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--compare", action="store_true", help="with one worker too, without kills")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    problems, seconds = load(MANY, options.series, options.slices, kills=True)
    say(f"3 receivers, 4 workers, 2 senders, one of each killed: {options.series} series in {seconds:.0f} s")
    say("\n".join(problems) or "nothing lost, nothing twice")
    if options.compare:
        for counts in (MANY, ONE):
            more, seconds = load(counts, options.series, options.slices, kills=False)
            problems += more
            say(f"{dict(counts)}: {options.series / seconds * 60:.1f} series a minute, {len(more)} problems")
    return 1 if problems else 0


def load(counts: Mapping[str, int], series: int, slices: int, *, kills: bool) -> tuple[list[str], float]:
    """Send so many series to all receivers at once, and count; seconds from the first to the last end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user
        for name in ("pacs", "postgres", "n"):
            (folder / name).mkdir()
        pacs = stack.enter_context(orthanc(folder / "pacs", env={"TCP_NODELAY": "1"}))
        url = stack.enter_context(postgres_server(folder / "postgres")).new_database()
        destination = dicom_destination("pacs", pacs.aet, pacs.dicom_port, verify="commitment")
        destination += "commitment_deadline_s = 10\n"  # reports that meet a dead receiver are lost
        config = write_config(folder / "n", destination, port=0, extra=_EXTRA, database_url=url)
        files = make_series(folder / "s", series, slices)
        machines = stack.enter_context(cluster(config, counts))
        ports = list(machines.ports.values())
        pacs.add_modality("msnode", "MSNODE", ports[-1])
        begin = time.monotonic()
        senders = [Sender(files[n::3], [*ports[n:], *ports[:n]]) for n in range(3)]
        for each in senders:
            each.start()
        if kills:
            _kill_one_of_each(machines)
        for each in senders:
            each.join()
        sent = [study for each in senders for study in each.sent]
        wait_for_ends(machines.node, sent, keep=lambda: None, timeout_s=3600)
        return count(machines.node, pacs, sent, slices), time.monotonic() - begin


def _kill_one_of_each(machines: Cluster) -> None:
    """Once a tenth of the work is done: a receiver, a worker and a sender, for good."""
    done = [0]

    def some() -> bool:
        done[0] = sum(j["state"] in {"delivered", "completed"} for j in machines.node.jobs())
        return done[0] > 0

    for name in ("worker-1", "sender-1", "receiver-1"):
        wait_until(some, what="something done", timeout_s=600, poll_s=0.5)
        busy = [j["id"] for j in machines.node.jobs() if j["state"] == "running"]
        machines.kill(name)
        say(f"killed {name} with {done[0]} done and jobs {busy} being read")
