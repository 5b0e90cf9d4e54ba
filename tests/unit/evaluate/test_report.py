"""The report: complete, self-contained, honest about what was seen in training."""

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from msnode.errors import ConfigurationError
from msnode.evaluate import plots
from msnode.evaluate.compare import compare
from msnode.evaluate.evaluation import evaluate_cases
from msnode.evaluate.report import write_report
from msnode.evaluate.report_comparison import write_comparison
from unit.evaluate.scans import about, result

VOID = {"meta", "img", "br"}
LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}


class Page(HTMLParser):
    """Checks that tags close in order; gathers what the page would load, its text and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.text, self.alternatives = [], [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in LOADING]
        self.alternatives += [dict(attributes).get("alt")] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "new"
    write_report(evaluation, out)
    return out


def page(out, name="report.html"):
    return Page((out / name).read_text(encoding="utf-8"))


def test_the_ceiling_is_shown(written):
    assert "Ceiling" in page(written).text
    document = json.loads((written / "report.json").read_text())
    assert document["ceilings"][0]["scans"] == 6
    assert document["cases"]["case00"]["ceiling"]["lesion_f1"] == pytest.approx(12 / 13, abs=1e-5)


def test_the_page_loads_nothing(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    found = page(written)
    assert found.loads
    assert all(value.startswith("data:image/") for value in found.loads)
    assert "url(" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert "http" not in re.sub(r'"data:[^"]*"', "", text)
    for value in found.loads:
        kind, content = value.split(",", 1)
        if "svg" in kind:
            links = re.findall(r'(?:href|src)="([^"]*)"', base64.b64decode(content).decode())
            assert all(link.startswith(("#", "data:")) for link in links)


def test_every_part_is_there(written):
    found = page(written)
    headings = (
        "Voxel level", "Lesion level", "Slice level", "Lesion volume", "Confidence", "Scans", "Best: ",
        "Median: ", "Worst: ", "case06: no expert's mask, 2 lesions found", "Training",
    )  # fmt: skip
    for heading in headings:
        assert heading in found.text
    # threshold curves, volumes, reliability, three cases, one without a mask, losses
    assert len(found.loads) == 8
    assert all(found.alternatives)
    assert "seen in training" not in found.text


def test_figures_on_the_page_are_those_of_the_json(written, evaluation):
    document = json.loads((written / "report.json").read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(evaluation.to_json()))
    dice = document["voxel_level"]["dice"]
    shown = f"{dice['value']:.3f} ({dice['low']:.3f} to {dice['high']:.3f})"
    assert shown in page(written).text


def test_the_same_evaluation_gives_the_same_bytes(written, evaluation, tmp_path):
    write_report(evaluation, tmp_path)
    for name in ("report.html", "report.json"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_patients_seen_in_training_raise_a_warning(tmp_path):
    write_report(
        evaluate_cases([result(n, held_out=False) for n in range(2)], about(mode="ensemble")), tmp_path
    )
    text = page(tmp_path).text
    assert "trained on these patients: case00, case01" in text
    assert "the whole ensemble" in text


@pytest.mark.parametrize(
    "scans",
    [
        [result(0, truth=None, found=())],
        [result(0, truth=(), found=())],
        [result(0, found=(), confidence=None), result(1, truth=())],
    ],
    ids=["no mask, nothing found", "all empty", "one side empty"],
)
def test_odd_sets_of_scans_make_a_report_too(scans, tmp_path):
    write_report(evaluate_cases(scans, about()), tmp_path)
    assert page(tmp_path).text


def test_names_are_never_markup(tmp_path):
    evaluation = evaluate_cases(
        [result(0, patient="<b>p</b>")], about(bundle="<script>x</script> 1", data="a&b")
    )
    write_report(evaluation, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "<b>p</b>" not in text
    assert "a&amp;b" in text


def test_two_bundles_side_by_side(evaluation, tmp_path):
    better = evaluate_cases([result(n) for n in range(6)], about("better 2.0.0"))
    write_comparison(compare(evaluation, better), tmp_path)
    found = page(tmp_path, "comparison.html")
    assert all(value.startswith("data:image/") for value in found.loads)
    assert len(found.loads) == 2
    assert "A: node 1.0.0" in found.text
    assert "B: better 2.0.0" in found.text
    assert "B better" in found.text
    assert "A better" not in found.text.replace("orange: A better", "")
    document = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert document["figures"]["false_positives"]["difference"]["value"] == -0.5


def test_figures_are_svg_and_slices_png(evaluation):
    assert plots.slices(evaluation.cases[0].pictures).startswith(b"\x89PNG")
    assert b"<svg" in plots.threshold_curves(evaluation.slices)


def test_without_matplotlib_the_error_says_what_to_install(evaluation, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigurationError, match=r"install msnode\[train\]"):
        write_report(evaluation, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_importing_the_evaluation_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, msnode.evaluate.report, msnode.evaluate.report_comparison\n"
        "print(sorted({'torch', 'matplotlib', 'nnunetv2', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
