"""Inputs that crash, hang or bloat the process that reads them are given up, and the next one is read."""

from support.heads import head_series, study_of
from support.node import msnode, node
from support.peers import storescu, wait_until

LIMITS = '[model]\npreset = "fast"\nattempts = 2\ntime_limit_s = 15\nmemory_limit_mb = 1200\n'
HOW = {"crash": "SIGSEGV", "hang": "killed after 15 s", "memory": "killed past 1200 MB of memory"}


def test_poison_is_dead_lettered_and_the_next_job_runs(tmp_path):
    series = {
        name: head_series(tmp_path / name, slices=10, patient_id=name.upper()) for name in (*HOW, "good")
    }
    studies = {name: study_of(files[0]) for name, files in series.items()}
    faults = ",".join(f"reading-began:{action}:{studies[action]}" for action in HOW)
    with node(tmp_path / "n", extra=LIMITS, env={"MSNODE_FAULT": faults}) as found:
        for files in series.values():
            assert storescu(files, found.port).returncode == 0
        wait_until(
            lambda: sorted(j["state"] for j in found.jobs()) == ["completed", "failed", "failed", "failed"],
            what="the end of all four", timeout_s=180, poll_s=0.3,
        )  # fmt: skip
        jobs = {j["study_instance_uid"]: j for j in found.jobs()}
        assert jobs[studies["good"]]["state"] == "completed"
        for action, how in HOW.items():
            assert how in jobs[studies[action]]["reason"], action
            assert jobs[studies[action]]["attempts"] == 2
        status = msnode("status", "--config", found.config)
        assert status.returncode == 1
        assert status.stdout.count("failed: ProcessDied") == len(HOW)
