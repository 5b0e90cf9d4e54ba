"""`make bench`: run the benchmarks, print the table of each, and write it into deploy/docs/measured.md.

python -m tests.benchmarks [NAME ...]

Without names all of them run. Each one replaces its own section as soon as it has ended. A benchmark is a
module `bench_NAME.py` with a function `run`, which returns Markdown without a heading.
"""

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    sys.path.insert(0, str(HERE.parent))  # the benchmarks use the tests' peers
    from benchmarks.measured import PAGE, Skipped, machine, replace_section, section  # noqa: PLC0415 - the path

    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    wanted = sys.argv[1:] or known
    if unknown := set(wanted) - set(known):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    skipped = []
    for name in wanted:
        here_and_now = machine()
        try:
            figures = importlib.import_module(f"benchmarks.bench_{name}").run()
        except Skipped as reason:
            skipped.append(f"{name} was skipped: {reason}")
            continue
        text = section(name, here_and_now, figures)
        PAGE.write_text(replace_section(PAGE.read_text(encoding="utf-8"), name, text), encoding="utf-8")
        print(f"{text}\n", flush=True)  # noqa: T201 - the table is the output
    if skipped:
        sys.exit("\n".join(skipped))


if __name__ == "__main__":
    main()
