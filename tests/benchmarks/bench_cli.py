"""CPU time and peak memory of commands that people and monitoring run often."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from msnode.record.database import upgrade

RUNS = 9
_COMMANDS = ("--help", "--version", "jobs list", "status")
_RECORD = {"jobs list", "status"}
# A process inherits the peak memory of the one that starts it, so a small one starts the command.
_OBSERVER = """\
import os, sys
child = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
cpu_s, peak_mib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
print(os.waitstatus_to_exitcode(status), cpu_s, peak_mib, file=sys.stderr)
"""


def run() -> str:
    """A Markdown table."""
    with tempfile.TemporaryDirectory(prefix="bench-cli-") as name:
        config = Path(name) / "msnode.toml"
        config.write_text(f"[node]\ndata_dir = {json.dumps(name)}\n")
        upgrade(f"sqlite:///{name}/msnode.db")
        rows = [_row(command, config) for command in _COMMANDS]
    return "\n".join(
        [
            f"Command line: CPU time (user and system), median and range of {RUNS} runs, and peak memory.",
            "",
            "| command | CPU, s | peak memory, MiB |",
            "|---|---|---|",
            *rows,
        ]
    )


def _row(command: str, config: Path) -> str:
    arguments = [*command.split(), *(["--config", str(config)] if command in _RECORD else [])]
    _measure(arguments)  # compiles modules and fills the page cache
    measured = [_measure(arguments) for _ in range(RUNS)]
    cpu = [seconds for seconds, _ in measured]
    memory = max(mib for _, mib in measured)
    spread = f"{statistics.median(cpu):.2f} ({min(cpu):.2f}-{max(cpu):.2f})"
    return f"| `msnode {command}` | {spread} | {memory:.0f} |"


def _measure(arguments: list[str]) -> tuple[float, float]:
    """CPU seconds and peak memory, MiB, of one run."""
    command = [sys.executable, "-S", "-c", _OBSERVER, sys.executable, "-m", "msnode", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, cpu_s, peak_mib = map(float, done.stderr.splitlines()[-1].split())
    if code:
        raise RuntimeError(f"msnode {' '.join(arguments)} ended with exit code {code:.0f}: {done.stderr}")
    return cpu_s, peak_mib
