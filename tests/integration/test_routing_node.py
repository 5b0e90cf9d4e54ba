"""A node under rules: who sent a study decides what becomes of it, from the association to the folder."""

import pydicom

from support.dicom_files import flair_series
from support.heads import head_series, study_of
from support.node import ENDS, msnode, node
from support.peers import storescu, wait_until

RULES = """
[[rules]]
name = "research is not read by day"
read = false
[rules.when]
calling_ae = "BATCH"

[[rules]]
name = "emergency"
priority = "stat"
destinations = ["ward"]
[rules.when]
calling_ae = "ER-MR"
tags = { Modality = "MR" }
geometry = { plane = "axial" }

[[rules]]
name = "all others"
destinations = ["archive"]
"""


def folders(folder):
    return "".join(
        f'[[destinations]]\nname = "{name}"\ntype = "folder"\npath = "{folder / name}"\nobjects = ["sr"]\n'
        for name in ("ward", "archive")
    )


def studies_in(folder):
    return {str(pydicom.dcmread(path).StudyInstanceUID) for path in folder.glob("**/*.dcm")}


def test_each_study_goes_where_its_rule_says(tmp_path):
    place = tmp_path / "n"
    for each in (place, tmp_path / "ward", tmp_path / "archive"):
        each.mkdir()
    (place / "routing.toml").write_text(RULES)
    urgent = head_series(tmp_path / "1", patient_id="A")
    usual = flair_series(tmp_path / "2", slices=12, patient_id="B")
    unread = flair_series(tmp_path / "3", slices=12, patient_id="C")
    with node(place, folders(tmp_path), extra='[model]\npreset = "fast"\n') as running:
        for paths, calling_ae in ((unread, "BATCH"), (usual, "MR1"), (urgent, "ER-MR")):
            done = storescu(paths, running.port, calling=calling_ae)
            assert done.returncode == 0, done.stderr
        wait_until(
            lambda: [j["state"] in ENDS for j in running.jobs()] == [True] * 3, what="all jobs' end",
            timeout_s=120, poll_s=0.3,
        )  # fmt: skip
        by_study = {job["study_instance_uid"]: job for job in running.jobs()}
        sent = {"unread": unread, "usual": usual, "urgent": urgent}
        jobs = {name: by_study[study_of(paths[0])] for name, paths in sent.items()}
        shown = msnode("jobs", "show", jobs["urgent"]["id"], "--config", running.config).stdout
    assert studies_in(tmp_path / "ward") == {study_of(urgent[0])}
    assert studies_in(tmp_path / "archive") == {study_of(usual[0])}
    facts = {n: (j["rule"], j["state"], j["priority"], j["destinations"]) for n, j in jobs.items()}
    assert facts == {
        "unread": ("research is not read by day", "passed_over", 5, None),
        "usual": ("all others", "rejected", 5, ("archive",)),  # a drawn ellipsoid holds no brain
        "urgent": ("emergency", "completed", 1, ("ward",)),
    }
    assert jobs["unread"]["reason"] == "the rule 'research is not read by day' says that it is not to be read"
    assert "rule: emergency" in shown
    assert "destinations: ward" in shown
