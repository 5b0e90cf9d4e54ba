"""The PACS that the demo starts, fed by both of its senders; and processes that leave nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom import dcmread

from msnode.demo import node, pacs
from msnode.demo.patient import study_uid, write_series
from msnode.demo.phantom import Phantom
from msnode.demo.processes import environment, free_port, running, wait_until_ready
from msnode.dicom.connection import DicomAddress
from msnode.domain.imaging import Grid, Volume
from msnode.errors import PeerUnreachable, ProcessDied, Transient
from support.environment import peer


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tiny study: its UID and its files."""
    grid = Grid((6, 8, 8), np.diag([7.0, 0.9, 0.9, 1.0])[[2, 1, 0, 3]])
    phantom = Phantom(
        9, Volume(np.full(grid.shape, 100, np.float32), grid), np.zeros(grid.shape, np.int32), ()
    )
    return study_uid(phantom), write_series(phantom, tmp_path_factory.mktemp("study"))


@pytest.fixture(params=["orthanc", "archive"])
def running_pacs(request, tmp_path):
    if request.param == "orthanc":
        peer("orthanc")
        with pacs.start_orthanc(tmp_path) as started:
            yield started
    else:
        with pacs.start_archive(tmp_path) as started:
            yield started


@pytest.fixture(params=["storescu", "built-in sender"])
def sender(request, monkeypatch):
    if request.param == "storescu":
        peer("storescu")
    else:
        monkeypatch.setattr(node, "STORESCU", Path("/nowhere/storescu"))
    return request.param


def test_what_is_sent_can_be_looked_up_by_study(running_pacs, sender, study, tmp_path):
    uid, paths = study
    assert running_pacs.results(uid) == ()
    node.send(running_pacs.address, paths, tmp_path / "sender.log")
    stored = running_pacs.results(uid)
    sent = {p: dcmread(p) for p in paths}
    assert {s.sop_instance_uid for s in stored} == {d.SOPInstanceUID for d in sent.values()}
    assert {s.series_instance_uid for s in stored} == {d.SeriesInstanceUID for d in sent.values()}
    by_uid = {s.sop_instance_uid: dcmread(s.path) for s in stored}
    for original in sent.values():
        copy = by_uid[original.SOPInstanceUID]
        assert copy.PixelData == original.PixelData
        assert copy.ImagePositionPatient == original.ImagePositionPatient
    assert running_pacs.results("1.2.3") == ()
    assert set(running_pacs.results(uid)) == set(stored)


def _children():
    """Processes below this one; some belong to the session's peers."""
    return set(psutil.Process().children(recursive=True))


def test_the_processes_of_a_pacs_are_gone_after_it(study, tmp_path):
    before = _children()
    with pacs.start_archive(tmp_path) as started:
        children = _children() - before
        assert children
        address = started.address
    assert not any(child.is_running() for child in children)
    with pytest.raises(ProcessDied):
        node.send(address, study[1], tmp_path / "sender.log")


def test_a_failure_ends_the_processes_too(tmp_path):
    before, children = _children(), set()

    def interrupted():
        with pacs.start_archive(tmp_path):
            children.update(_children() - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert children
    assert not any(child.is_running() for child in children)


_INTERRUPTED = """
import signal, subprocess, sys
from pathlib import Path
from msnode.demo.processes import running

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell have it switched off
started = []
popen = subprocess.Popen

def interrupted(*arguments, **options):
    started.append(popen(*arguments, **options))
    signal.raise_signal(signal.SIGINT)
    return started[0]

subprocess.Popen = interrupted
try:
    with running(["/bin/sleep", "60"], Path(sys.argv[1])):
        sys.exit("Ctrl-C had no effect")
except KeyboardInterrupt:
    print(started[0].returncode)
"""


def test_ctrl_c_while_a_process_starts_ends_it(tmp_path):
    """In a process of its own: what other tests leave in this one is no part of it."""
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(-signal.SIGTERM)), done.stderr


def test_a_port_in_use_is_an_error_with_the_end_of_the_log(tmp_path, monkeypatch):
    with pacs.start_archive(tmp_path / "one") as started:
        monkeypatch.setattr(pacs, "free_port", lambda: started.address.port)
        monkeypatch.setattr(pacs, "_echoes", lambda _: False)
        with (
            pytest.raises(ProcessDied, match=r"built-in archive ended with exit code 1: .*in use"),
            pacs.start_archive(tmp_path / "two"),
        ):
            pass


def test_a_program_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(Transient, match="cannot start"), running(["/nowhere/program"], tmp_path / "log"):
        pass


def test_a_process_that_never_becomes_ready_is_an_error(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with running(command, log) as process:
        with pytest.raises(PeerUnreachable, match=r"the thing is not ready after 0 s"):
            wait_until_ready(process, log, lambda: False, what="the thing", deadline_s=0.3)
        assert process.poll() is None
    assert process.returncode == -signal.SIGTERM


def test_the_built_in_sender_says_when_images_are_not_taken(study, tmp_path, monkeypatch):
    monkeypatch.setattr(node, "STORESCU", Path("/nowhere/storescu"))
    nobody = DicomAddress("NOBODY", "127.0.0.1", free_port())
    with pytest.raises(ProcessDied, match=r"the sender ended with exit code 1: .*no connection"):
        node.send(nobody, study[1], tmp_path / "sender.log")


def test_settings_of_the_sites_own_node_do_not_reach_the_demo(monkeypatch):
    monkeypatch.setenv("MSNODE_NODE__DATA_DIR", "/srv/site")
    monkeypatch.setenv("MSNODE_CONFIG", "/etc/msnode/site.toml")
    assert not [name for name in environment() if name.startswith("MSNODE_")]
    assert environment()["PATH"] == os.environ["PATH"]
