"""The sections of deploy/docs/measured.md that benchmarks write.

The page is written by hand, but for what stands between two markers:

    <!-- bench receive -->
    *With msnode 0.5.0, 2026-11-28, …: `make bench BENCH=receive`*

    | a table | …
    <!-- end receive -->
"""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

import msnode

PAGE = Path(__file__).resolve().parents[2] / "deploy" / "docs" / "measured.md"


class Skipped(Exception):
    """A benchmark lacks what it needs; the figures in the page stay. The message says what is missing."""


def machine() -> str:
    """Date and machine of what is measured from now on."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"load average at the start {os.getloadavg()[0]:.1f}"
    )


def section(name: str, machine_then: str, figures: str) -> str:
    """What stands between the markers: where the figures come from, and the figures."""
    origin = f"*With msnode {msnode.__version__}, {machine_then}: `make bench BENCH={name}`*"
    return f"{origin}\n\n{figures.strip()}"


def replace_section(page: str, name: str, content: str) -> str:
    """The page with this content between the markers of this name; a new section where it has none."""
    begin, end = f"<!-- bench {name} -->", f"<!-- end {name} -->"
    written = f"{begin}\n{content}\n{end}"
    between = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if between.search(page):
        return between.sub(lambda _: written, page)
    return f"{page.rstrip()}\n\n## {name.capitalize()}\n\n{written}\n"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
