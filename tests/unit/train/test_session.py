"""Folds that train side by side: what a killed process, or a killed parent, leaves behind."""

import multiprocessing
import os
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import psutil
import pytest

from msnode.errors import ProcessDied
from msnode.train import session


@pytest.fixture
def plan():
    recipe = SimpleNamespace(dataset=SimpleNamespace(folds=5), training=SimpleNamespace(pretraining_epochs=0))
    return SimpleNamespace(recipe=recipe, processes=2, folds=(0, 1))


def test_folds_go_on_after_one_of_their_processes_was_killed(plan, monkeypatch):
    ends = iter([BrokenProcessPool(), {0: "a", 1: "b"}])

    def side_by_side(*_):
        end = next(ends)
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(session, "_side_by_side", side_by_side)
    told = []
    assert session._train(plan, told.append) == {0: "a", 1: "b"}
    assert "killed" in told[0].detail


def test_folds_that_are_killed_again_and_again_end_the_training(plan, monkeypatch):
    def side_by_side(*_):
        raise BrokenProcessPool

    monkeypatch.setattr(session, "_side_by_side", side_by_side)
    with pytest.raises(ProcessDied, match="killed 3 times"):
        session._train(plan, lambda _: None)


def fold(pipe):
    threading.Thread(target=session._end_with_parent, daemon=True).start()
    pipe.send(os.getpid())
    time.sleep(60)


def parent(pipe):
    multiprocessing.get_context("spawn").Process(target=fold, args=(pipe,)).start()
    time.sleep(60)


def test_a_fold_ends_with_its_parent():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    started = context.Process(target=parent, args=(theirs,))
    started.start()
    try:
        child = psutil.Process(ours.recv())
        started.kill()
        child.wait(timeout=30)
    finally:
        started.kill()
        started.join()
