"""Results before independent validators: dicom3tools, DCMTK, PixelMed."""

from pathlib import Path

import pytest
from pydicom import dcmread

from msnode.encode import Replaced, SentObject, encode_rejection, encode_rejection_note, normalise, to_bytes
from support.dicom_files import enhanced_flair, flair_series
from support.readings import provenance, read
from support.validators import (
    dcentvfy_complaints,
    dciodvfy_errors,
    dsrdump,
    pixelmed_complaints,
)

pytestmark = pytest.mark.peer

COUNTS = [0, 1, 50]


def write(outputs, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, output in enumerate(outputs):
        paths.append(folder / f"{number:02}-{output.kind}.dcm")
        paths[-1].write_bytes(to_bytes(output))
    return paths


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> dict[str, list[Path]]:
    """Every object of readings with few and many lesions, a revision, an Enhanced source, a rejection."""
    folder = tmp_path_factory.mktemp("objects")
    source = flair_series(folder / "in", slices=8, rows=64, columns=64)
    made = {f"{n} lesions": write(read(source, n).outputs(), folder / str(n)) for n in COUNTS}
    enhanced = read([enhanced_flair(folder / "enhanced.dcm", slices=6)], 2, confidences=[0.8, 0.3])
    made["enhanced"] = write(enhanced.outputs(), folder / "enhanced")
    old = dcmread(next(p for p in made["1 lesions"] if p.name.endswith("sr.dcm")))
    later = provenance(revision=1, replaces_sop_instance_uid=str(old.SOPInstanceUID))
    made["revision"] = write(read(source, 1).outputs(later), folder / "revision")
    instances = [f.instance for f in enhanced.source.frames[:1]]
    refused = encode_rejection(instances, "slices 3 and 4 lie 12.1 mm apart", provenance(model=None))
    made["rejection"] = write(refused, folder / "rejection")
    sent = [dcmread(p) for p in made["50 lesions"]]
    objects = tuple(SentObject(ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID) for ds in sent)
    left = Replaced(0, normalise(sent[0]), objects)
    made["note"] = write([encode_rejection_note(left, "other", later)], folder / "note")
    return made


def reports(objects) -> dict[str, Path]:
    found = {case: [p for p in paths if p.name.endswith("sr.dcm")] for case, paths in objects.items()}
    return {case: paths[0] for case, paths in found.items() if paths}


@pytest.mark.parametrize(
    "case", [*(f"{n} lesions" for n in COUNTS), "enhanced", "revision", "rejection", "note"]
)
def test_dciodvfy_finds_no_error(objects, case):
    paths = [p for p in objects[case] if "overlay" not in p.name]
    paths += [p for p in objects[case] if "overlay" in p.name][:2]
    assert {p.name: dciodvfy_errors(p) for p in paths} == {p.name: [] for p in paths}


def test_dciodvfy_would_find_one(objects, tmp_path):
    ds = dcmread(objects["1 lesions"][0])
    del ds.SegmentSequence
    ds.save_as(tmp_path / "broken.dcm")
    assert dciodvfy_errors(tmp_path / "broken.dcm")


@pytest.mark.parametrize("case", ["50 lesions", "enhanced"])
def test_dcentvfy_finds_one_patient_and_study(objects, case):
    assert [line for line in dcentvfy_complaints(objects[case]) if line.startswith("Error")] == []


def test_dcmtk_reads_every_report(objects):
    for case, path in reports(objects).items():
        text = dsrdump(path)
        assert text.startswith("Comprehensive 3D SR Document"), case
        assert ("NUM:" in text) == (case != "rejection"), case


def test_a_note_belongs_to_the_study_of_what_it_rejects(objects):
    together = [*objects["50 lesions"], *objects["note"]]
    assert [line for line in dcentvfy_complaints(together) if line.startswith("Error")] == []


def test_dcmtk_reads_a_note(objects):
    text = dsrdump(objects["note"][0])
    assert text.startswith("Key Object Selection Document")
    assert "Rejected for Patient Safety Reasons" in text
    assert text.count("<contains IMAGE:") == len(objects["50 lesions"]) - 1
    assert text.count("<contains COMPOSITE:") == 1


def test_pixelmed_finds_nothing_in_reports_and_faults_in_a_broken_one(objects, tmp_path):
    # few lesions: the validator's time grows with them, their groups are all alike
    chosen = {case: reports(objects)[case] for case in ("0 lesions", "enhanced", "rejection")}
    ds = dcmread(chosen["enhanced"])
    (measurements,) = [c for c in ds.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "126010"]
    group = measurements.ContentSequence[-1]
    group.ContentSequence = [
        c for c in group.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue != "121232"
    ]
    broken = tmp_path / "broken.dcm"
    ds.save_as(broken)
    complaints = pixelmed_complaints([*chosen.values(), broken])
    assert complaints.pop(broken)
    assert complaints == {path: [] for path in chosen.values()}
