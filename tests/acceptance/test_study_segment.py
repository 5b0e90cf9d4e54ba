"""`msnode study segment`: a folder in, objects and result.json out, no server."""

import json
import re

import numpy as np
import pydicom
import pytest

from msnode.demo.patient import write_series
from msnode.demo.phantom import make_patient
from support.dicom_files import change, change_all, flair_series
from support.environment import shared_data
from support.node import msnode


def segment(path, out, *options):
    return msnode("study", "segment", path, "--out", out, *options)


@pytest.fixture(scope="module")
def read_twice(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segment")
    phantom = make_patient(seed=5)
    write_series(phantom, folder / "study")
    runs = [segment(folder / "study", folder / name, "--json") for name in ("a", "b")]
    return phantom, folder, runs


def test_the_result_says_what_was_found_and_made(read_twice):
    phantom, folder, (done, _) = read_twice
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "a" / "result.json").read_text())
    assert json.loads(done.stdout) == result
    assert result["status"] == "completed"
    assert result["lesion_count"] == len(result["lesions"]) > 0
    assert result["lesion_volume_mm3"] == pytest.approx(
        sum(x["volume_mm3"] for x in result["lesions"]), abs=0.1
    )
    assert {"name", "version", "sha256"} <= result["model"].keys()
    assert result["scope"]["kind"] in {"in scope", "warning"}
    assert set(result["scope"]["sentences"]) <= set(result["remarks"])
    for lesion in result["lesions"]:
        assert {"spread", "confidence", "low_confidence"} <= lesion.keys()
    assert {"select", "volume", "preprocess", "segment", "measure", "encode"} <= result["timings_s"].keys()
    kinds = [o["kind"] for o in result["outputs"]]
    assert kinds == ["seg", "sr"] + ["overlay"] * len(phantom.volume.data) + ["summary"]
    for output in result["outputs"]:
        dataset = pydicom.dcmread(folder / "a" / output["path"])
        assert dataset.SOPInstanceUID == output["sop_instance_uid"]
    assert {x["tracking_uid"] for x in result["lesions"]} == {
        s.TrackingUID for s in pydicom.dcmread(folder / "a" / "seg.dcm").SegmentSequence
    }


def test_one_input_gives_one_result_byte_for_byte(read_twice):
    _, folder, _ = read_twice
    names = sorted(p.name for p in (folder / "a").glob("*.dcm"))
    assert names == sorted(p.name for p in (folder / "b").glob("*.dcm"))
    for name in names:
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes(), name


def test_a_preset_makes_other_objects(read_twice):
    _, folder, _ = read_twice
    assert segment(folder / "study", folder / "fast", "--preset", "fast").returncode == 0
    usual, fast = (json.loads((folder / name / "result.json").read_text()) for name in ("a", "fast"))
    assert usual["settings_digest"] != fast["settings_digest"]
    uids = [{o["sop_instance_uid"] for o in result["outputs"]} for result in (usual, fast)]
    assert not uids[0] & uids[1]
    assert all(lesion["spread"] == 0 for lesion in fast["lesions"])


def test_centroids_lie_in_planted_tissue(read_twice):
    phantom, folder, _ = read_twice
    result = json.loads((folder / "a" / "result.json").read_text())
    inverse = np.linalg.inv(phantom.volume.grid.affine)
    near = 0
    for lesion in result["lesions"]:
        index = np.rint((inverse @ [*lesion["centroid_lps_mm"], 1])[:3]).astype(int)
        k, i, j = index
        near += bool(phantom.labels[max(k - 1, 0) : k + 2, i - 3 : i + 4, j - 3 : j + 4].any())
    assert near >= 0.5 * len(result["lesions"])


def no_pixels(files):
    change_all(files, PixelData=None)


def truncate(files):
    content = files[7].read_bytes()
    files[7].write_bytes(content[: len(content) // 2])


def mixed_orientations(files):
    change(files[4], ImageOrientationPatient=["0", "1", "0", "0", "0", "-1"])


def two_at_one_place(files):
    place = pydicom.dcmread(files[3], stop_before_pixels=True).ImagePositionPatient
    change(files[4], ImagePositionPatient=[str(v) for v in place])


BAD = {
    "truncated file": (truncate, "truncated|damaged|ends|pixel|readable"),
    "no pixel data": (no_pixels, "pixel"),
    "CT": (lambda f: change_all(f, Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "no |MR|CT"),
    "localiser": (
        lambda f: change_all(
            f, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesDescription="localizer"
        ),
        "locali[sz]er|scout|FLAIR",
    ),
    "one slice": (lambda f: [p.unlink() for p in f[1:]], "slice"),
    "missing slice in the middle": (lambda f: f[9].unlink(), "gap|missing|space"),
    "two slices at one place": (two_at_one_place, "place|position"),
    "mixed orientations": (mixed_orientations, "orientation"),
    "missing spacing": (lambda f: change_all(f, PixelSpacing=None), "Pixel ?Spacing|spacing"),
    "wrong photometric interpretation": (
        lambda f: change_all(f, PhotometricInterpretation="PALETTE COLOR"),
        "[Pp]hotometric",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_one_line(tmp_path, what):
    spoil, says = BAD[what]
    spoil(flair_series(tmp_path / "study"))
    done = segment(tmp_path / "study", tmp_path / "out")
    _is_refusal(done, tmp_path / "out", says)


def _is_refusal(done, out, says):
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "rejected"
    assert result["reason"] in done.stderr
    assert result["lesion_count"] is None
    assert result["lesion_volume_mm3"] is None
    assert re.search(says, result["reason"]), result["reason"]
    for output in result["outputs"]:
        assert output["kind"] in {"sr", "summary"}
        assert "NUM" not in str(pydicom.dcmread(out / output["path"]))


def test_files_that_are_not_dicom_are_refused(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("not DICOM")
    _is_refusal(segment(tmp_path / "study", tmp_path / "out"), tmp_path / "out", "no DICOM file")


@pytest.mark.parametrize("case", ["gantrytilting", "notavolume", "slicecount", "sliceincrement/001",
                                  "sliceincrement/002", "sliceorientation"])  # fmt: skip
def test_real_series_that_are_no_volume_are_refused(tmp_path, case):
    path = shared_data(f"dicom/icometrix/failing/{case}")
    _is_refusal(segment(path, tmp_path / "out"), tmp_path / "out", ".")


def test_misuse_is_exit_2(tmp_path):
    (tmp_path / "study").mkdir()
    assert segment(tmp_path / "absent", tmp_path / "out").returncode == 2
    assert segment(tmp_path / "study", tmp_path / "out", "--preset", "slow").returncode == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    done = segment(tmp_path / "study", tmp_path / "full")
    assert done.returncode == 2
    assert "empty folder" in done.stderr
    assert (tmp_path / "full" / "precious.txt").exists()


def test_an_earlier_result_is_replaced(tmp_path):
    files = flair_series(tmp_path / "study")
    files[9].unlink()
    segment(tmp_path / "study", tmp_path / "out")
    first = (tmp_path / "out" / "result.json").read_text()
    files[8].unlink()
    segment(tmp_path / "study", tmp_path / "out")
    assert (tmp_path / "out" / "result.json").read_text() != first
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {"sr.dcm", "summary.dcm", "result.json"}
