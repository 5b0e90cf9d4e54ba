import json

import pytest
from typer.testing import CliRunner

from msnode.cli import app, config_check, serve
from msnode.errors import ConfigurationError, NotReadable
from support.dicom_files import flair_series
from support.heads import study_of

SETTINGS = """
[model]
preset = "fast"
[[destinations]]
name = "pacs"
type = "folder"
path = "/srv/pacs"
[[destinations]]
name = "ward"
type = "folder"
path = "/srv/ward"
"""
RULES = """
[[rules]]
name = "nights"
read = false
[rules.when]
calling_ae = "ER-MR"
time = { hours = "22:00-06:00", weekdays = "fri" }

[[rules]]
name = "emergency"
priority = "stat"
destinations = ["ward"]
[rules.when]
calling_ae = "ER-MR"
tags = { PatientName = "Doe^Jane" }
"""


@pytest.fixture
def run(tmp_path):
    """`config test-route` on a study of FLAIR and T1 under two rules."""
    (tmp_path / "msnode.toml").write_text(SETTINGS)
    (tmp_path / "routing.toml").write_text(RULES)
    small = {"slices": 12, "rows": 16, "columns": 16}
    flair_series(tmp_path / "in", **small)
    flair_series(tmp_path / "in" / "t1", description="Ax T1", series_number=5, **small)

    def run(*options, folder=tmp_path / "in"):
        command = ["config", "test-route", str(folder), "--config", str(tmp_path / "msnode.toml"), *options]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    return run


def test_it_says_which_rule_and_series_and_why_no_other(run, tmp_path):
    said = run("--calling-ae", "ER-MR", "--at", "2026-11-20T12:30").splitlines()
    assert said[0] == "sent by ER-MR, complete at 2026-11-20 12:30 (Friday)"
    assert said[1:5] == [
        f"study {study_of(tmp_path / 'in' / '0301-0001.dcm')}",
        "  rule 'nights' does not match: it was complete at 12:30, outside 22:00-06:00",
        "  rule 'emergency' matches",
        "  read",
    ]
    assert sum("chosen: FLAIR by description (flair); 2D axial, 12 slices" in line for line in said) == 1
    assert sum("not chosen: another contrast: 't1' in its description" in line for line in said) == 1
    assert said[-2:] == [
        "  bundle msnode-flair2d, preset fast, priority stat",
        "  destinations: ward",
    ]


def test_it_says_that_nothing_would_be_read(run):
    said = run("--calling-ae", "ER-MR", "--at", "2026-11-21T05:59")
    assert "  rule 'nights' matches\n  passed over: the rule says that it is not to be read\n" in said
    assert "destinations" not in said


def test_it_names_no_patient(run):
    for options in ([], ["--calling-ae", "ER-MR", "--at", "2026-11-20T12:30"]):
        for form in ([], ["--json"]):
            assert "Jane" not in run(*options, *form)


def test_programs_read_the_same(run):
    (study,) = json.loads(run("--json"))
    assert study["rule"] is None
    assert [(m["rule"], m["why"]) for m in study["missed"]] == [
        (name, 'it was sent by an AE title that is not known, not by "ER-MR"')
        for name in ("nights", "emergency")
    ]
    assert (study["preset"], study["priority"], study["destinations"]) == (
        "fast",
        "routine",
        ["pacs", "ward"],
    )
    assert len(study["passed_over"]) == 1


def test_a_moment_that_is_none_is_misuse(run):
    with pytest.raises(ConfigurationError, match=r"--at tonight: give a local time such as 2026-11-21T23:10"):
        run("--at", "tonight")


def test_a_folder_without_dicom_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotReadable, match="no DICOM file among the 0 files"):
        run(folder=tmp_path / "empty")


def test_check_names_the_rules_and_what_is_wrong_in_them(run, tmp_path):
    command = ["config", "check", "--config", str(tmp_path / "msnode.toml")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert f"routing: {tmp_path}/routing.toml; rules: nights, emergency" in done.stdout
    (tmp_path / "routing.toml").write_text(RULES.replace('["ward"]', '["wart"]\nbundle = "lost"'))
    with pytest.raises(ConfigurationError) as caught:
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert "line 12: rules.2.destinations: no destination 'wart'" in str(caught.value)
    assert "line 13: rules.2.bundle: no bundle 'lost'; there is: msnode-flair2d@" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('[model]\nbundle = "foo"', "model.bundle: no bundle 'foo'"),
        ('[receive]\nalso_accept = ["Foo"]', "also_accept"),
    ],
)
def test_check_refuses_what_serve_would_refuse(tmp_path, setting, says):
    path = tmp_path / "msnode.toml"
    path.write_text(f"{setting}\n")
    with pytest.raises(ConfigurationError, match=says):
        config_check.check(path)


def test_a_number_of_a_process_needs_its_role(tmp_path):
    with pytest.raises(ConfigurationError, match="--instance numbers one process: give --role too"):
        serve.serve(tmp_path / "msnode.toml", None, 3)
