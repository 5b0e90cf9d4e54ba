import numpy as np
import pytest
from scipy.special import expit, logit

from msnode.domain.findings import Lesion, LesionMap
from msnode.domain.imaging import Grid
from msnode.errors import ConfigurationError
from msnode.segment.bundle import Calibration
from msnode.segment.confidence import confidence, fit_calibration, with_confidence

CALIBRATION = Calibration(intercept=-1.0, logit_mean_probability=0.8, spread=-3.0, log_volume=0.5)


def lesion(probability=0.8, spread=0.1, volume=100.0, label=1):
    return Lesion(label, 10, volume, (0.0, 0.0, 0.0), 5.0, probability, spread)


def drawn(count, weights, seed=0):
    """Lesions and verdicts from a known calibration."""
    rng = np.random.default_rng(seed)
    lesions = [
        lesion(p, s, v)
        for p, s, v in zip(
            rng.uniform(0.5, 0.98, count),
            rng.uniform(0, 0.4, count),
            np.exp(rng.uniform(1, 8, count)),
            strict=True,
        )
    ]
    chance = np.array([confidence(weights, x) for x in lesions])
    return lesions, (rng.random(count) < chance).tolist()


def test_confidence_is_the_formula():
    expected = expit(-1.0 + 0.8 * logit(0.8) - 3.0 * 0.1 + 0.5 * np.log(100.0))
    assert confidence(CALIBRATION, lesion()) == pytest.approx(expected)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_certain_network_gives_a_finite_confidence(probability):
    assert 0 < confidence(CALIBRATION, lesion(probability, 0.0, 1.0)) < 1


def test_every_lesion_of_a_map_gets_its_own():
    grid = Grid((1, 2, 2), np.eye(4))
    lesion_map = LesionMap(np.zeros((1, 2, 2), np.int32), grid, (lesion(), lesion(0.6, label=2)))
    rated = with_confidence(lesion_map, CALIBRATION)
    assert [x.confidence for x in rated.lesions] == [
        confidence(CALIBRATION, lesion()),
        confidence(CALIBRATION, lesion(0.6)),
    ]
    assert [x.label for x in rated.lesions] == [1, 2]
    assert rated.labels is lesion_map.labels


def test_without_calibration_there_is_no_confidence():
    lesion_map = LesionMap(np.zeros((1, 2, 2), np.int32), Grid((1, 2, 2), np.eye(4)), (lesion(),))
    assert with_confidence(lesion_map, None).lesions[0].confidence is None


def test_a_fit_recovers_what_the_verdicts_were_drawn_from():
    fitted = fit_calibration(*drawn(4_000, CALIBRATION))
    assert fitted.intercept == pytest.approx(CALIBRATION.intercept, abs=0.4)
    assert fitted.logit_mean_probability == pytest.approx(CALIBRATION.logit_mean_probability, abs=0.15)
    assert fitted.spread == pytest.approx(CALIBRATION.spread, abs=0.8)
    assert fitted.log_volume == pytest.approx(CALIBRATION.log_volume, abs=0.08)


def test_fitted_confidences_come_true():
    fitted = fit_calibration(*drawn(4_000, CALIBRATION))
    lesions, marked = drawn(4_000, CALIBRATION, seed=1)
    said = np.array([confidence(fitted, x) for x in lesions])
    for low, high in ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0)):
        inside = (said >= low) & (said < high)
        assert np.mean(np.array(marked)[inside]) == pytest.approx(said[inside].mean(), abs=0.06)


def test_a_fit_does_not_depend_on_the_order():
    lesions, marked = drawn(200, CALIBRATION)
    back = fit_calibration(lesions[::-1], marked[::-1])
    there = fit_calibration(lesions, marked)
    assert back.model_dump() == pytest.approx(there.model_dump(), rel=1e-4)


def test_classes_that_a_feature_separates_give_finite_weights():
    lesions = [lesion(volume=v) for v in (3, 4, 5, 300, 400, 500)]
    fitted = fit_calibration(lesions, [False] * 3 + [True] * 3)
    assert 0 < fitted.log_volume < 10
    assert confidence(fitted, lesion(volume=4)) < 0.35
    assert confidence(fitted, lesion(volume=400)) > 0.65


@pytest.mark.parametrize(
    ("count", "marked", "expected"), [(1, True, 2 / 3), (1, False, 1 / 3), (8, True, 0.9)]
)
def test_lesions_of_one_class_give_the_share_with_doubt(count, marked, expected):
    fitted = fit_calibration([lesion()] * count, [marked] * count)
    assert confidence(fitted, lesion()) == pytest.approx(expected, abs=1e-4)
    slopes = (fitted.logit_mean_probability, fitted.spread, fitted.log_volume)
    assert slopes == pytest.approx((0, 0, 0), abs=1e-9)


def test_nothing_to_fit_to_is_said():
    with pytest.raises(ConfigurationError, match="no lesion to calibrate on"):
        fit_calibration([], [])
    with pytest.raises(ValueError, match="2 lesions and 1 verdicts"):
        fit_calibration([lesion()] * 2, [True])
