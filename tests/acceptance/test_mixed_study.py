"""`msnode study segment` on a study of eight mixed series of which one is the right one."""

import json

import pydicom
import pytest

from support.dicom_files import flair_series
from support.heads import head_series
from support.node import msnode

RIGHT = "t2_tirm_tra_dark-fluid"
SMALL = {"rows": 16, "columns": 16}


def write_mixed_study(folder):
    """The head as a FLAIR, and seven others of the study; UID of the right series."""
    drawn = head_series(folder / "6", description=RIGHT, series_number=6)
    flair_series(folder / "1", description="AAHead_Scout", slices=3, series_number=1, EchoTime=1.4, **SMALL)
    for number, description, times in (
        (2, "t1_tirm_tra_dark-fluid", (860, 12, 2000)),
        (3, "t2_tse_tra_512", (None, 108, 6000)),
        (4, "t2_space_dir_sag_iso", (3000, 319, 7500)),
        (5, "ep2d_diff_4scan_trace_p2_TRACEW", (None, 89, 5500)),
        (7, "t2_tirm_tra_dark-fluid nach KM", (2500, 86, 9000)),
        (8, "t2_space_dark-fluid_tra_MPR", (1800, 388, 5000)),
    ):
        inversion, echo, repetition = times
        flair_series(
            folder / str(number), description=description, series_number=number,
            InversionTime=inversion, EchoTime=echo, RepetitionTime=repetition, **SMALL,
        )  # fmt: skip
    return pydicom.dcmread(drawn[0], stop_before_pixels=True).SeriesInstanceUID


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    uid = write_mixed_study(folder / "study")
    done = msnode("study", "segment", folder / "study", "--out", folder / "out", "--preset", "fast")
    assert done.returncode == 0, done.stderr
    return uid, folder / "out"


def test_the_right_series_of_eight_is_read(mixed):
    uid, out = mixed
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "completed"
    segmentation = pydicom.dcmread(out / "seg.dcm")
    assert [s.SeriesInstanceUID for s in segmentation.ReferencedSeriesSequence] == [uid]
    assert len(result["passed_over"]) == 7
    assert all(passed["reason"] for passed in result["passed_over"])
