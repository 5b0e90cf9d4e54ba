"""At every step of a study's way the process that takes it is killed: nothing is lost, nothing is twice."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import pydicom
import pytest

from msnode import crash_points
from msnode.record import schema
from msnode.record.database import Database
from support.heads import head_series, study_of
from support.node import Node, RestartedNode, dicom_destination, write_config
from support.peers import free_port, listens, storescu, wait_until

QUICK = """
interrupted_quiet_s = 3
[model]
preset = "fast"
[retry]
first_s = 0.3
max_s = 1
"""
# An archive reports once: what a kill before keeps from happening has runs of its own.
LATER = {"commitment-noted", "report-received", "report-noted"}
STEPS = set(crash_points.POINTS) - LATER


def _send(files: list[Path], port: int, restarted: RestartedNode) -> None:
    """As an archive does: the whole series again until every instance was answered with success."""
    for _ in range(60):
        wait_until(lambda: restarted.keep() or listens(port), what="the receiver", timeout_s=60)
        if storescu(files, port).returncode == 0:
            return
    raise AssertionError("never sent")


def _one_result_set(orthanc, node: Node, study: str, files: list[Path]) -> None:
    """What the archive holds is what the node wrote, once."""
    (job,) = node.jobs()
    assert job["state"] == "completed", job["reason"]
    objects = {}
    for uid in orthanc.find_instances(StudyInstanceUID=study):
        objects[uid] = orthanc.download(uid)
    database = Database(node.database_url)
    with database.read() as tx:
        written = {row.sop_instance_uid: row for row in tx.execute(schema.result.select())}
        received = list(tx.execute(schema.instance.select()))
        delivered = Counter(row.state for row in tx.execute(schema.delivery.select()))
    database.close()
    assert set(objects) == set(written)
    kinds = Counter(row.kind for row in written.values())
    assert kinds == {"seg": 1, "sr": 1, "overlay": len(files), "summary": 1}
    assert delivered == {"committed": len(written)}
    for uid, row in written.items():
        stored = pydicom.dcmread(io.BytesIO(objects[uid]))
        file = node.folder / "data" / "store" / "sets" / job["result_set"] / row.path
        assert hashlib.sha256(file.read_bytes()).hexdigest() == row.sha256
        assert stored == pydicom.dcmread(file)
    assert len(received) == len(files)
    for row in received:
        blob = node.folder / "data" / "store" / "blobs" / row.digest[:2] / f"{row.digest}.dcm"
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == row.digest


@pytest.mark.parametrize(
    ("kind", "action", "steps"),
    [
        ("sqlite", "kill", STEPS),
        ("postgresql", "kill", STEPS),
        ("sqlite", "kill", {"commitment-noted", "report-received"}),
        ("sqlite", "kill", {"report-noted"}),
        ("sqlite", "killall", {"instance-recorded", "reading-began", "result-committed", "objects-sent"}),
    ],
    ids=["every-step-sqlite", "every-step-postgresql", "report-lost", "report-not-answered", "whole-node"],
)
@pytest.mark.timeout(420)
def test_a_study_survives_a_kill_at_every_step(kind, action, steps, *, orthanc, tmp_path, request):
    database_url = request.getfixturevalue("postgres").new_database() if kind == "postgresql" else ""
    port, markers = free_port(), tmp_path / "markers"
    markers.mkdir()
    orthanc.add_modality("msnode", "MSNODE", port)
    folder = tmp_path / "n"
    folder.mkdir()
    destination = dicom_destination("pacs", orthanc.aet, orthanc.dicom_port, verify="commitment")
    destination += "commitment_deadline_s = 5\n"
    config = write_config(folder, destination, port=port, extra=QUICK, database_url=database_url)
    node = Node(folder, port, config, folder / "serve.log")
    wanted = ",".join(f"{step}:{action}" for step in steps)
    restarted = RestartedNode(config, node.log, {"MSNODE_FAULT": wanted, "MSNODE_FAULT_ONCE": str(markers)})
    files = head_series(tmp_path / "study", slices=12)
    try:
        _send(files, port, restarted)

        def ended() -> bool:
            restarted.keep()
            return bool(jobs := node.jobs()) and jobs[0]["state"] in {"completed", "failed", "rejected"}

        wait_until(ended, what="the job's end", timeout_s=300, poll_s=0.3)
        _one_result_set(orthanc, node, study_of(files[0]), files)
    finally:
        restarted.stop()
    assert {m.name for m in markers.iterdir()} == steps
    assert restarted.starts == (1 if action == "kill" else 1 + len(steps))
