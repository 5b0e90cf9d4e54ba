"""Reliability against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from msnode.evaluate.calibration import reliability


def lesions(confidence, true):
    return [(f"p{i % 7}", float(c), bool(t)) for i, (c, t) in enumerate(zip(confidence, true, strict=True))]


def test_bins_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    confidence = rng.random(400)
    true = rng.random(400) < confidence**2
    result = reliability(lesions(confidence, true))
    shares, means = calibration_curve(true, confidence, n_bins=10)
    filled = [one for one in result.bins if one.count]
    assert [one.share_true for one in filled] == pytest.approx(shares)
    assert [one.mean_confidence for one in filled] == pytest.approx(means)
    gaps = [one.count * abs(one.share_true - one.mean_confidence) for one in filled]
    assert result.expected_error.value == pytest.approx(sum(gaps) / 400)
    assert result.expected_error.low < result.expected_error.value < result.expected_error.high
    assert result.count == 400


def test_by_hand():
    result = reliability([("a", 0.9, True), ("a", 0.9, False), ("b", 0.2, False), ("c", 1.0, True)])
    # 0.9, 0.9 and 1.0 share the last bin: mean 2.8 / 3 against 2 / 3; 0.2 alone against 0
    assert result.expected_error.value == pytest.approx((3 * abs(2.8 / 3 - 2 / 3) + 0.2) / 4)
    assert result.bins[9].count == 3
    assert (result.bins[0].count, result.bins[0].share_true) == (0, None)


def test_certain_and_right_has_no_error():
    assert reliability([("a", 1.0, True), ("b", 0.0, False)]).expected_error.value == 0


def test_no_lesion_gives_no_error():
    result = reliability([])
    assert (result.count, result.expected_error.value) == (0, None)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_a_confidence_is_a_probability(confidence):
    with pytest.raises(ValueError, match="outside 0-1"):
        reliability([("a", confidence, True)])
