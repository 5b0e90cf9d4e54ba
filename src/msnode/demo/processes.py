"""Processes of the demo: started on free ports of loopback, watched until ready, ended by their id."""

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
    """A TCP port of loopback that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    """This process's environment without settings of the site's own node (`MSNODE_…`)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MSNODE_")}
    return kept | {"TCP_NODELAY": "1"}  # without it DCMTK waits about 50 ms for an ACK after each image


@contextmanager
def running(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, output in `log`; at the end it is asked to stop, then killed.

    A group of its own: Ctrl-C reaches the demo alone, which then ends its processes in order.

    Raises:
        OutOfResources: the program cannot be started.
    """
    with ExitStack() as stack:
        with _signals_deferred():  # a signal during the start would leave a process that nobody knows
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
    """SIGINT and SIGTERM that come inside the block take effect at its end; for the main thread."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for late in came:
        signal.raise_signal(late)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own group: the process and its children
            process.wait()


def wait_until_ready(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], *, what: str, deadline_s: float
) -> None:
    """Ask `ready` until it says yes.

    Raises:
        ProcessDied: the process ended before; the message has the last line of its log.
        PeerUnreachable: not ready within `deadline_s`.
    """
    end = time.monotonic() + deadline_s
    while not ready():
        check_alive(process, log, what=what)
        if time.monotonic() > end:
            raise PeerUnreachable(f"{what} is not ready after {deadline_s:.0f} s; its log is {log}")
        time.sleep(POLL_S)


def check_alive(process: subprocess.Popen[bytes], log: Path, *, what: str) -> None:
    """Raise ProcessDied where the process has ended."""
    code = process.poll()
    if code is not None:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        raise ProcessDied(f"{what} ended with exit code {code}: {lines[-1]} (log: {log})")
