"""The commands `model evaluate` and `model compare`, with a made-up bundle and made-up readings."""

import json
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from msnode.cli import model_evaluate
from msnode.domain.provenance import ModelIdentity
from msnode.errors import ConfigurationError
from msnode.train import cases as training_cases
from msnode.train import reading
from unit.evaluate.scans import SPOTS, result

app = typer.Typer()
app.command()(model_evaluate.evaluate)
app.command()(model_evaluate.compare)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A data folder of six cases (one without mask), and what the reading was asked for."""
    asked = []

    def load(path, _):
        manifest = SimpleNamespace(
            name=path.name, version="1.0.0", threshold=0.5, min_volume_mm3=5.0,
            training={"patients": {"case00": "someone", "case01": "someone"}, "curves": {}},
        )  # fmt: skip
        return SimpleNamespace(
            path=path, manifest=manifest, identity=ModelIdentity(path.name, "1.0.0", "0" * 64)
        )

    def predict(path, cases, *, mode, preset, report):
        asked.append({"bundle": path.name, "cases": [c.name for c in cases], "mode": mode, "preset": preset})
        for case in cases:
            report(case.name)
            truth = SPOTS if case.mask is not None else None
            found = SPOTS if path.name == "good" else SPOTS[2:]
            yield result(int(case.name[-2:]), patient=case.patient, truth=truth, found=found)

    monkeypatch.setattr(model_evaluate, "find_bundle", lambda reference, _: tmp_path / reference)
    monkeypatch.setattr(model_evaluate, "load_bundle", load)
    monkeypatch.setattr(reading, "predict_cases", predict)
    monkeypatch.setattr(training_cases, "_check_grids", lambda *_: None)
    for n in range(6):
        folder = tmp_path / "scans" / f"case{n:02}"
        folder.mkdir(parents=True)
        (folder / "FLAIR.nii.gz").touch()
        if n < 5:
            (folder / "lesion_mask.nii.gz").touch()
    return asked


def invoke(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_evaluate_reads_every_case_by_the_folds_that_did_not_see_it(asked, tmp_path):
    out = tmp_path / "report"
    printed = invoke("evaluate", "good", "--data", tmp_path / "scans", "--report", out)
    cases = [f"case{n:02}" for n in range(6)]
    assert asked == [{"bundle": "good", "cases": cases, "mode": "held-out", "preset": "standard"}]
    assert "case05" in printed
    assert str(out / "report.html") in printed.replace("\n", "")
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert document["about"]["data"] == "scans"
    assert {document["cases"][name]["patient"] for name in ("case00", "case01")} == {"case00"}
    assert (out / "report.html").exists()


def test_evaluate_prints_json_of_some_cases_by_the_ensemble(asked, tmp_path):
    arguments = ("--case", "case01", "--case", "case03", "--ensemble", "--preset", "best", "--json")
    document = json.loads(invoke("evaluate", "poor", "--data", tmp_path / "scans", *arguments))
    wanted = {"bundle": "poor", "cases": ["case01", "case03"], "mode": "ensemble", "preset": "best"}
    assert asked == [wanted]
    assert document["about"]["mode"] == "ensemble"
    assert document["voxel_level"]["sensitivity"]["value"] == pytest.approx(5 / 7, abs=1e-6)


def test_compare_reads_the_cases_with_masks_by_both(asked, tmp_path):
    out = tmp_path / "out"
    printed = invoke("compare", "poor", "good", "--data", tmp_path / "scans", "--report", out)
    assert [one["bundle"] for one in asked] == ["poor", "good"]
    assert all(one["cases"] == [f"case{n:02}" for n in range(5)] for one in asked)
    assert "B better" not in printed  # four patients are too few for an interval
    document = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert document["figures"]["sensitivity"]["difference"]["value"] == pytest.approx(2 / 7, abs=1e-6)
    assert document["figures"]["sensitivity"]["difference"]["patients"] == 4
    assert (out / "comparison.html").exists()


def test_a_case_that_is_not_there_is_an_error(asked, tmp_path):
    with pytest.raises(ConfigurationError, match="no case case77"):
        invoke("evaluate", "good", "--data", tmp_path / "scans", "--case", "case77")
    with pytest.raises(ConfigurationError, match="nothing to compare"):
        invoke("compare", "good", "poor", "--data", tmp_path / "scans", "--case", "case05")
    assert asked == []
