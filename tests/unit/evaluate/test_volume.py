"""Volume agreement against scipy and numpy."""

import numpy as np
import pytest
from scipy import stats

from msnode.evaluate.volume import volume_agreement


def scans(expert, predicted):
    return [(f"p{i}", float(x), float(y)) for i, (x, y) in enumerate(zip(expert, predicted, strict=True))]


def test_agrees_with_scipy_and_numpy():
    rng = np.random.default_rng(0)
    expert = rng.gamma(2, 5, size=15)
    predicted = expert * 0.9 + rng.normal(0, 1, size=15)
    result = volume_agreement(scans(expert, predicted))
    d = predicted - expert
    assert result.pearson_r.value == pytest.approx(stats.pearsonr(expert, predicted).statistic)
    assert result.bias_ml.value == pytest.approx(d.mean())
    assert result.lower_ml.value == pytest.approx(d.mean() - 1.96 * d.std(ddof=1))
    assert result.upper_ml.value == pytest.approx(d.mean() + 1.96 * d.std(ddof=1))
    for estimate in (result.pearson_r, result.bias_ml, result.lower_ml, result.upper_ml):
        assert estimate.low < estimate.value < estimate.high


def test_large_volumes_that_hardly_differ_keep_their_digits():
    expert = 1e6 + np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    predicted = expert + np.array([0.5, -0.5, 0.5, -0.5, 0.5])
    r = volume_agreement(scans(expert, predicted)).pearson_r.value
    assert r == pytest.approx(stats.pearsonr(expert - 1e6, predicted - 1e6).statistic, abs=1e-6)


def test_perfect_agreement():
    result = volume_agreement(scans([1, 2, 3, 4, 9], [1, 2, 3, 4, 9]))
    assert result.pearson_r.value == pytest.approx(1)
    assert (result.bias_ml.value, result.lower_ml.value, result.upper_ml.value) == (0, 0, 0)


@pytest.mark.parametrize(
    ("expert", "predicted"),
    [([1, 2], [3, 5]), ([2, 2, 2, 2], [1, 2, 3, 4]), ([1, 2, 3], [0, 0, 0]), ([], [])],
)
def test_no_correlation_of_two_points_or_of_what_does_not_vary(expert, predicted):
    assert volume_agreement(scans(expert, predicted)).pearson_r.value is None


def test_one_scan_has_a_bias_but_no_limits():
    result = volume_agreement(scans([2.0], [3.5]))
    assert result.bias_ml.value == 1.5
    assert result.lower_ml.value is None
    assert result.upper_ml.value is None
