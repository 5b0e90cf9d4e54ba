"""Processes that die: their work is taken up again, and what kills each of them is put aside."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from msnode.engine import Engine, create_tables
from msnode.record.database import Database, upgrade

REFUSED = 3
GUARD_LOOKS_EVERY_S = 2.0
PROGRAM = Path(__file__).with_name("engine_process.py")


def until(condition, timeout_s=60.0):
    tick = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        if condition():
            return
        tick.wait(0.05)
    pytest.fail("did not happen in time")


class Node:
    """A database, a folder of notes, and the processes that serve."""

    def __init__(self, folder):
        self.folder = folder
        self.url = f"sqlite:///{folder / 'm.db'}"
        upgrade(self.url)
        create_tables(self.url)
        self.database = Database(self.url)
        self.engine = Engine(self.url)
        self._processes = []

    def enqueue(self, workflow, argument):
        with self.database.write() as tx:
            self.engine.enqueue(tx, workflow, f"{workflow}:{argument}", "jobs", argument)

    def age_of(self, pattern):
        (path,) = self.folder.glob(pattern)
        return time.time() - path.stat().st_mtime

    def launch(self, executor_id, *, lock_wait_s=8.0):
        command = [sys.executable, PROGRAM, self.url, executor_id, self.folder, str(lock_wait_s)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self._processes.append(process)
        return process

    def start(self, executor_id):
        process = self.launch(executor_id)
        until(lambda: (self.folder / f"up.{process.pid}").exists() or process.poll() is not None)
        return process

    def notes(self, pattern):
        return sorted(path.name for path in self.folder.glob(pattern))

    def wait_for(self, pattern, count=1):
        until(lambda: len(self.notes(pattern)) >= count)
        return self.notes(pattern)

    def close(self):
        for process in self._processes:
            process.kill()
            process.communicate()
        self.engine.stop()
        self.database.close()


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.close()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_restarted_process_finishes_what_it_was_killed_in(node):
    node.enqueue("slow", 1)
    first = node.start("worker-1")
    node.wait_for("slow.1.*")
    kill(first)
    assert node.engine.workflow_status("slow:1") == "PENDING"
    second = node.start("worker-1")
    (node.folder / "go").touch()
    node.wait_for("done.1.*")
    assert node.notes("done.1.*") == [f"done.1.worker-1.{second.pid}"]
    until(lambda: node.engine.workflow_status("slow:1") == "SUCCESS")


def test_guard_of_another_process_takes_over_and_each_job_is_done_once(node):
    node.enqueue("slow", 1)
    victim = node.start("worker-1")
    node.wait_for("slow.1.worker-1.*")
    survivor = node.start("worker-2")
    kill(victim)
    node.wait_for("slow.1.worker-2.*")
    (node.folder / "go").touch()
    until(lambda: node.engine.workflow_status("slow:1") == "SUCCESS")
    assert node.notes("done.*") == [f"done.1.worker-2.{survivor.pid}"]


def test_live_process_is_neither_taken_over_nor_doubled(node):
    node.enqueue("slow", 1)
    owner = node.start("worker-1")
    node.wait_for("slow.1.worker-1.*")
    node.start("worker-2")
    node.enqueue("slow", 2)
    node.wait_for("slow.2.worker-2.*")
    assert node.launch("worker-1", lock_wait_s=0.3).wait(timeout=60) == REFUSED
    until(lambda: node.age_of("slow.2.*") > 3 * GUARD_LOOKS_EVERY_S)
    (node.folder / "go").touch()
    node.wait_for("done.*", 2)
    assert node.notes("slow.1.*") == [f"slow.1.worker-1.{owner.pid}"]


def test_poison_workflow_is_put_aside_and_the_next_one_runs(node):
    node.enqueue("poison", 1)
    node.enqueue("quick", 2)
    for _ in range(2):  # the first run, and one recovery
        node.launch("worker-1").wait(timeout=60)
    node.start("worker-1")
    node.wait_for("quick.2.*")
    (dead,) = node.engine.dead_workflows(["poison:1", "quick:2"])
    assert dead.workflow_id == "poison:1"
    assert dead.reason == "its process died each time it ran"
    assert len(node.notes("poison.1.*")) == 2
