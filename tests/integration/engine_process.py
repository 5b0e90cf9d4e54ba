"""One process that serves workflows until its standard input closes; a program of test_engine_processes.py.

    python engine_process.py URL EXECUTOR_ID FOLDER LOCK_WAIT_S CHECK_S

Each workflow leaves a file `<name>.<argument>.<executor id>.<pid>` in FOLDER at its start. `slow` runs
until there is a file `go` and leaves `done…` then; `poison` kills its process; `quick` does nothing else.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from msnode.engine import takeover
from msnode.engine.engine import Engine, QueueSlots
from msnode.errors import ConfigurationError

REFUSED = 3


def main(url: str, executor_id: str, folder: Path, lock_wait_s: float) -> None:
    def note(name: str, argument: int) -> None:
        (folder / f"{name}.{argument}.{executor_id}.{os.getpid()}").touch()

    def slow(argument: int) -> None:
        note("slow", argument)
        tick = threading.Event()
        while not (folder / "go").exists():
            tick.wait(0.05)
        note("done", argument)

    def poison(argument: int) -> None:
        note("poison", argument)
        os.kill(os.getpid(), signal.SIGKILL)

    def quick(argument: int) -> None:
        note("quick", argument)

    engine = Engine(url, lock_wait_s=lock_wait_s)
    try:
        engine.serve(
            executor_id,
            {"slow": slow, "poison": poison, "quick": quick},
            {"jobs": QueueSlots(per_process=1), "few": QueueSlots(per_process=2, everywhere=2)},
            max_recoveries=1,
        )
    except ConfigurationError:
        sys.exit(REFUSED)
    (folder / f"up.{os.getpid()}").touch()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    takeover._CHECK_S = float(sys.argv[5])
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
