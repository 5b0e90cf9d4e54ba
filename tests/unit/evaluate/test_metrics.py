"""Figures of agreement, by hand."""

import numpy as np
import pytest

from msnode.domain import Grid, Volume
from msnode.evaluate import metrics
from msnode.lesions import find_lesions

GRID = Grid((4, 12, 12), np.diag([5.0, 1.0, 1.0, 1.0]))


def mask(*boxes):
    data = np.zeros(GRID.shape, dtype=np.float32)
    for box in boxes:
        data[box] = 1
    return Volume(data, GRID)


def lesions(volume, min_volume_mm3=0.0):
    return find_lesions(volume, threshold=0.5, min_volume_mm3=min_volume_mm3)


A = np.s_[0, 0:2, 0:2]
B = np.s_[2, 6:8, 6:8]
C = np.s_[2, 0:2, 10:12]


def test_a_perfect_prediction():
    scores = metrics.score(mask(A, B), lesions(mask(A, B)), min_volume_mm3=0)
    assert (scores.dice, scores.ppv, scores.sensitivity, scores.iou) == (1, 1, 1, 1)
    assert (scores.lesion_sensitivity, scores.lesion_ppv, scores.lesion_f1) == (1, 1, 1)
    assert scores.truth_ml == pytest.approx(8 * 5 / 1000)


def test_one_found_in_half_one_missed_one_invented():
    half = np.s_[0, 0:1, 0:2]
    scores = metrics.score(mask(A, B), lesions(mask(half, C)), min_volume_mm3=0)
    assert scores.dice == pytest.approx(2 * 2 / (8 + 6))
    assert scores.ppv == pytest.approx(2 / 6)
    assert scores.sensitivity == pytest.approx(2 / 8)
    assert scores.iou == pytest.approx(2 / 12)
    assert (scores.lesion_sensitivity, scores.lesion_ppv, scores.lesion_f1) == (0.5, 0.5, 0.5)
    assert (scores.truth_count, scores.predicted_count) == (2, 2)
    assert scores.predicted_ml == pytest.approx(6 * 5 / 1000)


def test_small_expert_lesions_do_not_count_but_their_voxels_do():
    dot = np.s_[1, 5, 5]
    scores = metrics.score(mask(A, dot), lesions(mask(A)), min_volume_mm3=10)
    assert scores.truth_count == 1
    assert scores.lesion_sensitivity == 1
    assert scores.sensitivity == pytest.approx(4 / 5)


def test_ratios_without_a_denominator_are_none():
    both_empty = metrics.score(mask(), lesions(mask()), min_volume_mm3=0)
    assert both_empty.dice is None
    assert both_empty.lesion_f1 is None
    nothing_found = metrics.score(mask(A), lesions(mask()), min_volume_mm3=0)
    assert (nothing_found.dice, nothing_found.ppv, nothing_found.lesion_ppv) == (0, None, None)
    nothing_right = metrics.score(mask(A), lesions(mask(B)), min_volume_mm3=0)
    assert nothing_right.lesion_f1 == 0


def test_the_mean_leaves_out_what_is_undefined():
    first = metrics.score(mask(A), lesions(mask(A)), min_volume_mm3=0)
    second = metrics.score(mask(A), lesions(mask()), min_volume_mm3=0)
    mean = metrics.mean([first, second])
    assert mean["dice"] == 0.5
    assert mean["ppv"] == 1
    assert metrics.mean([second])["ppv"] is None


def test_different_grids_are_not_compared():
    shifted = Grid(GRID.shape, GRID.affine + np.array([[0, 0, 0, 2.0], *np.zeros((3, 4))]))
    with pytest.raises(ValueError, match="different grids"):
        metrics.score(Volume(mask(A).data.copy(), shifted), lesions(mask(A)), min_volume_mm3=0)
