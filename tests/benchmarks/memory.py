"""Peak memory of processes, as the kernel counted it."""

from pathlib import Path

import psutil


def peak_mib(pid: int) -> float:
    """Largest resident set so far (VmHWM), MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def peaks_below(pid: int, name: str) -> dict[str, float]:
    """Peak of a process and of each one below it, MiB, named by the command lines.

    A process with `--role X` is called X, one below it "X child"; other names count up.
    """
    found: dict[str, float] = {}
    _add(found, psutil.Process(pid), name)
    return found


def _add(found: dict[str, float], process: psutil.Process, name: str) -> None:
    arguments = process.cmdline()
    if "--role" in arguments:
        name = arguments[arguments.index("--role") + 1]
    elif "resource_tracker" in " ".join(arguments):
        name = f"{name} (resource tracker)"
    unique, number = name, 2
    while unique in found:
        unique, number = f"{name} {number}", number + 1
    found[unique] = peak_mib(process.pid)
    for child in process.children():
        _add(found, child, f"{name} child")


def resident_mib(process: psutil.Process) -> float:
    """Resident set now, MiB."""
    return float(process.memory_info().rss) / 2**20
