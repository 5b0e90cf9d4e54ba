"""Bootstrap intervals: exact where they can be, covering where they must be, grouped by patient."""

import numpy as np
import pytest
from scipy import stats

from msnode.evaluate.intervals import add_sums, estimate, mean_sums, ratio


def per_patient(values):
    return mean_sums((f"p{i:03}", float(v)) for i, v in enumerate(values))


def test_agrees_with_scipy():
    values = np.random.default_rng(1).gamma(2.0, size=30)
    ours = estimate(per_patient(values), ratio, repeats=20000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=2)
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, rel=0.02)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, rel=0.02)


def test_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        e = estimate(per_patient(rng.normal(0.7, 0.1, size=25)), ratio, repeats=400)
        hits += e.low <= 0.7 <= e.high
    assert 0.89 <= hits / 300 <= 0.98


def test_scans_of_one_patient_are_drawn_together():
    values = np.random.default_rng(4).normal(0.7, 0.1, size=10)
    once = estimate(per_patient(values), ratio)
    copied = estimate(mean_sums((f"p{i}", v) for i, v in enumerate(values) for _ in range(20)), ratio)
    apart = estimate(per_patient(np.repeat(values, 20)), ratio)
    assert copied.patients == once.patients == 10
    assert copied.high - copied.low == pytest.approx(once.high - once.low)
    assert apart.high - apart.low < 0.5 * (copied.high - copied.low)  # what slices alone would claim


def test_a_seed_gives_the_same_interval_whatever_the_order():
    rows = [("b", 0.2), ("a", 0.9), ("c", 0.4), ("d", None), ("a", 0.7), ("e", 0.5), ("f", 0.1)]
    first, again = estimate(mean_sums(rows), ratio, seed=5), estimate(mean_sums(rows[::-1]), ratio, seed=5)
    assert first.value == pytest.approx(again.value)
    assert (first.low, first.high) == pytest.approx((again.low, again.high))
    assert first.patients == 5
    assert estimate(mean_sums(rows), ratio, seed=6) != first


def test_few_patients_have_no_interval():
    four = estimate(per_patient([0.1, 0.9, 0.4, 0.5]), ratio)
    assert (four.value, four.low, four.high, four.patients) == (pytest.approx(0.475), None, None, 4)
    five = estimate(per_patient([0.1, 0.9, 0.4, 0.5, 0.5]), ratio)
    assert five.low is not None


def test_what_is_not_defined_stays_so():
    undefined = estimate(mean_sums([("a", None), ("b", None)]), ratio)
    assert (undefined.value, undefined.low, undefined.high, undefined.patients) == (None, None, None, 0)
    assert estimate({}, ratio).value is None


def test_a_value_of_zero_is_a_value():
    zeros = estimate(per_patient([0.0] * 6), ratio)
    assert (zeros.value, zeros.low, zeros.high, zeros.patients) == (0, 0, 0, 6)


def test_rows_of_a_patient_add_up():
    assert add_sums([("a", (1, 2)), ("b", (5, 5)), ("a", (10, 20))]) == {"a": (11, 22), "b": (5, 5)}
