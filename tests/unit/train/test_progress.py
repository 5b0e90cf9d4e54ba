"""The plan file says what is left of a training, also after the machine went away."""

import json

import pytest

from msnode.train.progress import PLAN_FILE, PlanFile, Progress


@pytest.fixture
def open_file(tmp_path):
    """Opens the plan file of a pretraining of 4 epochs and two folds of 10, as each start does."""
    return lambda: PlanFile(tmp_path, "msnode model train", {5: 4, 0: 10, 1: 10}, pretraining=5, processes=2)


@pytest.fixture
def read(tmp_path):
    return lambda: json.loads((tmp_path / PLAN_FILE).read_text())


def test_everything_is_left_at_first(open_file, read):
    open_file().note(Progress("preparing", "case01"))
    assert read() == {
        "command": "msnode model train",
        "stage": "preparing",
        "detail": "case01",
        "epochs_done": {"pretraining": 0, "fold 0": 0, "fold 1": 0},
        "left": [
            "pretraining: 4 of 4 epochs",
            "fold 0: 10 of 10 epochs",
            "fold 1: 10 of 10 epochs",
            "bundle, evaluation",
        ],
        "minutes_left": None,
    }


def test_what_an_earlier_start_did_is_not_left(open_file, read):
    file = open_file()
    file.note(Progress("training", fold=5, epoch=4, epochs=4, seconds_left=0.0))
    file.note(Progress("training", fold=0, epoch=3, epochs=10, seconds_left=420.0))
    open_file().note(Progress("training", fold=1, epoch=2, epochs=10, seconds_left=480.0))
    assert read()["left"] == ["fold 0: 7 of 10 epochs", "fold 1: 8 of 10 epochs", "bundle, evaluation"]
    assert read()["minutes_left"] == 8  # 15 epochs of a minute, two side by side


def test_nothing_is_left_of_a_training_that_is_done(open_file, read):
    open_file().note(Progress("done"))
    assert read()["left"] == []


def test_a_plan_file_that_cannot_be_read_is_written_anew(open_file, read, tmp_path):
    (tmp_path / PLAN_FILE).write_text("{")
    open_file().note(Progress("training", fold=0, epoch=1, epochs=10))
    assert read()["epochs_done"]["fold 0"] == 1
