"""Figures of agreement, by hand."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
from sklearn import metrics as sklearn

from msnode.domain.imaging import Grid, Volume
from msnode.evaluate import metrics
from msnode.measure.lesions import find_lesions

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
    scores = metrics.score(mask(A, B), lesions(mask(A, B)))
    assert (scores.dice, scores.ppv, scores.sensitivity, scores.iou) == (1, 1, 1, 1)
    assert (scores.lesion_sensitivity, scores.lesion_ppv, scores.lesion_f1) == (1, 1, 1)
    assert scores.truth_ml == pytest.approx(8 * 5 / 1000)


def test_one_found_in_half_one_missed_one_invented():
    half = np.s_[0, 0:1, 0:2]
    scores = metrics.score(mask(A, B), lesions(mask(half, C)))
    assert scores.dice == pytest.approx(2 * 2 / (8 + 6))
    assert scores.ppv == pytest.approx(2 / 6)
    assert scores.sensitivity == pytest.approx(2 / 8)
    assert scores.iou == pytest.approx(2 / 12)
    assert (scores.lesion_sensitivity, scores.lesion_ppv, scores.lesion_f1) == (0.5, 0.5, 0.5)
    assert (scores.truth_count, scores.predicted_count) == (2, 2)
    assert scores.predicted_ml == pytest.approx(6 * 5 / 1000)


def test_every_lesion_of_the_expert_counts_and_the_large_ones_once_more():
    dot = np.s_[1, 5, 5]  # 5 mm3, A has 20
    scores = metrics.score(mask(A, dot), lesions(mask(A), min_volume_mm3=10))
    assert scores.truth_count == 2
    assert (scores.lesion_sensitivity, scores.lesion_f1) == pytest.approx((1 / 2, 2 / 3))
    assert (scores.large_sensitivity, scores.large_f1) == (1, 1)
    assert scores.sensitivity == pytest.approx(4 / 5)


def test_ratios_without_a_denominator_are_none():
    both_empty = metrics.score(mask(), lesions(mask()))
    assert both_empty.dice is None
    assert both_empty.lesion_f1 is None
    nothing_found = metrics.score(mask(A), lesions(mask()))
    assert (nothing_found.dice, nothing_found.ppv, nothing_found.lesion_ppv) == (0, None, None)
    assert nothing_found.lesion_f1 == 0
    nothing_right = metrics.score(mask(A), lesions(mask(B)))
    assert nothing_right.lesion_f1 == 0


def test_the_mean_leaves_out_what_is_undefined():
    first = metrics.score(mask(A), lesions(mask(A)))
    second = metrics.score(mask(A), lesions(mask()))
    mean = metrics.mean([first, second])
    assert mean["dice"] == 0.5
    assert mean["ppv"] == 1
    assert metrics.mean([second])["ppv"] is None


def test_different_grids_are_not_compared():
    shifted = Grid(GRID.shape, GRID.affine + np.array([[0, 0, 0, 2.0], *np.zeros((3, 4))]))
    with pytest.raises(ValueError, match="different grids"):
        metrics.score(Volume(mask(A).data.copy(), shifted), lesions(mask(A)))


def random_scan(seed, shape=(6, 20, 24)):
    rng = np.random.default_rng(seed)
    grid = Grid(shape, np.diag([6.0, 0.9, 0.9, 1.0]))
    truth = (rng.random(shape) > 0.9).astype(np.uint8)
    predicted = np.where(rng.random(shape) > 0.2, truth, rng.random(shape) > 0.8).astype(np.float32)
    return Volume(truth, grid), Volume(predicted, grid)


@pytest.mark.parametrize("seed", range(3))
def test_voxel_figures_agree_with_scikit_learn_and_simpleitk(seed):
    truth, predicted = random_scan(seed)
    scores = metrics.score(truth, lesions(predicted))
    a, b = truth.data.ravel(), (predicted.data > 0).ravel().astype(np.uint8)
    assert scores.dice == pytest.approx(sklearn.f1_score(a, b))
    assert scores.iou == pytest.approx(sklearn.jaccard_score(a, b))
    assert scores.ppv == pytest.approx(sklearn.precision_score(a, b))
    assert scores.sensitivity == pytest.approx(sklearn.recall_score(a, b))
    assert scores.specificity == pytest.approx(sklearn.recall_score(a, b, pos_label=0))
    assert scores.mcc == pytest.approx(sklearn.matthews_corrcoef(a, b))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(
        sitk.GetImageFromArray(truth.data), sitk.GetImageFromArray(predicted.data.astype(np.uint8))
    )
    assert scores.dice == pytest.approx(overlap.GetDiceCoefficient())
    assert scores.iou == pytest.approx(overlap.GetJaccardCoefficient())


def test_lesion_figures_by_ten_percent_overlap():
    long = np.s_[0, 0, 0:11]  # 11 voxels, one of them predicted: 9 %
    touch = np.s_[0, 0, 10]
    scores = metrics.score(mask(long, B), lesions(mask(touch, B)))
    assert (scores.lesion_sensitivity, scores.lesion10_sensitivity) == (1, 0.5)
    assert (scores.lesion_ppv, scores.lesion10_ppv) == (1, 1)
    assert scores.lesion10_f1 == pytest.approx(2 / 3)
    assert scores.false_positives == 0


def test_a_prediction_on_a_small_lesion_is_not_false():
    dot = np.s_[1, 5, 5]
    scores = metrics.score(mask(dot), lesions(mask(dot)))
    assert (scores.truth_count, scores.false_positives, scores.lesion_ppv) == (1, 0, 1)
    assert (scores.large_sensitivity, scores.large_f1) == (None, None)


def test_one_empty_side_is_the_worst_and_two_are_not_defined():
    nothing, invented, silent = (
        metrics.score(truth, lesions(found))
        for truth, found in ((mask(A), mask()), (mask(), mask(A, B)), (mask(), mask()))
    )
    assert (nothing.dice, nothing.iou, nothing.lesion_f1, nothing.lesion10_f1) == (0, 0, 0, 0)
    assert (invented.dice, invented.lesion_f1, invented.false_positives) == (0, 0, 2)
    assert (invented.sensitivity, invented.lesion_sensitivity, invented.lesion_ppv) == (None, None, 0)
    assert (silent.dice, silent.iou, silent.mcc, silent.lesion_f1) == (None, None, None, None)
    assert (silent.specificity, silent.false_positives) == (1, 0)
    for scores in (nothing, invented, silent):
        assert scores.hd95_mm is None
        assert scores.asd_mm is None


def test_the_fate_of_each_lesion_is_kept():
    scores, match = metrics.score_lesions(mask(A, B), lesions(mask(A, C)))
    assert [one.matched() for one in match.truth] == [True, False]
    assert [one.matched() for one in match.predicted] == [True, False]
    assert scores.false_positives == match.false_positives == 1
