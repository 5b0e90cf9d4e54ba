import re
from dataclasses import replace

import numpy as np
import pytest

from msnode.dicom.uids import derive_uid
from msnode.domain.findings import Lesion, LesionMap
from msnode.domain.imaging import Grid
from msnode.measure.burden import measure

GRID = Grid(shape=(2, 2, 2), affine=np.eye(4))
KEY = {"patient_key": ("HOSP", "P1"), "series_instance_uid": "1.2.3", "bundle_sha256": "ab" * 32}


def lesion(label, centroid=(1.0, 2.0, 3.0), volume=10.0):
    return Lesion(label, 5, volume, centroid, 4.0, 0.8)


def findings(*lesions, **changes):
    lesion_map = LesionMap(np.zeros((2, 2, 2), np.int32), GRID, lesions)
    return measure(lesion_map, **(KEY | changes))


def test_findings_keep_the_order_and_numbers_of_the_map():
    found = findings(lesion(1, (0.0, 0.0, 0.0), 30.0), lesion(2, (5.0, 0.0, 0.0), 12.5))
    assert [f.tracking_id for f in found.lesions] == ["Lesion 1", "Lesion 2"]
    assert found.count == 2
    assert found.total_volume_mm3 == 42.5


def test_an_empty_map_has_no_findings():
    assert findings().count == 0
    assert findings().total_volume_mm3 == 0


def test_tracking_uid_is_a_derived_uid_of_identity_and_centroid():
    (finding,) = findings(lesion(1)).lesions
    assert re.fullmatch(r"2\.25\.[1-9]\d{30,38}", finding.tracking_uid)
    assert finding.tracking_uid == derive_uid(
        "tracking", "HOSP", "P1", "1.2.3", "ab" * 32, "1.0", "2.0", "3.0"
    )


def test_tracking_uid_does_not_depend_on_rank_or_size():
    (first,) = findings(lesion(1)).lesions
    (later,) = findings(replace(lesion(7), volume_mm3=2.0)).lesions
    assert first.tracking_uid == later.tracking_uid


@pytest.mark.parametrize(
    "change",
    [
        {"patient_key": ("HOSP", "P2")},
        {"patient_key": ("HOSPP", "1")},
        {"series_instance_uid": "1.2.4"},
        {"bundle_sha256": "cd" * 32},
    ],
)
def test_tracking_uid_depends_on_patient_series_and_bundle(change):
    assert (
        findings(lesion(1)).lesions[0].tracking_uid != findings(lesion(1), **change).lesions[0].tracking_uid
    )


def test_tracking_uid_rounds_the_centroid_to_a_tenth_of_a_millimetre():
    near = findings(lesion(1, (1.04, 2.0, 3.0))).lesions[0].tracking_uid
    assert near == findings(lesion(1)).lesions[0].tracking_uid
    assert near != findings(lesion(1, (1.06, 2.0, 3.0))).lesions[0].tracking_uid


def test_zero_has_no_sign():
    below = findings(lesion(1, (-0.01, 0.0, 0.0))).lesions[0].tracking_uid
    assert below == findings(lesion(1, (0.01, 0.0, 0.0))).lesions[0].tracking_uid


def test_lesions_with_one_centroid_keep_different_identities():
    found = findings(lesion(1), lesion(2), lesion(3))
    assert len({f.tracking_uid for f in found.lesions}) == 3
