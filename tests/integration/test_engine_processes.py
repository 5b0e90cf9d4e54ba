"""Processes that die: their work is taken up again, and what kills each of them is put aside."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from msnode.engine.engine import Engine
from msnode.engine.tables import create_tables
from msnode.errors import OutOfResources
from msnode.record.database import Database, upgrade
from support.postgres import postgres_server

REFUSED = 3
GUARD_LOOKS_EVERY_S = 2.0  # at a site
POLLS_EVERY_S = 0.5
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

    def __init__(self, folder, url, look_s=0.5):
        self.look_s = look_s
        self.folder = folder
        self.url = url
        upgrade(self.url)
        create_tables(self.url)
        self.database = Database(self.url)
        self.engine = Engine(self.url)
        self._processes = []

    def enqueue(self, workflow, argument, queue="jobs"):
        with self.database.write() as tx:
            self.engine.enqueue(tx, workflow, f"{workflow}:{argument}", queue, argument)

    def age_of(self, pattern):
        return time.time() - max(path.stat().st_mtime for path in self.folder.glob(pattern))

    def launch(self, executor_id, *, lock_wait_s=8.0):
        command = [
            sys.executable, PROGRAM, self.url, executor_id, self.folder, str(lock_wait_s), str(self.look_s),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self._processes.append(process)
        return process

    def start(self, executor_id):
        process = self.launch(executor_id)
        until(lambda: (self.folder / f"up.{process.pid}").exists() or process.poll() is not None)
        return process

    def all_done(self, workflow, arguments):
        """Each has ended well, and exactly one run of each came to its end."""
        ids = [f"{workflow}:{argument}" for argument in arguments]
        until(lambda: all(self.engine.workflow_status(i) == "SUCCESS" for i in ids))
        return [len(self.notes(f"done.{argument}.*")) for argument in arguments] == [1] * len(ids)

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


@pytest.fixture(params=["sqlite", "postgresql"])
def node(request, tmp_path):
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    else:
        url = f"sqlite:///{tmp_path / 'm.db'}"
    node = Node(tmp_path, url)
    yield node
    node.close()


@pytest.fixture
def server_node(tmp_path, own_postgres):
    """On a server that the test may stop."""
    node = Node(tmp_path, own_postgres.url, GUARD_LOOKS_EVERY_S)
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
    until(lambda: node.age_of("slow.2.*") > 4 * node.look_s)
    (node.folder / "go").touch()
    node.wait_for("done.*", 2)
    assert node.notes("slow.1.*") == [f"slow.1.worker-1.{owner.pid}"]


def test_of_three_processes_one_is_killed_and_each_workflow_is_done_once(node):
    numbers = range(12)
    for number in numbers:
        node.enqueue("slow", number)
    victim, *_ = [node.start(f"worker-{n}") for n in (1, 2, 3)]
    node.wait_for("slow.*", 3)
    kill(victim)
    (node.folder / "go").touch()
    assert node.all_done("slow", numbers)
    assert len(node.notes("slow.*")) == len(numbers) + 1


def test_limit_everywhere_holds_across_processes(node):
    numbers = range(6)
    for number in numbers:
        node.enqueue("slow", number, "few")
    node.start("worker-1")
    node.start("worker-2")
    node.wait_for("slow.*", 2)
    until(lambda: node.age_of("slow.*") > 3 * POLLS_EVERY_S)
    assert len(node.notes("slow.*")) == 2
    (node.folder / "go").touch()
    assert node.all_done("slow", numbers)


def test_server_that_restarts_under_running_and_idle_processes(server_node, own_postgres):
    node = server_node
    first = node.start("worker-1")
    node.start("worker-2")
    for number in (1, 2, 3):
        node.enqueue("slow", number)
    node.wait_for("slow.*", 2)
    own_postgres.stop()
    with pytest.raises(OutOfResources):
        node.enqueue("slow", 4)
    (node.folder / "go").touch()
    node.wait_for("done.*", 2)  # they end while there is nobody to tell
    own_postgres.start()
    node.enqueue("slow", 4)
    assert node.all_done("slow", [1, 2, 3, 4])

    own_postgres.restart()
    until(lambda: not node.engine.is_free("worker-1"))
    assert node.launch("worker-1", lock_wait_s=0.3).wait(timeout=60) == REFUSED
    node.enqueue("slow", 5)
    assert node.all_done("slow", [1, 2, 3, 4, 5])
    kill(first)
    until(lambda: node.engine.is_free("worker-1"))


def test_standby_takes_the_place_of_the_server(tmp_path):
    with (
        postgres_server(tmp_path, in_memory=True) as primary,
        primary.standby(tmp_path) as standby,
    ):
        node = Node(tmp_path, primary.url_with(standby), GUARD_LOOKS_EVERY_S)
        node.start("worker-1")
        node.start("worker-2")
        for number in (1, 2, 3):
            node.enqueue("slow", number)
        node.wait_for("slow.*", 2)
        primary.stop()
        standby.promote()
        (node.folder / "go").touch()
        until_it_answers(lambda: node.enqueue("slow", 4))
        assert node.all_done("slow", [1, 2, 3, 4])
        node.close()


def until_it_answers(action):
    def does():
        try:
            action()
        except OutOfResources:
            return False
        return True

    until(does)


def test_poison_workflow_is_put_aside_and_the_next_one_runs(node):
    node.enqueue("poison", 1)
    node.enqueue("quick", 2)
    for _ in range(2):  # the first run, and one recovery
        node.launch("worker-1").wait(timeout=60)
    node.start("worker-1")
    node.wait_for("quick.2.*")
    (dead,) = node.engine.dead_workflows()
    assert dead.workflow_id == "poison:1"
    assert dead.reason == "its process died each time it ran"
    assert len(node.notes("poison.1.*")) == 2
