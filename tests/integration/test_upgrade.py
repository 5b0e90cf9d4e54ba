"""A data folder that version 0.2.0 left behind when it was killed, under this version.

`data/node-0.2.0.tar.xz` was made by that version with five drawn series of 12 slices (which hold no brain, so
that each is answered by a report of rejection) and a folder as destination: one delivered, one whose
destination was away, one being read, one queued, one coming in; then every process was killed.
"""

import tarfile
from pathlib import Path

import pydicom
import sqlalchemy as sa

from msnode.record.database import Database
from support.node import node
from support.peers import wait_until

LEFT = Path(__file__).parent / "data" / "node-0.2.0.tar.xz"
STATES = {1: "rejected", 2: "delivering", 3: "running", 4: "queued", 5: "receiving"}


def test_jobs_in_flight_are_migrated_and_finished(tmp_path):
    folder, archive = tmp_path / "n", tmp_path / "archive"
    folder.mkdir()
    archive.mkdir()
    with tarfile.open(LEFT) as tar:
        tar.extractall(folder, filter="data")
    destination = f'[[destinations]]\nname = "archive"\ntype = "folder"\npath = "{archive}"\n'
    assert _query(folder, "SELECT id, state FROM job ORDER BY id") == list(STATES.items())
    with node(folder, destination, extra="interrupted_quiet_s = 1\n") as upgraded:
        wait_until(
            lambda: {j["state"] for j in upgraded.jobs()} == {"rejected"}, what="all jobs' end",
            timeout_s=120, poll_s=0.3,
        )  # fmt: skip
    assert _query(folder, "SELECT version_num FROM alembic_version") != [("0001",)]
    arrived = [pydicom.dcmread(path) for path in archive.iterdir()]
    reports = [ds.StudyInstanceUID for ds in arrived if ds.Modality == "SR"]
    # the first job's report was delivered before, to the folder of then
    assert len(set(reports)) == len(reports) == len(STATES) - 1
    # what that version had written is sent as it is, without the page that this one adds
    pages = [ds.StudyInstanceUID for ds in arrived if ds.Modality == "OT"]
    assert len(set(pages)) == len(pages) == len(reports) - 1
    assert len(arrived) == len(reports) + len(pages)


def _query(folder: Path, text: str) -> list[tuple]:
    database = Database(f"sqlite:///{folder / 'data' / 'msnode.db'}")
    with database.read() as tx:
        found = [tuple(row) for row in tx.execute(sa.text(text))]
    database.close()
    return found
