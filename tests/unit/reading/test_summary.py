"""What a reading tells the record survives the way between two processes."""

import json

import pytest

from msnode.domain.provenance import ModelIdentity, PassedOver
from msnode.reading.summary import ReadingStatus, ReadingSummary
from msnode.record.delivery import Result

RESULT = {
    "status": "completed",
    "reason": "2 lesions",
    "selection_digest": "a" * 64,
    "msnode_version": "0.5.0",
    "settings_digest": "b" * 64,
    "runtime": "openvino-cpu-f32",
    "series_instance_uid": "1.2.3",
    "passed_over": [{"series_instance_uid": "1.2.4", "reason": "another contrast"}],
    "model": {"name": "m", "version": "1", "sha256": "c" * 64},
    "lesion_count": 2,
    "lesion_volume_mm3": 31.5,
    "timings_s": {"segment": 0.5},
    "outputs": [
        {
            "kind": "seg", "path": "seg.dcm", "sop_instance_uid": "2.25.1", "sop_class_uid": "1.2",
            "series_instance_uid": "2.25.2", "sha256": "d" * 64,
        },
    ],
    "lesions": ["what the record does not need"],
}  # fmt: skip


def test_it_holds_what_the_record_needs():
    summary = ReadingSummary.of(RESULT, result_set="job-1-0")
    assert (summary.status, summary.result_set) == (ReadingStatus.COMPLETED, "job-1-0")
    assert summary.passed_over == (PassedOver("1.2.4", "another contrast"),)
    assert summary.model == ModelIdentity("m", "1", "c" * 64)
    assert summary.results == (Result("seg", "2.25.1", "1.2", "2.25.2", "seg.dcm", "d" * 64),)


@pytest.mark.parametrize("model", [RESULT["model"], None])
def test_it_comes_back_as_it_was(model):
    summary = ReadingSummary.of(RESULT | {"model": model}, result_set="job-1-0")
    assert ReadingSummary.from_json(summary.to_json()) == summary


def test_an_unknown_status_is_refused():
    text = ReadingSummary.of(RESULT).to_json().replace('"completed"', '"perfect"')
    assert json.loads(text)["status"] == "perfect"
    with pytest.raises(ValueError, match="perfect"):
        ReadingSummary.from_json(text)
