"""What a process of msnode does at its start to keep patient data inside it."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_PR_SET_DUMPABLE = 4
"""Of prctl(2)."""
DUMPABLE_VARIABLE = "MSNODE_DUMPABLE"
"""Environment variable; with the value 1, processes can be dumped and traced: for benchmarks."""


def forbid_core_dumps() -> None:
    """Let the kernel write no memory of this process to disk, and no other process of the user read it.

    A core dump of a process that reads holds images and names. Call this in each process: starting a program
    resets the second half of it.
    """
    if os.environ.get(DUMPABLE_VARIABLE) == "1":
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # RLIMIT_CORE does not stop a dump into a pipe


def keep_libraries_off_stderr() -> None:
    """Discard what C libraries write to descriptor 2; what Python writes still goes to standard error.

    Image libraries print on damaged pixels, in the middle of a log of JSON lines. Call this before logs are
    configured.
    """
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
