"""What the tables of the demo say."""

import io

import numpy as np
import pytest
from rich.console import Console

from msnode.demo import report
from msnode.demo.found import Comparison, FoundLesion, Match
from msnode.demo.phantom import PlantedLesion
from msnode.demo.run import Outcome


def found(number):
    return FoundLesion(number, np.array([[1.0, 2.0, 3.0]]), 45.0 * number, (3.0,))


def planted(label, diameter):
    return PlantedLesion(label, "deep", (10.0, 20.0, 30.0), 113.0, diameter)


@pytest.fixture
def comparison():
    matches = (
        Match(planted(1, 9.0), (found(1), found(2))),
        Match(planted(2, 6.0), ()),
        Match(planted(3, 4.0), ()),
    )
    return Comparison(matches, (found(3),))


@pytest.fixture
def outcome(comparison):
    job = {
        "job": {
            "state": "completed",
            "series_instance_uid": "1.2",
            "timings_s": {"preprocess": 0.25, "segment": 1.5},
        },
        "series": [
            {"series_instance_uid": "1.1", "instance_count": 3},
            {"series_instance_uid": "1.2", "instance_count": 20},
        ],
        "passed_over": [{"series_instance_uid": "1.1", "reason": "a localiser"}],
        "transitions": [
            {"state": "receiving", "at": "2026-01-05 10:00:00+00:00"},
            {"state": "running", "at": "2026-01-05 10:00:02.500000+00:00"},
            {"state": "completed", "at": "2026-01-05 10:00:05+00:00"},
        ],
    }
    seconds = {"sending 23 images to the node": 0.5, "waiting for the results in Orthanc": 6.0}
    return Outcome(job, "Orthanc", (), (), comparison, None, seconds)


def text(table):
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def row(table, name):
    (line,) = [line for line in text(table).splitlines() if name in line]
    return [cell for cell in (part.strip() for part in line.split("  ")) if cell]


def test_each_step_state_and_stage_has_its_time(outcome):
    table = report.time_line(outcome)
    assert row(table, "waiting")[-1] == "6.00"
    assert row(table, "receiving")[-1] == "2.50"
    assert row(table, "running")[-1] == "2.50"
    assert row(table, "segment")[-1] == "1.50"


def test_series_are_read_or_passed_over_with_a_reason(outcome):
    table = report.selection(outcome)
    assert row(table, "1.2")[1:] == ["20", "read"]
    assert row(table, "1.1")[1:] == ["3", "not chosen: a localiser"]


def test_planted_lesions_are_found_or_missed(comparison):
    table = report.planted_and_found(comparison)
    assert row(table, "9.0")[4:] == ["lesion 1, 2", "135"]
    assert row(table, "6.0")[4] == "missed"
    assert row(table, "nothing")[1:] == ["1, 2, 3", "lesion 3", "135"]


def test_the_verdict_counts_lesions_over_five_millimetres(comparison):
    assert report.verdict(comparison).startswith("1 of 2 planted lesions over 5 mm found (50%;")
    assert report.verdict(comparison).endswith("1 extra")


def test_a_study_of_ones_own_has_a_table_of_what_was_found():
    assert row(report.found_alone([found(2)]), "1, 2, 3") == ["2", "1, 2, 3", "90"]
