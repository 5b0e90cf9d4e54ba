"""Sending many studies, and counting afterwards what the archive holds of each."""

import hashlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msnode.record import schema
from msnode.record.database import Database
from support.heads import head_series, study_of
from support.node import ENDS, Node
from support.peers import OrthancPeer, storescu, wait_until


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Sender(threading.Thread):
    """Sends series to one of several ports, each whole again until every instance was answered 0x0000."""

    def __init__(self, series: Iterable[list[Path]], ports: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self._series = series
        self._ports = ports
        self.sent: list[str] = []
        self.tries = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        """Until the series are sent, or it is told to stop between two of them."""
        for files in self._series:
            while not self.stopping.is_set():
                self.tries += 1
                if storescu(files, self._ports[self.tries % len(self._ports)]).returncode == 0:
                    self.sent.append(study_of(files[0]))
                    break
                self.stopping.wait(0.2)
            if self.stopping.is_set():
                return


def make_series(folder: Path, count: int, slices: int) -> list[list[Path]]:
    """So many studies of different patients."""
    return [head_series(folder / f"s{n:04d}", slices, patient_id=f"SOAK-{n:04d}") for n in range(count)]


def wait_for_ends(node: Node, studies: Sequence[str], *, keep: Callable[[], None], timeout_s: float) -> None:
    """Until every job has ended; `keep` is called at each look."""

    def ended() -> bool:
        keep()
        jobs = node.jobs()
        known = {j["study_instance_uid"] for j in jobs}
        return known >= set(studies) and all(j["state"] in ENDS for j in jobs)

    wait_until(ended, what="the end of all jobs", timeout_s=timeout_s, poll_s=1.0)


def count(node: Node, pacs: OrthancPeer, studies: Sequence[str], slices: int) -> list[str]:
    """Compare archive, record and store; returns one sentence for each thing that is not as it must be."""
    jobs = node.jobs()
    per_study = Counter(j["study_instance_uid"] for j in jobs)
    problems = [f"{study}: {n} jobs" for study, n in per_study.items() if n != 1]
    problems += [f"{study}: no job" for study in set(studies) - set(per_study)]
    problems += [f"job {j['id']}: {j['state']}: {j['reason']}" for j in jobs if j["state"] != "completed"]
    database = Database(node.database_url)
    with database.read() as tx:
        results = list(tx.execute(schema.result.select()))
        instances = tx.execute(schema.instance.select().where(schema.instance.c.own.is_(False)))
        digests = [row.digest for row in instances]
        states = Counter(row.state for row in tx.execute(schema.delivery.select()))
    database.close()
    there, written = set(pacs.find_instances()), {row.sop_instance_uid for row in results}
    if there != written:
        problems.append(
            f"{len(written - there)} results missing in the archive, {len(there - written)} not of the record"
        )
    kinds = Counter((row.job_id, row.kind) for row in results)
    problems += [
        f"job {j['id']}: {kinds[j['id'], kind]} {kind} instead of {n}"
        for j in jobs
        for kind, n in {"sr": 1, "seg": 1, "overlay": slices, "summary": 1}.items()
        if kinds[j["id"], kind] != n
    ]
    if set(states) - {"delivered", "committed"}:
        problems.append(f"deliveries: {dict(states)}")
    if len(digests) != len(per_study) * slices:
        problems.append(f"{len(digests)} instances recorded instead of {len(per_study) * slices}")
    return problems + [f"instance {d[:12]} damaged or gone" for d in digests if not _intact(node, d)]


def _intact(node: Node, digest: str) -> bool:
    path = node.folder / "data" / "store" / "blobs" / digest[:2] / f"{digest}.dcm"
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
