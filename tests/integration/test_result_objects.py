"""Results before independent validators: dicom3tools, DCMTK, PixelMed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from msnode.domain.findings import LOW_QUALITY, OUTSIDE_SCOPE
from msnode.encode import (
    REPORT_KINDS,
    Replaced,
    ResultRules,
    SentObject,
    encode_rejection,
    encode_rejection_note,
    encode_results,
    normalise,
    to_bytes,
)
from msnode.encode.kinds import KIND_NUMBERS
from support.dicom_files import enhanced_flair, flair_series
from support.readings import MARK_BELOW, provenance, read
from support.validators import (
    dcentvfy_complaints,
    dciodvfy_errors,
    dsrdump,
    pixelmed_complaints,
)

pytestmark = pytest.mark.peer

COUNTS = [0, 1, 50, 300]
SOURCES = ["classic", "enhanced"]
FORMS = ["single", "labelmap"]
EVERY_KIND = frozenset(KIND_NUMBERS) - {"ko"}
LIMITATIONS = (f"{OUTSIDE_SCOPE}a slice distance of 9 mm.", f"{LOW_QUALITY}noise.")
LARGE = {"slices": 20, "rows": 128, "columns": 128}  # 300 lesions need room
READ = [f"{source} {n}" for source in SOURCES for n in COUNTS]
CASES = [*READ, *FORMS, "limited 0", "limited 1", "revision", "rejection", "note"]


def write(outputs, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, output in enumerate(outputs):
        paths.append(folder / f"{number:02}-{output.kind}.dcm")
        paths[-1].write_bytes(to_bytes(output))
    return paths


def everything(paths, count, *, limitations=(), made_by=None, kinds=EVERY_KIND, form="lesions"):
    """Every object of a reading with `count` lesions."""
    reading = read(paths, count, [(n % 10) / 10 for n in range(count)])
    findings = replace(reading.findings, brain_volume_ml=1234.5, limitations=limitations)
    probability = np.where(reading.lesion_map.labels > 0, 230, 0).astype(np.uint8)
    rules = ResultRules(kinds, form, MARK_BELOW)
    return encode_results(
        reading.source, reading.lesion_map, findings, made_by or provenance(), rules, probability=probability
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        "classic": flair_series(folder / "classic", **LARGE),
        "enhanced": [enhanced_flair(folder / "enhanced.dcm", **LARGE)],
    }


@pytest.fixture(scope="module")
def objects(sources, tmp_path_factory) -> dict[str, list[Path]]:
    """Every object of every case."""
    folder = tmp_path_factory.mktemp("objects")
    made = {
        f"{source} {n}": write(everything(sources[source], n), folder / source / str(n))
        for source in SOURCES
        for n in COUNTS
    }
    small = flair_series(folder / "in", slices=8, rows=64, columns=64)
    for form in FORMS:
        made[form] = write(everything(small, 5, form=form, kinds={"seg", *REPORT_KINDS}), folder / form)
    for n in (0, 1):
        made[f"limited {n}"] = write(everything(small, n, limitations=LIMITATIONS), folder / f"limited{n}")
    olds = {kind: dcmread(the(kind, made["classic 1"])).SOPInstanceUID for kind in REPORT_KINDS}
    later = provenance(revision=1, replaced_reports=olds)
    made["revision"] = write(
        everything(small, 1, made_by=later, kinds=set(REPORT_KINDS)), folder / "revision"
    )
    instances = [f.instance for f in read(sources["enhanced"], 0).source.frames[:1]]
    refused = encode_rejection(
        instances, f"{OUTSIDE_SCOPE}no FLAIR.", provenance(model=None), ResultRules(EVERY_KIND)
    )
    made["rejection"] = write(refused, folder / "rejection")
    sent = [dcmread(p) for p in made["classic 50"]]
    left = tuple(SentObject(ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID) for ds in sent)
    note = encode_rejection_note(Replaced(0, normalise(sent[0]), left), "other", later)
    made["note"] = write([note], folder / "note")
    return made


def the(kind: str, paths: list[Path]) -> Path:
    (path,) = [p for p in paths if p.stem.split("-", 1)[1] == kind]
    return path


def test_every_kind_is_among_the_objects(objects):
    for source in SOURCES:
        assert {p.stem.split("-", 1)[1] for p in objects[f"{source} 50"]} == EVERY_KIND


@pytest.mark.parametrize("case", CASES)
def test_dciodvfy_finds_no_error(objects, case):
    paths = [p for p in objects[case] if "overlay" not in p.name]
    paths += [p for p in objects[case] if "overlay" in p.name][:2]
    assert {p.name: dciodvfy_errors(p) for p in paths} == {p.name: [] for p in paths}


@pytest.mark.parametrize("case", ["classic 1", "labelmap"])
def test_dciodvfy_would_find_one(objects, case, tmp_path):
    ds = dcmread(the("seg", objects[case]))
    del ds.SegmentSequence
    ds.save_as(tmp_path / "broken.dcm")
    assert dciodvfy_errors(tmp_path / "broken.dcm")


@pytest.mark.parametrize("source", SOURCES)
def test_dcentvfy_finds_one_patient_and_study_in_source_and_results(sources, objects, source):
    together = [*sources[source], *objects[f"{source} 50"]]
    assert [line for line in dcentvfy_complaints(together) if line.startswith("Error")] == []


def test_dcentvfy_would_find_another_patient(sources, objects, tmp_path):
    ds = dcmread(the("sr", objects["classic 1"]))
    ds.PatientName = "Other"
    ds.save_as(tmp_path / "other.dcm")
    complaints = dcentvfy_complaints([*sources["classic"], tmp_path / "other.dcm"])
    assert [line for line in complaints if line.startswith("Error")]


TITLES = {
    "sr": "Comprehensive 3D SR Document",
    "sr-comprehensive": "Comprehensive SR Document",
    "sr-enhanced": "Enhanced SR Document",
}


@pytest.mark.parametrize("kind", REPORT_KINDS)
def test_dcmtk_reads_every_report(objects, kind):
    for case in ("classic 0", "classic 50", "enhanced 50", "limited 1", "revision", "rejection"):
        text = dsrdump(the(kind, objects[case]))
        assert text.startswith(TITLES[kind]), case
        assert ("NUM:" in text) == (case != "rejection"), case
        assert ("Outside the model's scope of use" in text) == (case in ("limited 1", "rejection")), case
        assert ("Limited quality" in text) == (case == "limited 1"), case


def test_a_note_belongs_to_the_study_of_what_it_rejects(objects):
    together = [*objects["classic 50"], *objects["note"]]
    assert [line for line in dcentvfy_complaints(together) if line.startswith("Error")] == []


def test_dcmtk_reads_a_note(objects):
    text = dsrdump(objects["note"][0])
    assert text.startswith("Key Object Selection Document")
    assert "Rejected for Patient Safety Reasons" in text
    references = text.count("<contains IMAGE:") + text.count("<contains COMPOSITE:")
    assert references == len(objects["classic 50"])


def without(code: str, path: Path, broken: Path) -> Path:
    """A copy in which one lesion's group lacks an item that its template demands."""
    ds = dcmread(path)
    (measurements,) = [c for c in ds.ContentSequence if name_of(c) == "126010"]
    group = next(
        g for g in measurements.ContentSequence if "121191" in map(name_of, g.get("ContentSequence", []))
    )
    group.ContentSequence = [c for c in group.ContentSequence if name_of(c) != code]
    ds.save_as(broken)
    return broken


def name_of(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def test_pixelmed_finds_nothing_in_reports_and_faults_in_a_broken_one(objects, tmp_path):
    chosen = [the("sr", objects[case]) for case in CASES if case != "note"]
    in_every_class = [case for case in READ if not case.endswith("300")]  # these take seconds each
    for case in (*in_every_class, "limited 1", "rejection"):
        chosen += [the(kind, objects[case]) for kind in REPORT_KINDS if kind != "sr"]
    report = the("sr", objects["enhanced 50"])
    broken = [without(code, report, tmp_path / f"{code}.dcm") for code in ("121232", "121191")]
    complaints = pixelmed_complaints([*chosen, *broken])
    for path in broken:
        assert complaints.pop(path)
    assert complaints == {path: [] for path in chosen}
