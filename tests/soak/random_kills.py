"""One node on one machine; at random moments one of its processes, or all of them, is killed."""

import argparse
import random
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from soak.counting import Sender, count, make_series, say, wait_for_ends
from support.node import Node, RestartedNode, dicom_destination, write_config
from support.peers import free_port, orthanc
from support.postgres import postgres_server

_EXTRA = """
interrupted_quiet_s = 5
[model]
preset = "fast"
[retry]
first_s = 0.5
max_s = 2
"""
_ALL_AT_ONCE = 0.15


def add_command(commands: Any) -> None:
    """`random` and its options."""
    parser = commands.add_parser("random", help=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--pause-s", type=float, nargs=2, default=(1.0, 8.0), help="between two kills")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slices", type=int, default=12)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user
        for name in ("pacs", "postgres", "n"):
            (folder / name).mkdir()
        pacs = stack.enter_context(orthanc(folder / "pacs", env={"TCP_NODELAY": "1"}))
        url = ""
        if options.postgresql:
            url = stack.enter_context(postgres_server(folder / "postgres")).new_database()
        port = free_port()
        pacs.add_modality("msnode", "MSNODE", port)
        destination = dicom_destination("pacs", pacs.aet, pacs.dicom_port, verify="commitment")
        destination += "commitment_deadline_s = 10\n"  # reports that meet a dead receiver are lost
        config = write_config(folder / "n", destination, port=port, extra=_EXTRA, database_url=url)
        node = Node(folder / "n", port, config, folder / "n" / "serve.log")
        serving = RestartedNode(config, node.log)
        stack.callback(serving.stop)
        sender = Sender(make_series(folder / "s", int(options.minutes * 20) + 5, options.slices), [port])
        serving.keep()
        sender.start()
        kills = _kill_for(options, serving)
        sender.stopping.set()
        sender.join()
        wait_for_ends(node, sender.sent, keep=serving.keep, timeout_s=900)
        return _report(node, count(node, pacs, sender.sent, options.slices), sender, kills)


def _report(node: Node, problems: list[str], sender: Sender, kills: Counter[str]) -> int:
    killed = ", ".join(f"{what} {n}" for what, n in sorted(kills.items()))
    say(f"{len(sender.sent)} studies sent in {sender.tries} tries; killed: {killed}")
    if problems:
        say(node.log.read_text()[-20000:])
    say("\n".join(problems) or "nothing lost, nothing twice")
    return 1 if problems else 0


def _kill_for(options: argparse.Namespace, serving: RestartedNode) -> Counter[str]:
    """Kill until the time is over; returns how often what was killed."""
    choose = random.Random(options.seed)  # noqa: S311 - chance, not a secret
    kills: Counter[str] = Counter()
    end = time.monotonic() + options.minutes * 60
    while time.monotonic() < end:
        time.sleep(choose.uniform(*options.pause_s))
        serving.keep()
        running = serving.processes()
        if choose.random() < _ALL_AT_ONCE:
            serving.kill_all()
            kills["whole node"] += 1
            continue
        if not running:
            continue  # it is just starting
        victim = choose.choice(running)
        with suppress(psutil.NoSuchProcess):
            what = _role(victim)
            victim.kill()
            kills[what] += 1
    serving.keep()
    return kills


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    return words[words.index("--role") + 1] if "--role" in words else "inference child"
