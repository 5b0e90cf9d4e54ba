"""The node of the demo, with its configuration and database in a temporary folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnode.demo.processes import (
    LOOPBACK,
    check_alive,
    environment,
    free_port,
    running,
    wait_until_ready,
)
from msnode.dicom.association import echo
from msnode.dicom.connection import DicomAddress
from msnode.errors import PeerUnreachable, ProcessDied, Transient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from msnode.demo.pacs import Pacs, Stored

STORESCU = Path("/usr/bin/storescu")
_SENDER_AE = "DEMOSCANNER"
_READY_S = 300.0
_SEND_S = 600.0
_COMMAND_S = 60.0
_LOOK_S = 0.25
# Each query starts a process that takes CPU time from the reading, so query rarely before results arrive.
_UNPROMPTED_S = 10.0
_SETTLED_S = 1.0
_ENDED = {"completed", "rejected", "passed_over", "unchanged", "failed", "cancelled"}


@dataclass(frozen=True)
class Node:
    """A running node."""

    address: DicomAddress
    config: Path
    log: Path
    process: subprocess.Popen[bytes]

    def ended_job(self, study_instance_uid: str) -> dict[str, Any] | None:
        """The newest job of the study as printed by `msnode jobs show --json`; None until it has ended."""
        jobs = [j for j in self._ask("list") if j["study_instance_uid"] == study_instance_uid]
        newest = max(jobs, key=lambda j: int(j["id"]), default=None)
        if newest is None or newest["state"] not in _ENDED:
            return None
        details: dict[str, Any] = self._ask("show", str(newest["id"]))
        return details

    def _ask(self, *arguments: str) -> Any:
        command = [sys.executable, "-m", "msnode", "jobs", *arguments, "--json", "--config", str(self.config)]
        answer = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
        if answer.returncode != 0:
            raise ProcessDied(f"msnode jobs {arguments[0]}: {answer.stderr.strip()}")
        return json.loads(answer.stdout)


@contextmanager
def start_node(folder: Path, log: Path, pacs: Pacs) -> Iterator[Node]:
    """Start a node that delivers to `pacs`, and wait until it is ready to receive.

    Raises:
        Transient: it cannot be started or is not ready in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = DicomAddress("MSNODE", LOOPBACK, free_port())
    config = folder / "msnode.toml"
    config.write_text(_configuration(folder, address, pacs.address), encoding="utf-8")
    command = [sys.executable, "-m", "msnode", "serve", "--config", str(config)]

    def ready() -> bool:
        try:
            return echo(address, _SENDER_AE).status == 0
        except Transient:
            return False

    with running(command, log) as process:
        wait_until_ready(process, log, ready, what="the node", deadline_s=_READY_S)
        yield Node(address, config, log, process)


def _configuration(folder: Path, node: DicomAddress, pacs: DicomAddress) -> str:
    """Waiting times are short because one scanner sends one study. JSON strings are valid TOML strings."""
    return f"""\
[node]
ae_title = {json.dumps(node.ae_title)}
data_dir = {json.dumps(str(folder / "data"))}
log_format = "text"

[receive]
address = "{LOOPBACK}"
port = {node.port}

[completeness]
series_quiet_s = 2
study_quiet_s = 5
after_release_s = 1

[[destinations]]
name = "pacs"
type = "dicom"
ae_title = {json.dumps(pacs.ae_title)}
host = "{pacs.host}"
port = {pacs.port}
verify = "find"
"""


def send(address: DicomAddress, paths: Sequence[Path], log: Path) -> None:
    """Send the files by C-STORE from a separate process, as a scanner would.

    Raises:
        ProcessDied: the sender ended with an error; the node may have received some of the files.
    """
    files = [str(path) for path in paths]
    if STORESCU.exists():
        command = [
            str(STORESCU), "--required", "--no-halt", "--aetitle", _SENDER_AE, "--call", address.ae_title,
            address.host, str(address.port), *files,
        ]  # fmt: skip
    else:
        peer = [address.host, str(address.port), address.ae_title]
        command = [sys.executable, "-m", "msnode.demo.send", *peer, *files]
    with running(command, log) as process:
        code = process.wait(_SEND_S)
    if code:
        check_alive(process, log, what="the sender")


def wait_for_results(
    node: Node, pacs: Pacs, study_instance_uid: str, *, deadline_s: float
) -> tuple[dict[str, Any], tuple[Stored, ...]]:
    """Poll the PACS until the node reports that the job has ended.

    Returns:
        The job as printed by `msnode jobs show --json`, and the objects of the study in the PACS.

    Raises:
        ProcessDied: the node ended.
        PeerUnreachable: the job has not ended within `deadline_s`.
    """
    end = time.monotonic() + deadline_s
    arrived: tuple[Stored, ...] = ()
    ask_at = time.monotonic() + _UNPROMPTED_S
    while time.monotonic() < end:
        check_alive(node.process, node.log, what="the node")
        before, arrived = arrived, pacs.results(study_instance_uid)
        if len(arrived) != len(before):
            ask_at = time.monotonic() + _SETTLED_S
        elif time.monotonic() > ask_at:
            job = node.ended_job(study_instance_uid)
            if job is not None:
                return job, pacs.results(study_instance_uid)
            ask_at = time.monotonic() + (_SETTLED_S if arrived else _UNPROMPTED_S)
        time.sleep(_LOOK_S)
    raise PeerUnreachable(f"the job has not ended after {deadline_s:.0f} s; see {node.log}")
