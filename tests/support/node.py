"""A node under test: `msnode serve` as a process of its own, asked through its command line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from msnode.record import jobs
from msnode.record.database import Database
from msnode.settings import load_settings
from support.peers import free_port, listens, running, wait_until

ENDS = {"completed", "rejected", "passed_over", "unchanged", "failed", "cancelled"}


def msnode(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "msnode", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def dicom_destination(
    name: str, ae_title: str, port: int, objects: Sequence[str] = (), *, verify: str = "find"
) -> str:
    taken = f"objects = {json.dumps(list(objects))}\n" if objects else ""
    return (
        f'[[destinations]]\nname = "{name}"\ntype = "dicom"\nae_title = "{ae_title}"\n'
        f'host = "127.0.0.1"\nport = {port}\nverify = "{verify}"\n{taken}'
    )


@dataclass
class Node:
    """Where the node's files are, and where it listens."""

    folder: Path
    port: int
    config: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def database_url(self) -> str:
        return load_settings(self.config).database_url

    def read(self, *arguments: object) -> Any:
        """The JSON that a reading command prints."""
        done = msnode(*arguments, "--config", self.config, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def jobs(self) -> list[dict[str, Any]]:
        """Newest first."""
        database = Database(self.database_url)
        try:
            with database.read() as tx:
                return [asdict(job) for job in jobs.recent(tx, limit=1000)]
        finally:
            database.close()

    def wait_for_job(self, *states: str, study: str | None = None, timeout_s: float = 120) -> dict[str, Any]:
        """The newest job (of the study), once it is in one of `states`, or has ended where none is named."""
        wanted = set(states) or ENDS
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [j for j in self.jobs() if study in (None, j["study_instance_uid"])][:1]
            return bool(found) and found[0]["state"] in wanted

        wait_until(there, what=f"a job in {sorted(wanted)}", timeout_s=timeout_s, poll_s=0.3)
        return self.read("jobs", "show", found[0]["id"])


def write_config(
    folder: Path, destinations: str, *, port: int, extra: str = "", database_url: str = ""
) -> Path:
    path = folder / "msnode.toml"
    database = f'database_url = "{database_url}"\n' if database_url else ""
    path.write_text(
        f'[node]\ndata_dir = "{folder / "data"}"\n{database}'
        f"[receive]\nport = {port}\nmin_free_mb = 1\n"
        "also_accept = ['SegmentationStorage', 'Comprehensive3DSRStorage', 'SecondaryCaptureImageStorage', "
        "'CTImageStorage']\n"
        "[completeness]\nseries_quiet_s = 1\nstudy_quiet_s = 3\nafter_release_s = 0.5\nrevision_quiet_s = 1\n"
        f"{extra}\n{destinations}"
    )
    return path


def serve_command(config: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "msnode", "serve", *options, "--config", str(config)]


@contextmanager
def node(
    folder: Path,
    destinations: str = "",
    *,
    extra: str = "",
    database_url: str = "",
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Node]:
    """A running node with short waiting times; its folder may hold the data of an earlier run."""
    port = port or free_port()
    folder.mkdir(exist_ok=True)
    config = write_config(folder, destinations, port=port, extra=extra, database_url=database_url)
    log = folder / "serve.log"
    with running(serve_command(config), log, ready=lambda: listens(port), env=env) as process:
        yield Node(folder, port, config, log, process)


class RestartedNode:
    """`msnode serve` in a process group of its own, started again by hand whenever all of it is dead."""

    def __init__(self, config: Path, log: Path, env: Mapping[str, str] | None = None) -> None:
        self._command = serve_command(config)
        self._log = log
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def keep(self) -> None:
        if self._process is None or self._process.poll() is not None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command, stdout=log, stderr=log, env=self._env, start_new_session=True
                )
            self.starts += 1

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True) if self._process else []
        return []

    def kill_all(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
