"""`make soak`: minutes to hours under load and kills, outside `make test`.

python -m tests.soak random [--minutes N] [--postgresql] [--seed N]
python -m tests.soak cluster [--series N]
python -m tests.soak headers [--studies N]
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Run one soak test; 0 where all was well."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the soak tests use the tests' peers
    from soak import cluster_load, header_fuzz, random_kills  # noqa: PLC0415 - needs the path

    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    commands = parser.add_subparsers(required=True)
    for module in (random_kills, cluster_load, header_fuzz):
        module.add_command(commands)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
