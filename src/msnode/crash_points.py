"""Points at which a test may end or upset this very process; without the variable none does anything.

`MSNODE_FAULT` is a list, separated by commas, of `<point>`, `<point>:<action>` or `<point>:<action>:<key>`:
at that point (and for that key only, such as a study's UID) the process kills itself (`kill`, the default)
or its whole process group (`killall`), crashes (`crash`), hangs (`hang`) or takes memory without end
(`memory`). `MSNODE_FAULT_ONCE` names a folder in which each point leaves a file before it acts: where that is
there already nothing happens, so that a restarted process gets past the point.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path

POINTS = (
    # receiver, in the order of one study's way
    "instance-read",
    "instance-stored",
    "instance-recorded",
    "association-ended",
    "study-complete",
    "study-queued",
    # worker and its child
    "job-started",
    "reading-began",
    "result-written",
    "result-committed",
    "result-recorded",
    # sender
    "delivery-began",
    "object-sent",
    "objects-sent",
    "delivery-noted",
    "commitment-prepared",
    "commitment-requested",
    "commitment-noted",
    # receiver again
    "report-received",
    "report-noted",
)
"""Every step at which the tests of durability kill the process that takes it."""

_POISON = 64 * 2**20


def reach(point: str, key: str = "") -> None:
    """Do what `MSNODE_FAULT` asks for at this point."""
    wanted = os.environ.get("MSNODE_FAULT")
    if not wanted:
        return
    for each in wanted.split(","):
        name, _, rest = each.partition(":")
        action, _, only = rest.partition(":")
        if name == point and only in {"", key} and _first_time(point):
            _act(action)


def _act(action: str) -> None:
    if action in {"", "kill"}:
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "killall":
        os.killpg(0, signal.SIGKILL)
    elif action == "crash":
        ctypes.string_at(0)
    elif action == "hang":
        threading.Event().wait()
    elif action == "memory":
        hoard = []
        while True:
            hoard.append(b"\1" * _POISON)


def _first_time(point: str) -> bool:
    once = os.environ.get("MSNODE_FAULT_ONCE")
    if not once:
        return True
    try:
        (Path(once) / point).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
