"""Starts the processes of the demo on free loopback ports, waits until they are ready, and stops them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from msnode.errors import OutOfResources, PeerUnreachable, ProcessDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

LOOPBACK = "127.0.0.1"
POLL_S = 0.1
_STOP_S = 30.0


def free_port() -> int:
    """A loopback TCP port on which nothing was listening a moment ago."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    """The environment without the settings of the site's node (`MSNODE_…`)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MSNODE_")}
    return kept | {"TCP_NODELAY": "1"}  # otherwise DCMTK waits about 50 ms for an ACK after each image


@contextmanager
def running(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in its own process group with output to `log`; at the end, terminate it, then kill it.

    Because of the separate group, Ctrl-C reaches only the demo, which then stops its processes in order.

    Raises:
        OutOfResources: the program could not be started.
    """
    with ExitStack() as stack:
        with _signals_deferred():  # a signal during the start would leave a process running
            process = _start(command, log, env or environment())
            stack.callback(_stop, process)
        yield process


def _start(command: Sequence[str], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise OutOfResources(f"cannot start {command[0]}: {error.strerror}") from error


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer SIGINT and SIGTERM to the end of the block; for the main thread only."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for late in received:
        signal.raise_signal(late)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the group: the process and its children
            process.wait()


def wait_until_ready(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], *, what: str, deadline_s: float
) -> None:
    """Wait until `ready` returns True.

    Raises:
        ProcessDied: the process has ended; the message contains the last line of its log.
        PeerUnreachable: not ready within `deadline_s`.
    """
    end = time.monotonic() + deadline_s
    while not ready():
        check_alive(process, log, what=what)
        if time.monotonic() > end:
            raise PeerUnreachable(f"{what} is not ready after {deadline_s:.0f} s; see {log}")
        time.sleep(POLL_S)


def check_alive(process: subprocess.Popen[bytes], log: Path, *, what: str) -> None:
    """Raise ProcessDied if the process has ended."""
    code = process.poll()
    if code is not None:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        raise ProcessDied(f"{what} ended with exit code {code}: {lines[-1]} (log: {log})")
