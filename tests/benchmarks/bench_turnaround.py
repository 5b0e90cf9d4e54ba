"""From the last C-STORE of a 20-slice FLAIR to the last result object in the PACS, split by stage.

Orthanc and `msnode serve` run as processes of their own; the sender is DCMTK storescu. The first study
meets a node that has just started and is shown apart. The quiet time, a setting, is shown apart too.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydicom import dcmread

from benchmarks.memory import peak_mib, peaks_below
from msnode.demo.patient import write_series
from msnode.demo.phantom import make_patient
from support import peers

STUDIES = 5
QUIET_S = 1.0
LIMIT_S = 180
_ENDED = {"completed", "rejected", "failed", "cancelled", "passed_over"}

_CONFIG = """
[node]
data_dir = "{folder}/data"
log_level = "WARNING"
[receive]
port = {port}
[completeness]
after_release_s = {quiet}
[[destinations]]
name = "pacs"
type = "dicom"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {pacs}
verify = "none"
"""


def _study(seed: int, folder: Path) -> list[Path]:
    """The FLAIR of one made-up patient."""
    files = write_series(make_patient(seed), folder)
    return [f for f in files if "FLAIR" in dcmread(f, stop_before_pixels=True).SeriesDescription]


def _msnode(config: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "msnode", *arguments, "--config", str(config), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _job_of(config: Path, study_uid: str) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = _msnode(config, "jobs", "list")
    return next((j for j in jobs if j["study_instance_uid"] == study_uid), {"state": "unknown"})


def _measure(config: Path, port: int, pacs: peers.OrthancPeer, files: Sequence[Path]) -> dict[str, float]:
    """Send one study and follow it; stage → seconds, in the order of the time line."""
    before = count = pacs.instance_count()
    done = peers.storescu(files, port)
    assert done.returncode == 0, done.stderr
    sent = last = datetime.now(UTC)
    study_uid = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    state, limit = "unknown", time.monotonic() + LIMIT_S
    while state not in _ENDED:
        assert time.monotonic() < limit, f"job {state} after {LIMIT_S} s"
        time.sleep(0.02)  # a benchmark may wait: asking the PACS without pause would slow the node down
        now = pacs.instance_count()
        if now != count:
            count, last = now, datetime.now(UTC)
        elif count > before and (datetime.now(UTC) - last).total_seconds() > 1:
            state = _job_of(config, study_uid)["state"]
    details = _msnode(config, "jobs", "show", str(_job_of(config, study_uid)["id"]))
    assert details["job"]["state"] == "completed", details["job"]["reason"]
    assert count - before == len(details["results"])
    return _split(details, sent, last)


def _split(details: Mapping[str, Any], sent: datetime, last: datetime) -> dict[str, float]:
    """The time line from the last response to the last object, without gaps."""
    at = {step["state"]: datetime.fromisoformat(step["at"]) for step in details["transitions"]}
    in_state = {
        one["state"]: (datetime.fromisoformat(two["at"]) - datetime.fromisoformat(one["at"])).total_seconds()
        for one, two in pairwise(details["transitions"])
    }
    stages = {str(name): float(seconds) for name, seconds in details["job"]["timings_s"].items()}
    return {
        "quiet time (setting)": QUIET_S,
        "study found complete": (at["queued"] - sent).total_seconds() - QUIET_S,
        "waiting for the worker": in_state["queued"],
        **stages,
        "process started, set committed": in_state["running"] - sum(stages.values()),
        "delivered": (last - at["delivering"]).total_seconds(),
    }


def run() -> str:
    """All studies; Markdown tables."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        studies = [_study(seed, root / f"study{seed}") for seed in range(STUDIES)]
        (root / "pacs").mkdir()
        with peers.orthanc(root / "pacs") as pacs:
            port, config = peers.free_port(), root / "msnode.toml"
            config.write_text(_CONFIG.format(folder=root, port=port, quiet=QUIET_S, pacs=pacs.dicom_port))
            command = [sys.executable, "-m", "msnode", "serve", "--config", str(config)]
            with peers.running(
                command, root / "serve.log", ready=lambda: peers.listens(port), stop_s=40
            ) as node:
                measured = [_measure(config, port, pacs, files) for files in studies]
                memory = {**peaks_below(node.pid, "supervisor"), "Orthanc": peak_mib(pacs.pid)}
    return _table(measured, memory)


def _table(measured: Sequence[Mapping[str, float]], memory: Mapping[str, float]) -> str:
    first, others = measured[0], measured[1:]
    about = (
        "From the last C-STORE response of a 20-slice FLAIR (256 x 256) to the last result object in "
        "Orthanc, seconds: the first study after the start, then the median of "
        f"{len(others)} more, lowest to highest."
    )
    lines = [about, "", "| stage | first | then |", "|---|---:|---:|"]
    lines += [f"| {stage} | {first[stage]:.2f} | {_middle([m[stage] for m in others])} |" for stage in first]
    totals = [sum(m.values()) for m in measured]
    lines.append(f"| **all** | {totals[0]:.2f} | {_middle(totals[1:])} |")
    net = [total - QUIET_S for total in totals]
    lines.append(f"| **all, without the quiet time** | {net[0]:.2f} | {_middle(net[1:])} |")
    lines += ["", "| process | peak memory, MiB |", "|---|---:|"]
    lines += [f"| {name} | {mib:.0f} |" for name, mib in memory.items()]
    return "\n".join(lines)


def _middle(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
