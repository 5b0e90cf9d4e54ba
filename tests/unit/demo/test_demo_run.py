"""Waiting for results, studies of one's own, and what is refused, without any process."""

from pathlib import Path

import numpy as np
import pytest

from msnode.demo import node
from msnode.demo.node import Node, wait_for_results
from msnode.demo.patient import write_series
from msnode.demo.phantom import Phantom
from msnode.demo.run import run_demo
from msnode.dicom.connection import DicomAddress
from msnode.domain.imaging import Grid, Volume
from msnode.errors import ConfigurationError, PeerUnreachable, ProcessDied
from msnode.settings import load_settings

ADDRESS = DicomAddress("MSNODE", "127.0.0.1", 11112)


class Process:
    """A process that runs until told otherwise."""

    code = None

    def poll(self):
        return self.code


class Pacs:
    """A PACS in which one more object lies at each look, up to `total`."""

    name = "fake"
    address = DicomAddress("PACS", "127.0.0.1", 4242)

    def __init__(self, total):
        self.total, self.count = total, 0

    def results(self, study_instance_uid):
        del study_instance_uid
        self.count = min(self.count + 1, self.total)
        return tuple(range(self.count))


@pytest.fixture
def quick(monkeypatch):
    for name in ("_UNPROMPTED_S", "_SETTLED_S", "_LOOK_S"):
        monkeypatch.setattr(node, name, 0.001)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A node whose `jobs` command answers from `states`, one a call, the last for ever."""
    (tmp_path / "node.log").write_text("the last line\n")
    states = ["running", "delivering", "completed"]

    def ask(self, *arguments):
        if arguments[0] == "show":
            return {"job": {"id": int(arguments[1]), "state": states[0]}}
        state = states.pop(0) if len(states) > 1 else states[0]
        mine = {"id": 7, "study_instance_uid": "1.2", "state": state}
        return [{"id": 9, "study_instance_uid": "1.3", "state": "failed"}, mine]

    monkeypatch.setattr(Node, "_ask", ask)
    return Node(ADDRESS, tmp_path / "msnode.toml", tmp_path / "node.log", Process())


@pytest.mark.usefixtures("quick")
def test_results_are_complete_when_the_job_has_ended(watched):
    job, stored = wait_for_results(watched, Pacs(5), "1.2", deadline_s=10)
    assert job == {"job": {"id": 7, "state": "completed"}}
    assert len(stored) == 5


@pytest.mark.usefixtures("quick")
def test_a_job_that_ends_without_results_ends_the_waiting(watched):
    job, stored = wait_for_results(watched, Pacs(0), "1.2", deadline_s=10)
    assert job["job"]["state"] == "completed"
    assert stored == ()


@pytest.mark.usefixtures("quick")
def test_a_node_that_dies_is_an_error_with_its_last_words(watched):
    watched.process.code = 3
    with pytest.raises(ProcessDied, match="the node ended with exit code 3: the last line"):
        wait_for_results(watched, Pacs(0), "1.2", deadline_s=10)


@pytest.mark.usefixtures("quick")
def test_waiting_has_an_end(watched):
    with pytest.raises(PeerUnreachable, match="has not ended after 0 s"):
        wait_for_results(watched, Pacs(0), "1.9", deadline_s=0.1)


def test_the_nodes_configuration_is_valid(tmp_path):
    folder = tmp_path / 'a "quoted" folder'
    folder.mkdir()
    config = folder / "msnode.toml"
    config.write_text(node._configuration(folder, ADDRESS, Pacs.address))
    settings = load_settings(config)
    assert settings.node.data_dir == folder / "data"
    assert settings.receive.port == 11112
    (pacs,) = settings.destinations
    assert (pacs.ae_title, pacs.host, pacs.port) == ("PACS", "127.0.0.1", 4242)
    assert set(pacs.objects) == {"seg", "sr", "overlay", "summary"}


def test_a_jobs_command_that_fails_is_an_error_in_its_words(tmp_path):
    config = tmp_path / "absent.toml"
    with pytest.raises(ProcessDied, match=r"msnode jobs list: .*absent\.toml"):
        Node(ADDRESS, config, tmp_path / "log", Process()).ended_job("1.2")


@pytest.mark.parametrize("studies", [0, 2])
def test_a_folder_needs_exactly_one_study(tmp_path, studies):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("no DICOM")
    for seed in range(studies):
        grid = Grid((2, 4, 4), np.diag([7.0, 0.9, 0.9, 1.0])[[2, 1, 0, 3]])
        data = np.full(grid.shape, 100, np.float32)
        phantom = Phantom(seed, Volume(data, grid), np.zeros(grid.shape, np.int32), ())
        write_series(phantom, tmp_path / "study" / str(seed))
    with pytest.raises(ConfigurationError, match=f"one study; there are {studies}"):
        run_demo(tmp_path / "study", tmp_path / "out", 1, lambda _: None)
    assert not Path(tmp_path / "out").exists()
