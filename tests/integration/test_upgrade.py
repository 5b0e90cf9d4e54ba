"""Data folders that earlier versions left behind when every process was killed, under this version.

All series are drawn, of 12 slices, and hold no brain, so that each is answered by a report of rejection.

`data/node-0.2.0.tar.xz` was made by that version with a folder as destination: one job delivered, one whose
destination was away, one being read, one queued, one coming in.

The others were made by `data/make_archive.py` under the version in their name, with a PACS as second
destination: one job delivered and confirmed; one on which the PACS owed its report of storage commitment; one
on which it was about to be asked for that; one that the PACS had and the folder, which was away, had not; one
being read; one queued, from 0.4.0 on by a routing rule that names the folder alone; one coming in.
"""

import hashlib
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from msnode.record.database import Database, upgrade
from support.commitment_peer import commitment_pacs, kept
from support.node import dicom_destination, node
from support.peers import wait_until

DATA = Path(__file__).parent / "data"
WITH_PACS = ("rejected", "delivered", "delivered", "delivering", "running", "queued", "receiving")


@dataclass(frozen=True)
class Left:
    """What a version left.

    Attributes:
        schema: of its record.
        states: of its jobs, in the order of their ids.
        archive: jobs of which the folder has yet to get something.
        pacs: jobs of which the PACS has yet to get something.
        ruled: id, rule, preset, priority and destinations of jobs that a routing rule decided on.
    """

    version: str
    schema: str
    states: tuple[str, ...]
    archive: set[int]
    pacs: set[int]
    ruled: tuple[tuple[int, str, str, int, tuple[str, ...]], ...] = ()


LEFT = (
    Left(
        "0.2.0", "0001", ("rejected", "delivering", "running", "queued", "receiving"), {2, 3, 4, 5}, {3, 4, 5}
    ),
    Left("0.3.0", "0002", WITH_PACS, {4, 5, 6, 7}, {5, 6, 7}),
    Left(
        "0.4.0", "0003", WITH_PACS, {4, 5, 6, 7}, {5, 7}, ruled=((6, "emergency", "fast", 1, ("archive",)),)
    ),
)
SCHEMA = "SELECT version_num FROM alembic_version"
RESULTS = "SELECT sop_instance_uid, job_id, kind, sha256 FROM result"
IN_PACS = (
    "SELECT r.sop_instance_uid, r.series_instance_uid, r.sop_class_uid FROM result r "
    "JOIN delivery d ON d.result_id = r.id WHERE d.destination = 'pacs' AND d.state != 'pending'"
)
REQUESTS = "SELECT state, transaction_uid FROM commitment WHERE state IN ('prepared', 'requested')"
FACTS = ("id", "rule", "preset", "priority", "destinations")


@pytest.mark.parametrize("left", LEFT, ids=lambda left: left.version)
def test_jobs_in_flight_are_migrated_and_finished(tmp_path, left):
    before, folder, archive = (tmp_path / name for name in ("before", "n", "archive"))
    archive.mkdir()
    for each in (before, folder):  # a look into one would tidy up what the killed processes left
        with tarfile.open(DATA / f"node-{left.version}.tar.xz") as tar:
            tar.extractall(each, filter="data")
    assert _query(before, SCHEMA) == [(left.schema,)]
    assert _query(before, "SELECT id, state FROM job ORDER BY id") == list(enumerate(left.states, 1))
    # up to 0.2 nobody was asked to confirm anything
    requests = dict(_query(before, REQUESTS)) if "delivered" in left.states else {}
    assert len(requests) == left.states.count("delivered")
    never_sent = {uid for state, uid in requests.items() if state == "prepared"}
    with commitment_pacs() as pacs:
        pacs.on_association = lambda request: (kept(request),)
        pacs.held.update({uid: (series, sop_class) for uid, series, sop_class in _query(before, IN_PACS)})
        destinations = f'[[destinations]]\nname = "archive"\ntype = "folder"\npath = "{archive}"\n'
        destinations += dicom_destination("pacs", pacs.aet, pacs.port, verify="commitment")
        with node(folder, destinations, extra="interrupted_quiet_s = 1\n") as upgraded:
            wait_until(
                lambda: {j["state"] for j in upgraded.jobs()} == {"rejected"}, what="all jobs' end",
                timeout_s=120, poll_s=0.3,
            )  # fmt: skip
            jobs = {job["id"]: job for job in upgraded.jobs()}
    assert _query(folder, SCHEMA) == _newest_schema(tmp_path / "new")
    results, written = _results(folder), _results(before)
    # what was read is not read again, and in the end each job has one report
    read = {result.job for result in written.values()}
    assert {uid: result for uid, result in results.items() if result.job in read} == written
    assert Counter(result.job for result in results.values() if result.kind == "sr") == dict.fromkeys(jobs, 1)
    # each destination gets what it lacks, as it was or is written, and nothing that it was given before
    arrived = [(path.stem.rpartition("-")[2], path) for path in archive.iterdir()]
    assert Counter(uid for uid, _ in arrived) == _one_each(results, left.archive)
    for uid, path in arrived:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == results[uid].sha256
    assert Counter(pacs.stored) == _one_each(results, left.pacs)
    # the request that was never sent is sent now; instead of the other, long overdue, the PACS is searched
    asked = [request.transaction_uid for request in pacs.requests]
    assert set(requests.values()) & set(asked) == never_sent
    assert len(set(asked)) == len(asked) == len(left.pacs) + len(never_sent)
    ruled = [job for job in jobs.values() if job["rule"]]
    assert [tuple(job[fact] for fact in FACTS) for job in ruled] == list(left.ruled)


@dataclass(frozen=True)
class Result:
    job: int
    kind: str
    sha256: str


def _results(folder: Path) -> dict[str, Result]:
    return {uid: Result(*rest) for uid, *rest in _query(folder, RESULTS)}


def _one_each(results: dict[str, Result], jobs: set[int]) -> dict[str, int]:
    return {uid: 1 for uid, result in results.items() if result.job in jobs}


def _newest_schema(folder: Path) -> list[tuple]:
    (folder / "data").mkdir(parents=True)
    upgrade(_url(folder))
    return _query(folder, SCHEMA)


def _query(folder: Path, text: str) -> list[tuple]:
    database = Database(_url(folder))
    with database.read() as tx:
        found = [tuple(row) for row in tx.execute(sa.text(text))]
    database.close()
    return found


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'data' / 'msnode.db'}"
