"""What importing the record loads: command lines that only look start fast."""

import pkgutil
import subprocess
import sys

from msnode import record


def test_record_loads_neither_dbos_nor_alembic():
    names = [module.name for module in pkgutil.iter_modules(record.__path__) if not module.ispkg]
    assert {"jobs", "deliveries", "arrivals", "work"} <= set(names)
    program = "\n".join(
        [
            "import sys",
            *(f"import msnode.record.{name}" for name in names),
            "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'dbos', 'alembic'}))",
            "print(*sorted(name for name in sys.modules if name.startswith('msnode.engine')))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "msnode.engine msnode.engine.connections"]
