"""Slice level figures, by hand."""

from itertools import pairwise

import numpy as np
import pytest

from msnode.evaluate.slices import CURVE_THRESHOLDS, SliceVoxels, count_voxels, slice_level


def voxels(*slices):
    """One entry a slice: (expert's voxels, predicted voxels, both)."""
    return SliceVoxels(*np.array(slices, dtype=np.int64).reshape(-1, 3).T)


FOUND, LITTLE, MISSED = (100, 50, 40), (100, 50, 9), (100, 0, 0)
QUIET, FALSE = (0, 0, 0), (0, 5, 0)


def value(level, reading, name):
    return level.readings[reading][name].value


def test_three_readings_of_one_table():
    level = slice_level([("a", "p", voxels(*[FOUND] * 6, *[LITTLE] * 3, MISSED, *[QUIET] * 7, *[FALSE] * 3))])
    assert level.counts == {"tp": 6, "partial": 3, "fn": 1, "tn": 7, "fp": 3}
    assert (level.positive, level.normal, level.normal_available) == (10, 10, 10)
    assert value(level, "usual", "sensitivity") == pytest.approx(6 / 10)
    assert value(level, "usual", "accuracy") == pytest.approx(13 / 20)
    assert value(level, "usual", "ppv") == pytest.approx(6 / 9)
    assert value(level, "usual", "npv") == pytest.approx(7 / 11)
    assert value(level, "paper", "sensitivity") == pytest.approx(6 / 7)
    assert value(level, "paper", "accuracy") == pytest.approx(13 / 17)
    assert value(level, "paper", "npv") == pytest.approx(7 / 8)
    assert value(level, "paper_any_voxel", "sensitivity") == pytest.approx(9 / 10)
    assert value(level, "paper_any_voxel", "ppv") == pytest.approx(9 / 12)


def test_the_papers_counts_are_a_sensitivity_of_one_hundred_only_by_its_own_reading():
    level = slice_level([("a", "p", voxels(*[FOUND] * 146, *[LITTLE] * 72))])
    assert value(level, "usual", "sensitivity") == pytest.approx(0.67, abs=0.005)
    assert value(level, "paper", "sensitivity") == 1


def test_any_predicted_voxel_gives_all_four_published_figures():
    slices = (*[FOUND] * 146, *[LITTLE] * 71, MISSED, *[QUIET] * 146, *[FALSE] * 72)
    level = slice_level([("a", "p", voxels(*slices))])
    published = {"accuracy": 83, "sensitivity": 100, "ppv": 75, "npv": 99}
    assert {name: round(100 * value(level, "paper_any_voxel", name)) for name in published} == published


def test_ten_percent_are_enough_and_less_is_not():
    level = slice_level([("a", "p", voxels((100, 10, 10), (100, 10, 9), (10, 1, 1), (1, 1, 1)))])
    assert (level.counts["tp"], level.counts["partial"]) == (3, 1)


def test_a_prediction_beside_the_lesion_finds_nothing():
    level = slice_level([("a", "p", voxels((1, 30, 0), QUIET))])
    assert (level.counts["tp"], level.counts["partial"]) == (0, 1)


def test_as_many_normal_slices_as_positive_ones_drawn_by_the_seed():
    scans = [("a", "p", voxels(*[FOUND] * 5, *[QUIET] * 40)), ("b", "q", voxels(FOUND, *[FALSE] * 40))]
    first = slice_level(scans, seed=1)
    assert (first.positive, first.normal, first.normal_available) == (6, 6, 80)
    assert first.counts["tn"] + first.counts["fp"] == 6
    assert slice_level(scans[::-1], seed=1).counts == first.counts
    drawn = {slice_level(scans, seed=s).counts["fp"] for s in range(12)}
    assert len(drawn) > 2


def test_intervals_draw_patients():
    scans = [
        (f"c{i}", f"p{i}", voxels(*[FOUND] * (i + 1), *[MISSED] * (7 - i), *[QUIET] * 8)) for i in range(7)
    ]
    apart = slice_level(scans).readings["usual"]["sensitivity"]
    one = slice_level([(name, "same", v) for name, _, v in scans]).readings["usual"]["sensitivity"]
    assert apart.low < apart.value < apart.high
    assert (one.value, one.low, one.patients) == (apart.value, None, 1)


def test_curves_fall_with_the_threshold_and_meet_the_table():
    rng = np.random.default_rng(0)
    slices = [(100, 80, int(both)) for both in rng.integers(0, 80, size=60)] + [QUIET] * 60
    level = slice_level([("a", "p", voxels(*slices))])
    curve = [e.value for e in level.curves["usual"]["sensitivity"]]
    assert all(a >= b for a, b in pairwise(curve))
    assert curve[0] > 0.9
    assert curve[-1] == 0
    assert curve[CURVE_THRESHOLDS.index(0.1)] == value(level, "usual", "sensitivity")


def test_scans_without_lesions_have_no_sensitivity():
    level = slice_level([("a", "p", voxels(*[QUIET] * 20))])
    assert (level.positive, level.normal) == (0, 0)
    assert value(level, "usual", "sensitivity") is None
    assert value(level, "usual", "accuracy") is None


def test_scans_without_normal_slices_have_no_npv_of_their_own():
    level = slice_level([("a", "p", voxels(FOUND, FOUND))])
    assert level.normal == 0
    assert value(level, "usual", "sensitivity") == 1
    assert value(level, "usual", "npv") is None


def test_voxels_are_counted_by_slice():
    truth, predicted = np.zeros((2, 3, 4, 4), dtype=bool)
    truth[0, :2, :2] = truth[2, 0, 0] = True
    predicted[0, 1, :3] = predicted[1, 0, 0] = True
    counted = count_voxels(truth, predicted)
    assert counted.truth.tolist() == [4, 0, 1]
    assert counted.predicted.tolist() == [3, 1, 0]
    assert counted.both.tolist() == [2, 0, 0]
