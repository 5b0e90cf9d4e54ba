"""Several machines in one: each process under a host name of its own, killed and started by name."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.node import Node, serve_command
from support.peers import free_port, listens, wait_until


class Cluster:
    """Receivers, workers and senders of one installation; `node` asks its record.

    Args:
        config: one configuration file for all of them, with the shared database and data folder.
        counts: role → how many.
        env: further environment variables for all of them.
    """

    def __init__(self, config: Path, counts: Mapping[str, int], env: Mapping[str, str] | None = None) -> None:
        self._folder = config.parent
        self._config = config
        self._env = {**os.environ, **(env or {})}
        self.names = [f"{role}-{n}" for role, count in counts.items() for n in range(1, count + 1)]
        self.ports = {name: free_port() for name in self.names if name.startswith("receiver")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.node = Node(self._folder, next(iter(self.ports.values()), 0), config, self._folder / "logs")

    def start(self, name: str) -> None:
        """Start one process; each is alone on its host, and a receiver has a port of its own."""
        role = name.partition("-")[0]
        env = {**self._env, "MSNODE_NODE__HOST": f"host-{name}"}
        if name in self.ports:
            env["MSNODE_RECEIVE__PORT"] = str(self.ports[name])
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                serve_command(self._config, "--role", role), stdout=log, stderr=log, env=env
            )

    def wait(self) -> None:
        """Until every receiver listens and nothing has ended by itself."""
        for name, port in self.ports.items():
            wait_until(lambda port=port: listens(port), what=name, timeout_s=90)
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name}: {(self._folder / f'{name}.log').read_text()[-2000:]}"

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """SIGTERM to all, then SIGKILL to what is left."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def cluster(
    config: Path, counts: Mapping[str, int], env: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A cluster whose processes all run."""
    found = Cluster(config, counts, env)
    try:
        for name in found.names:
            found.start(name)
        found.wait()
        yield found
    finally:
        found.stop()
