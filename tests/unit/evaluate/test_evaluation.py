"""Scans summed up: means, patients, sizes, JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from msnode.domain.imaging import Grid, Volume
from msnode.evaluate.evaluation import evaluate_cases
from unit.evaluate.scans import GRID, SPOTS, STRAY, about, result, six


def test_means_are_over_scans_and_intervals_over_patients(evaluation):
    dice = [case.scores.dice for case in evaluation.scored]
    assert len(dice) == 6
    assert evaluation.voxel["dice"].value == pytest.approx(np.mean(dice))
    assert evaluation.voxel["dice"].low < np.mean(dice) < evaluation.voxel["dice"].high
    assert evaluation.lesion["false_positives"].value == pytest.approx(0.5)
    assert evaluation.voxel["hd95_mm"].patients == 6


def test_scans_of_one_patient_make_one_patient():
    scans = six()
    one = [result(n, patient="same") for n in range(6, 9)]
    assert evaluate_cases([*scans, *one], about()).voxel["dice"].patients == 7
    alone = evaluate_cases(one, about()).voxel["dice"]
    assert (alone.value, alone.low, alone.patients) == (1, None, 1)


def test_lesions_are_pooled_by_size():
    evaluation = evaluate_cases(six(), about())
    missed = sum(n % 3 for n in range(6))
    counts = [(one.found, one.count) for one in evaluation.by_size]
    assert counts == [(0, 0), (42 - missed, 42), (0, 0), (0, 0)]  # 12 voxels of 6 mm3 each: 72 mm3
    assert evaluation.by_size[1].sensitivity.value == pytest.approx((42 - missed) / 42)
    assert evaluation.by_size[0].sensitivity.value is None
    assert evaluation.by_size[3].high_mm3 is None


def test_confidences_are_compared_with_any_overlap():
    evaluation = evaluate_cases([result(0, found=(*SPOTS, STRAY), confidence=0.5)], about())
    assert evaluation.calibration.count == 8
    assert evaluation.calibration.expected_error.value == pytest.approx(7 / 8 - 0.5)
    corner = np.s_[1, 14:15, 12:13]  # one voxel of twelve
    touched = evaluate_cases([result(0, truth=(corner,), found=SPOTS[:1], confidence=1.0)], about())
    assert touched.calibration.expected_error.value == 0
    assert evaluate_cases([result(0, confidence=None)], about()).calibration is None


def test_ceilings_are_given_apart_for_thin_slices_and_for_thick_ones(evaluation):
    (thick,) = evaluation.ceilings
    assert (thick.thick, thick.scans) == (True, 6)
    assert (thick.dice.value, thick.lesion_f1.value) == pytest.approx((12 / 13, 12 / 13))
    thin = Grid(GRID.shape, GRID.affine @ np.diag([1, 1, 1 / 6, 1]))
    scan = result(0, ceiling=SPOTS)
    fine = {name: Volume(getattr(scan, name).data, thin) for name in ("image", "truth", "probability")}
    maps = {name: replace(getattr(scan, name), grid=thin) for name in ("lesions", "ceiling")}
    both = evaluate_cases([replace(scan, **fine, **maps), result(1, ceiling=SPOTS[:6])], about()).ceilings
    assert [(one.thick, one.scans, round(one.dice.value, 3)) for one in both] == [
        (False, 1, 1.0),
        (True, 1, 0.923),
    ]


def test_scans_without_a_mask_are_listed_but_not_scored(evaluation):
    assert [case.case for case in evaluation.cases if case.scores is None] == ["case06"]
    only = evaluate_cases([result(0, truth=None)], about())
    assert (only.scored, only.slices, only.volume, only.calibration) == ((), None, None, None)
    assert only.voxel["dice"].value is None
    assert only.cases[0].lesion_count == len(SPOTS)
    assert only.cases[0].lesion_ml == pytest.approx(len(SPOTS) * 72 / 1000)


def test_patients_seen_in_training_are_named():
    evaluation = evaluate_cases([result(0), result(1, held_out=False)], about())
    assert evaluation.seen_in_training == ("case01",)


def test_scans_without_lesions_on_both_sides():
    evaluation = evaluate_cases([result(n, truth=(), found=()) for n in range(6)], about())
    assert evaluation.voxel["dice"].value is None
    assert evaluation.voxel["specificity"].value == 1
    assert evaluation.lesion["false_positives"].value == 0
    assert evaluation.slices.positive == 0
    json.dumps(evaluation.to_json(), allow_nan=False)


def test_json_says_everything_and_gives_the_same_bytes(evaluation):
    document = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert document["voxel_level"]["dice"].keys() == {"value", "low", "high", "patients"}
    assert document["cases"]["case01"]["scores"]["dice"] == pytest.approx(
        evaluation.cases[1].scores.dice, abs=1e-6
    )
    assert document["cases"]["case06"]["scores"] is None
    assert document["slice_level"]["readings"].keys() == {"usual", "paper", "paper_any_voxel"}
    scans = [*six(ceiling=SPOTS[1:]), result(6, truth=None, found=SPOTS[:2], fold=None)]
    again = evaluate_cases(scans[::-1], evaluation.about)
    assert json.dumps(again.to_json()) == json.dumps(evaluation.to_json())


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match="no scan"):
        evaluate_cases([], about())
    with pytest.raises(ValueError, match="one name"):
        evaluate_cases([result(0), result(0)], about())
    good = result(0)
    moved = GRID.affine.copy()
    moved[0, 3] += 2
    elsewhere = Volume(good.image.data.copy(), Grid(GRID.shape, moved))
    bad = replace(good, image=elsewhere)
    with pytest.raises(ValueError, match="different grids"):
        evaluate_cases([bad], about())
