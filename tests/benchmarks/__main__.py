"""`make bench`: run the benchmarks, print a Markdown table each, keep them in bench-output/results.md.

python -m tests.benchmarks [NAME ...]
"""

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "bench-output"


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))  # the benchmarks use the tests' peers
    from benchmarks import (  # noqa: PLC0415 - needs the path
        bench_brain,
        bench_cuda,
        bench_encode,
        bench_engine,
        bench_history,
        bench_queue,
        bench_receive,
        bench_recovery,
        bench_select,
        bench_train,
        bench_turnaround,
    )

    known = {
        "receive": bench_receive.run,
        "turnaround": bench_turnaround.run,
        "engine": bench_engine.run,
        "brain": bench_brain.run,
        "queue": bench_queue.run,
        "history": bench_history.run,
        "recovery": bench_recovery.run,
        "select": bench_select.run,
        "encode": bench_encode.run,
        "train": bench_train.run,
        "cuda": bench_cuda.run,
    }
    wanted = sys.argv[1:] or list(known)
    if unknown := set(wanted) - set(known):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; "
        f"load average at the start {os.getloadavg()[0]:.1f}."
    )
    parts = [machine, *(known[name]() for name in wanted)]
    text = "\n\n".join(parts) + "\n"
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "results.md").write_text(text, encoding="utf-8")
    print(text)  # noqa: T201 - the table is the output


if __name__ == "__main__":
    main()
