"""How sure a bundle is of each lesion: a probability that was calibrated on patients it had not seen.

confidence = sigmoid(b + w1 logit(p) + w2 s + w3 ln(v)) with p the mean probability inside the lesion, s the
mean spread over the ensemble's members and v its volume in mm3: Platt's scaling (Advances in Large Margin
Classifiers, 1999) with two more features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special

from msnode.domain.findings import LesionMap
from msnode.errors import ConfigurationError
from msnode.segment.bundle import Calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from msnode.domain.findings import Lesion

_NEAREST_TO_CERTAIN = 1e-3
"""Mean probabilities are kept so far from 0 and 1, where the logit has no value."""
_RIDGE = 1.0
"""Weight of the squared slopes, for features of unit variance, beside the summed log loss."""


def confidence(calibration: Calibration, lesion: Lesion) -> float:
    """Probability, 0-1, that an expert would mark this lesion."""
    logit, spread, log_volume = _features(lesion)
    score = (
        calibration.intercept
        + calibration.logit_mean_probability * logit
        + calibration.spread * spread
        + calibration.log_volume * log_volume
    )
    return float(special.expit(score))


def with_confidence(lesion_map: LesionMap, calibration: Calibration | None) -> LesionMap:
    """The same map whose lesions carry their confidence; as it is where the bundle is not calibrated."""
    if calibration is None:
        return lesion_map
    lesions = tuple(replace(x, confidence=confidence(calibration, x)) for x in lesion_map.lesions)
    return LesionMap(labels=lesion_map.labels, grid=lesion_map.grid, lesions=lesions)


def fit_calibration(lesions: Sequence[Lesion], marked: Sequence[bool]) -> Calibration:
    """Fit the calibration to lesions of held-out patients.

    Logistic regression with a small ridge on the slopes; the targets are Platt's, (n + 1) / (n + 2) and
    1 / (n + 2) of n lesions a class. Both keep every weight finite where a feature separates the classes,
    where all lesions are of one class, and where there are few.

    Args:
        lesions: what the bundle found, by folds that had not seen the patient; in the form in which it
            will meet them (`find_lesions` with the bundle's threshold and smallest volume).
        marked: whether each shares a voxel with the expert's mask.

    Raises:
        ConfigurationError: there is no lesion to fit to.
        ValueError: the lengths differ.
    """
    if len(lesions) != len(marked):
        raise ValueError(f"{len(lesions)} lesions and {len(marked)} verdicts on them")
    if not lesions:
        raise ConfigurationError(
            "no lesion to calibrate on: the held-out folds found none; train longer or lower the threshold"
        )
    features = np.array([_features(x) for x in lesions])
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-9] = 1.0  # noqa: PLR2004 - a constant feature tells nothing: its slope stays 0
    weights = _fit((features - centre) / scale, _targets(np.asarray(marked, dtype=bool)))
    slopes = weights[1:] / scale
    logit, spread, log_volume = (float(w) for w in slopes)
    return Calibration(
        intercept=float(weights[0] - slopes @ centre),
        logit_mean_probability=logit,
        spread=spread,
        log_volume=log_volume,
    )


def _features(lesion: Lesion) -> tuple[float, float, float]:
    """Logit of the mean probability, spread, ln of the volume in mm3."""
    probability = min(max(lesion.mean_probability, _NEAREST_TO_CERTAIN), 1 - _NEAREST_TO_CERTAIN)
    return float(special.logit(probability)), lesion.spread, float(np.log(lesion.volume_mm3))


def _targets(marked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Platt's targets, shape (n,)."""
    right = int(marked.sum())
    wrong = len(marked) - right
    return np.where(marked, (right + 1) / (right + 2), 1 / (wrong + 2))


def _fit(features: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept and slopes, shape (1 + k,), of features of unit variance, shape (n, k)."""
    design = np.column_stack([np.ones(len(features)), features])
    ridge = np.full(design.shape[1], _RIDGE)
    ridge[0] = 0.0

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        score = design @ weights
        value = np.logaddexp(0, score).sum() - targets @ score + ridge @ weights**2 / 2
        return float(value), design.T @ (special.expit(score) - targets) + ridge * weights

    def curvature(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        share = special.expit(design @ weights)
        return np.asarray((design.T * (share * (1 - share))) @ design + np.diag(ridge))

    start = np.zeros(design.shape[1])
    found = optimize.minimize(loss, start, jac=True, hess=curvature, method="trust-exact")
    return np.asarray(found.x)
