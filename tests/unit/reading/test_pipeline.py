from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from msnode.domain.imaging import Volume
from msnode.encode import ResultRules
from msnode.errors import RecipeMismatch
from msnode.preprocess import recipes
from msnode.reading.outcome import ReadingRules
from msnode.reading.pipeline import read_study
from msnode.reading.result_set import read_result, write_result_set
from msnode.reading.segment_volume import LesionRules
from msnode.segment.bundle import Calibration, IntensityHistogram, Scope
from msnode.series.select import SelectionRules
from support.dicom_files import flair_series
from support.networks import FakeNetwork, find_brain
from support.readings import provenance, series_of

SCOPE = Scope(
    plane="axial", slice_distance_mm=(2, 9), field_strength_t=(1.5, 3.0), manufacturers=("PHILIPS",)
)
HEAD = ReadingRules(SelectionRules(), SCOPE, LesionRules("flair2d-head-v1", threshold=0.5, min_volume_mm3=3))
CALIBRATION = Calibration(intercept=-1.0, logit_mean_probability=0.5, spread=-4.0, log_volume=0.2)
STRIPPED = replace(
    HEAD,
    lesions=LesionRules("flair2d-brain-v1", threshold=0.5, min_volume_mm3=3, calibration=CALIBRATION),
    results=ResultRules(mark_below=0.5),
)


def find_nothing(volume):
    return Volume(np.zeros(volume.data.shape, np.uint8), volume.grid)


@pytest.fixture
def study(tmp_path):
    return [series_of(flair_series(tmp_path / "in", slices=14, rows=48, columns=48))]


def read(study, rules, network):
    return read_study(study, rules, provenance(), lambda: network)


def report_texts(reading):
    (report,) = [o.dataset for o in reading.outputs if o.kind == "sr"]
    (evaluations,) = [
        c for c in report.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "C0034375"
    ]
    return [c.TextValue for c in evaluations.ContentSequence if c.ValueType == "TEXT"]


def test_a_bundle_without_calibration_that_strips_nothing(study, tmp_path):
    network = FakeNetwork()
    reading = read(study, HEAD, network)
    assert reading.status == "completed"
    assert reading.provenance.runtime == "fake-cpu-f32"
    assert [f.lesion.confidence for f in reading.findings.lesions] == [None, None]
    assert (reading.findings.brain_volume_ml, reading.scope.kind) == (None, "in scope")
    assert network.seen[0].brain is None
    result = write_result_set(reading, tmp_path)
    assert result["brain_volume_ml"] is None
    assert result["scope"] == {"kind": "in scope", "sentences": []}
    assert [(x["confidence"], x["low_confidence"]) for x in result["lesions"]] == [(None, False)] * 2
    assert result == read_result(tmp_path)


def test_lesions_carry_spread_and_calibrated_confidence(study, tmp_path):
    network = FakeNetwork(extract=find_brain)
    reading = read(study, STRIPPED, network)
    large, small = (f.lesion for f in reading.findings.lesions)
    assert (large.voxel_count, small.voxel_count) == (40, 4)
    assert (large.mean_probability, small.mean_probability) == (pytest.approx(0.9), pytest.approx(0.6))
    assert (large.spread, small.spread) == (pytest.approx(0.05), pytest.approx(0.3))
    for lesion in (large, small):
        score = -1 + 0.5 * logit(lesion.mean_probability) - 4 * lesion.spread
        assert lesion.confidence == pytest.approx(expit(score + 0.2 * np.log(lesion.volume_mm3)))
    result = write_result_set(reading, tmp_path)
    assert [x["low_confidence"] for x in result["lesions"]] == [False, True]
    assert [x["confidence"] for x in result["lesions"]] == pytest.approx(
        [large.confidence, small.confidence], abs=1e-4
    )
    assert [x["spread"] for x in result["lesions"]] == pytest.approx([0.05, 0.3], abs=1e-4)
    assert "Low confidence (under 50 %): Lesion 2." in report_texts(reading)


def test_the_brain_is_measured_and_restored_lesions_lie_where_they_were_found(study):
    network = FakeNetwork(extract=find_brain)
    reading = read(study, STRIPPED, network)
    (prepared,) = network.seen
    voxels = np.count_nonzero(find_brain(reading.source.volume).data)
    expected = voxels * reading.source.volume.grid.voxel_volume_mm3 / 1000
    assert reading.findings.brain_volume_ml == pytest.approx(expected, rel=0.05)
    assert prepared.grid.shape[1] < 48  # cropped to the brain
    centre = prepared.grid.to_lps(np.array([[4.5, 21.5, 22.0]]))[0]
    assert reading.findings.lesions[0].lesion.centroid_lps_mm == pytest.approx(centre, abs=0.5)


def test_warnings_of_scope_and_preparation_reach_the_report(study, monkeypatch):
    whole = recipes.get("flair2d-brain-v1").apply

    class Warned:
        def apply(self, volume, extract):
            return replace(whole(volume, extract), warnings=("the brain is cut off at the vertex",))

    monkeypatch.setattr(recipes, "get", lambda _: Warned())
    rules = replace(STRIPPED, scope=SCOPE.model_copy(update={"plane": "sagittal"}))
    reading = read(study, rules, FakeNetwork(extract=find_brain))
    assert reading.status == "completed"
    assert reading.scope.kind == "warning"
    expected = (*reading.scope.sentences, "Low quality: the brain is cut off at the vertex.")
    assert reading.findings.limitations == expected
    assert set(expected) <= set(report_texts(reading))


def test_a_network_without_brain_for_a_recipe_that_strips_is_an_error_of_the_model(study):
    with pytest.raises(RecipeMismatch, match="strips the skull"):
        read(study, STRIPPED, FakeNetwork())


def test_what_is_no_flair_is_refused_before_the_network_runs(study, tmp_path):
    seen = IntensityHistogram(
        edges=(0.0, 0.5, 1.0), density=(2.0, 0.0), largest_distance=0.001, refuse_distance=0.002
    )
    network = FakeNetwork(extract=find_brain)
    rules = replace(STRIPPED, scope=SCOPE.model_copy(update={"intensity_histogram": seen}))
    reading = read(study, rules, network)
    _is_refusal(reading, "not those of a FLAIR", tmp_path)
    assert network.seen == []


def test_no_brain_is_a_refusal(study, tmp_path):
    _is_refusal(read(study, STRIPPED, FakeNetwork(extract=find_nothing)), "no brain was found", tmp_path)


def _is_refusal(reading, says, folder):
    assert reading.status == "rejected"
    assert reading.scope.kind == "refusal"
    assert says in reading.reason
    assert [o.kind for o in reading.outputs] == ["sr", "summary"]
    assert "NUM" not in str(reading.outputs[0].dataset)
    result = write_result_set(reading, folder)
    assert result["scope"] == {"kind": "refusal", "sentences": [reading.reason]}
    assert (result["lesion_count"], result["lesion_volume_mm3"], result["lesions"]) == (None, None, [])


def test_a_rejection_for_another_reason_says_nothing_of_scope(study, tmp_path):
    rules = replace(HEAD, selection=SelectionRules(min_slices=50))
    reading = read_study(study, rules, provenance(), FakeNetwork, asked_for=True)
    assert (reading.status, reading.scope) == ("rejected", None)
    assert write_result_set(reading, tmp_path)["scope"] is None


def flair(folder, name, **more):
    return series_of(flair_series(folder / name, rows=48, columns=48, description=name, **more))


def test_after_a_refusal_by_pixels_the_next_candidate_is_read(study, tmp_path):
    flat = flair(tmp_path, "FLAIR a", slices=16, series_number=7, pixels=np.full((16, 48, 48), 7, np.uint16))
    reading = read([flat, *study], STRIPPED, FakeNetwork(extract=find_brain_or_nothing))
    assert (reading.status, reading.flair) == ("completed", study[0])
    (passed,) = reading.selection.passed_over
    assert passed.series_instance_uid == flat.series_instance_uid
    assert passed.reason == "no brain was found in the series"
    said = "another FLAIR was not read: no brain was found in the series"
    assert reading.source.warnings == (said,)
    assert said in report_texts(reading)


def test_where_every_candidate_is_refused_the_first_reason_counts(study, tmp_path):
    gap = flair_series(tmp_path / "b", slices=12, rows=48, columns=48, description="FLAIR b", series_number=7)
    reading = read([series_of(gap[:4] + gap[5:]), *study], STRIPPED, FakeNetwork(extract=find_nothing))
    assert (reading.status, reading.reason, reading.flair) == (
        "rejected",
        "no brain was found in the series",
        study[0],
    )
    (passed,) = reading.selection.passed_over
    assert "a slice is missing" in passed.reason


def find_brain_or_nothing(volume):
    return find_nothing(volume) if np.ptp(volume.data) == 0 else find_brain(volume)


def test_what_was_left_out_of_a_folder_reaches_the_report(study):
    said = "2 of 7 files in the folder were left out: no DICOM files"
    reading = read_study(study, HEAD, provenance(), FakeNetwork, remarks=(said,))
    assert said in report_texts(reading)
