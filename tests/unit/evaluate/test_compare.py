"""Two bundles side by side."""

import json

import numpy as np
import pytest

from msnode.evaluate.compare import compare, figure_of
from msnode.evaluate.evaluation import evaluate_cases
from unit.evaluate.scans import SPOTS, STRAY, about, result, six


def test_differences_are_paired():
    a, b = evaluate_cases(six(missed=2), about("a 1")), evaluate_cases(six(missed=1), about("b 1"))
    comparison = compare(a, b)
    gain = [y.scores.dice - x.scores.dice for x, y in zip(a.scored, b.scored, strict=True)]
    dice = comparison.figures["dice"]
    assert dice.difference.value == pytest.approx(np.mean(gain))
    assert dice.difference.value == pytest.approx(dice.b.value - dice.a.value)
    assert dice.scans == 6
    # scans differ far more from each other than the bundles do on one scan
    assert dice.difference.high - dice.difference.low < dice.a.high - dice.a.low
    assert comparison.by_size[1].difference.value == pytest.approx(6 / 42)
    assert comparison.by_size[1].scans == 42


def test_a_bundle_does_not_differ_from_itself():
    comparison = compare(*(evaluate_cases(six(), about(name)) for name in ("a 1", "b 1")))
    for one in comparison.figures.values():
        assert (one.difference.value, one.difference.low, one.difference.high) == (0, 0, 0)
        assert not one.certain


def test_a_difference_in_every_patient_is_certain():
    a = evaluate_cases(six(), about("a 1"))
    b = evaluate_cases([result(n) for n in range(6)], about("b 1"))
    false = compare(a, b).figures["false_positives"]
    assert false.difference.value == -0.5
    assert false.certain


def test_scans_where_one_bundle_has_no_figure_are_left_out_for_both():
    a = evaluate_cases([result(0, found=()), result(1, found=SPOTS[:3])], about("a 1"))
    b = evaluate_cases([result(0), result(1)], about("b 1"))
    for comparison in (compare(a, b), compare(b, a)):
        ppv = comparison.figures["ppv"]
        assert (ppv.a.value, ppv.b.value, ppv.scans) == (1, 1, 1)


def test_the_error_of_the_volume_has_no_sign():
    scans = [result(0, found=SPOTS[1:]), result(1, found=(*SPOTS, STRAY))]
    errors = [figure_of(case, "volume_error_ml") for case in evaluate_cases(scans, about()).cases]
    assert errors == pytest.approx([0.072, 0.024])


def test_json(evaluation):
    document = json.loads(json.dumps(compare(evaluation, evaluation).to_json(), allow_nan=False))
    assert document["figures"]["dice"]["difference"]["value"] == 0
    assert document["a"]["about"]["bundle"] == "node 1.0.0"


def test_only_like_is_compared():
    a = evaluate_cases(six(), about())
    with pytest.raises(ValueError, match="different scans"):
        compare(a, evaluate_cases(six()[:5], about()))
    blind = evaluate_cases([result(0, truth=None)], about())
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(blind, blind)
