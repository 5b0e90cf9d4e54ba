import re
from datetime import datetime, time
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from msnode.errors import ConfigurationError
from msnode.routing.file import read_rules
from msnode.routing.rules import CallingAe, Geometry, LocalTime, Rule, Shape, StudyFacts, Tag, decide
from support.environment import ROOT

EXAMPLES = ROOT / "config" / "routing"
THERE = ("pacs", "research", "er-workstation")

EVERYTHING = """
[[rules]]
name = "all of it"
read = true
bundle = "other@1.0.0"
preset = "best"
priority = "stat"
destinations = ["research", "pacs"]
[rules.when]
geometry = { plane = "oblique", acquisition = "3d", min_slices = 9, max_slice_distance_mm = 2 }
tags = { StationName = "MR1", "00081010" = ["a", "b"], "0019100C" = "7" }
time = { hours = "22:00-06:30", weekdays = ["fri", "sat"] }
calling_ae = "ER"

[[rules]]
name = "the rest"
read = false
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "routing.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, **context) -> str:
    path = written(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        read_rules(path, THERE, **context)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_every_key_becomes_part_of_its_rule_cheap_conditions_first(tmp_path):
    assert read_rules(written(tmp_path, EVERYTHING), THERE) == (
        Rule(
            "all of it",
            (
                CallingAe(("ER",)),
                LocalTime((time(22), time(6, 30)), frozenset({4, 5})),
                Tag("StationName", ("MR1",)),
                Tag("00081010", ("a", "b")),
                Tag("0019100C", ("7",)),
                Shape("oblique", "3d", 9, None, 2),
            ),
            read=True,
            bundle="other@1.0.0",
            preset="best",
            urgent=True,
            destinations=("research", "pacs"),
        ),
        Rule("the rest", read=False),
    )


def test_a_file_without_rules_has_none(tmp_path):
    assert read_rules(written(tmp_path, "# nothing\n"), ()) == ()


HEAD = '[[rules]]\nname = "a"\n'
WHEN = HEAD + "[rules.when]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rule]]\n", "line 1: rule: unknown key"),
        ("rules = 3\n", "line 1: rules: each rule is a table of its own, [[rules]]"),
        ("[[rules]]\nread = false\n", "line 1: rules.1.name: Field required"),
        ('\n[[rules]]\nname = " a"\n', "line 3: rules.1.name: String should match pattern"),
        (HEAD + 'preset = "slow"\n', "line 3: rules.1.preset: Input should be 'fast', 'standard' or 'best'"),
        (HEAD + 'priority = "high"\n', "line 3: rules.1.priority: Input should be 'stat' or 'routine'"),
        (HEAD + 'read = "no"\n', "line 3: rules.1.read: Input should be a valid boolean"),
        (HEAD + "destinations = []\n", "line 3: rules.1.destinations: .* at least 1 item"),
        (
            HEAD + 'destinations = ["pacs", "pax"]\n',
            "line 3: rules.1.destinations: no destination 'pax' is configured; there is: er-wo",
        ),
        (HEAD + "\n[rules.wenn]\n", "line 4: rules.1.wenn: unknown key"),
        (WHEN + "colour = 1\n", "line 4: rules.1.when.colour: unknown key"),
        (WHEN + 'calling_ae = ["ER", "ABCDEFGHIJKLMNOPQ"]\n', "line 4: rules.1.when.calling_ae.2: .*16"),
        (WHEN + 'tags = { Prioritaet = "1" }\n', "line 4: rules.1.when.tags: Prioritaet is neither a"),
        (WHEN + "tags = { PatientName = 1 }\n", "line 4: .*valid string"),
        (WHEN + 'tags = { AnatomicRegionSequence = "1" }\n', "line 4: .*AnatomicRegionSequence is a seq"),
        (WHEN + 'geometry = { plane = "tra" }\n', "line 4: rules.1.when.geometry.plane: .*'axial'"),
        (
            HEAD + "[rules.when.geometry]\nmax_slice_distance_mm = 1\nmin_slice_distance_mm = 2\n",
            "line 5: rules.1.when.geometry.min_slice_distance_mm: 2 is more than the greatest, 1",
        ),
        (WHEN + 'time = { hours = "22-6" }\n', 'line 4: rules.1.when.time.hours: hours are "HH:MM-HH:MM"'),
        (WHEN + 'time.hours = "22:00-24:00"\n', "line 4: .*from 00:00 to 23:59"),
        (WHEN + 'time.hours = "06:00-06:00"\n', "line 4: .*begin and end are the same"),
        (WHEN + 'time.weekdays = "friday"\n', "line 4: rules.1.when.time.weekdays.1: Input should be 'mon'"),
        (HEAD + 'read = false\npreset = "best"\n', "line 4: rules.1.preset: a study that is not read"),
        (
            HEAD + '[[rules]]\nname = "b"\n',
            "line 3: rules.2: can never be reached: the rule 'a' before it has no condition",
        ),
        (
            WHEN + 'calling_ae = "X"\n[[rules]]\nname = "a"\n',
            "line 6: rules.2.name: an earlier rule is named 'a' too",
        ),
        ("[[rules]\n", "not TOML: .*line 1"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_line(tmp_path, text, says):
    assert re.match(says.replace("[[", r"\[\["), problems(tmp_path, text))


def test_everything_that_is_wrong_is_said_at_once_in_order(tmp_path):
    text = (
        "# comment\n"
        '[[rules]]\nname = "first"\ndestinations = ["nowhere"]\nbundle = "lost"\n'
        '[rules.when]\ncalling_ae = ["A",\n  "B"]\ntimes = {}\n\n'
        '[[rules]]\nname = "first"\n\n'
        '[[rules]]\nname = "last"\npreset = "slow"\n'
    )
    said = problems(tmp_path, text, bundle_problem=lambda name: f"no bundle {name!r}")
    assert [line.split(":")[:2] for line in said.split("; ") if line.startswith("line")] == [
        ["line 4", " rules.1.destinations"],
        ["line 5", " rules.1.bundle"],
        ["line 9", " rules.1.when.times"],
        ["line 12", " rules.2.name"],
        ["line 14", " rules.3"],
        ["line 16", " rules.3.preset"],
    ]
    assert "no bundle 'lost'" in said


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent\.toml: No such file"):
        read_rules(tmp_path / "absent.toml", ())


def test_the_commented_file_has_no_rule_and_shows_every_key(tmp_path):
    template = (ROOT / "config" / "routing.toml").read_text()
    assert read_rules(ROOT / "config" / "routing.toml", ()) == ()
    shown = re.findall(r"^# (\[.*|[a-z_]+ = .*)$", template, re.MULTILINE)
    (rule,) = read_rules(written(tmp_path, "\n".join(shown)), THERE)
    assert None not in vars(rule).values()
    assert rule.urgent
    assert [type(each) for each in rule.when] == [CallingAe, LocalTime, Tag, Tag, Shape]
    assert None not in vars(rule.when[-1]).values()
    assert rule.when[1].hours is not None
    assert rule.when[1].weekdays


def facts(aes="MR1", at="2026-11-20T12:00", geometry=None, **tags):
    header = Dataset()
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    moment = datetime.fromisoformat(at).astimezone()
    return StudyFacts(frozenset({aes}), moment, lambda: [header], lambda: geometry)


AXIAL = Geometry("axial", "2d", 24, 5.0)
THIN = Geometry("axial", "3d", 160, 1.0)
SAGITTAL = Geometry("sagittal", "3d", 176, 1.0)

SAYS = [
    ("ms-clinic", facts("MS-CLINIC"), "clinic", True, "best", False, ("pacs",)),
    (
        "ms-clinic", facts("MS-CLINIC", BodyPartExamined="CSPINE"), "clinic, not the brain",
        False, None, False, None,
    ),
    ("ms-clinic", facts("MR1"), "everybody else", False, None, False, None),
    ("emergency", facts("STROKE-MR"), "emergency scanner", None, "fast", True, ("pacs", "er-workstation")),
    (
        "emergency", facts("MR1", RequestedProcedurePriority="STAT"), "ordered as urgent",
        None, None, True, ("pacs",),
    ),
    ("emergency", facts("MR1"), "routine", None, None, False, ("pacs",)),
    ("two-scanners", facts(geometry=SAGITTAL), "sagittal 3D", None, "best", False, ("research",)),
    (
        "two-scanners", facts(geometry=THIN, StationName="MRT2"), "thin slices of the other scanner",
        None, None, False, ("research",),
    ),
    ("two-scanners", facts(geometry=AXIAL), "clinical protocol", None, None, False, ("pacs",)),
    ("two-scanners", facts(), "clinical protocol", None, None, False, ("pacs",)),
    (
        "research-at-night", facts("RESEARCH", "2026-11-20T23:00"), "research at night",
        None, "best", False, ("research",),
    ),
    (
        "research-at-night", facts("RESEARCH", "2026-11-21T12:00"), "research at the weekend",
        None, "best", False, ("research",),
    ),
    ("research-at-night", facts("RESEARCH"), "research by day", False, None, False, None),
    ("research-at-night", facts("MR1", "2026-11-20T23:00"), "clinic", None, None, False, ("pacs",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("example", "study", "says"),
    [(example, study, says) for example, study, *says in SAYS],
    ids=[f"{s[0]}: {s[2]}-{n}" for n, s in enumerate(SAYS)],
)
def test_the_examples_of_sites_do_what_they_say(example, study, says):
    found = decide(read_rules(EXAMPLES / f"{example}.toml", THERE), study).rule
    assert found is not None
    assert [found.name, found.read, found.preset, found.urgent, found.destinations] == says


def test_every_rule_of_every_example_is_tried_above():
    written_there = {
        (path.stem, rule.name) for path in EXAMPLES.glob("*.toml") for rule in read_rules(path, THERE)
    }
    assert written_there == {(says[0], says[2]) for says in SAYS}


def test_the_examples_name_the_destinations_that_they_need():
    for path in EXAMPLES.glob("*.toml"):
        needed = {name for rule in read_rules(path, THERE) for name in rule.destinations or ()}
        head = path.read_text().split("[[rules]]")[0].replace("\n# ", " ")
        assert needed == set(re.findall('"([a-z-]+)"', head.partition("Needs")[2])), path.name
