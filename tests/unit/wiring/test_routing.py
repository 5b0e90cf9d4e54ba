"""The routing rules of the settings: checked, and applied to the studies in a folder."""

from datetime import UTC, datetime

import pytest
from pydicom import dcmread

from msnode.errors import ConfigurationError
from msnode.services.explain_routing import explain_folder
from msnode.settings import Settings
from msnode.wiring.routing import check_routing, routing_defaults, selection_rules
from support.dicom_files import change, flair_series
from support.heads import study_of
from support.site_rules import RULES, settings_with

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SMALL = {"slices": 12, "rows": 16, "columns": 16}


def test_bundles_of_rules_have_to_be_there(tmp_path):
    with pytest.raises(ConfigurationError, match=r"line 12: rules\.2\.bundle: no bundle 'other'"):
        check_routing(settings_with(tmp_path))
    assert len(check_routing(settings_with(tmp_path, BUILT_IN))) == 3
    nowhere = RULES.replace('"other"', f'"{tmp_path}/absent"')
    with pytest.raises(ConfigurationError, match=r"line 12: .*there is no folder"):
        check_routing(settings_with(tmp_path, nowhere))
    assert check_routing(Settings()) == ()


BUILT_IN = RULES.replace('"other"', '"msnode-flair2d"')


def explained(folder, *aes, rules=BUILT_IN):
    settings = settings_with(folder, rules)
    return explain_folder(
        folder / "in", check_routing(settings), selection_rules(settings), routing_defaults(settings),
        calling_aes=frozenset(aes), at=NOON,
    )  # fmt: skip


def test_a_folder_of_several_studies_is_explained_study_by_study(tmp_path):
    stat = flair_series(tmp_path / "in" / "a", study="1", RequestedProcedurePriority="STAT", **SMALL)
    flair_series(tmp_path / "in" / "a" / "t1", study="1", description="Ax T1", series_number=5, **SMALL)
    flair_series(tmp_path / "in" / "b", study="2", **SMALL)
    by_uid = {each.study_instance_uid: each for each in explained(tmp_path, "ER")}
    urgent = by_uid.pop(study_of(stat[0]))
    (usual,) = by_uid.values()
    assert (urgent.rule, urgent.outcome, urgent.reads) == ("urgent", "read", True)
    assert urgent.series.series_instance_uid == dcmread(stat[0]).SeriesInstanceUID
    assert "FLAIR by description" in urgent.series.reason
    assert ["another contrast" in each.reason for each in urgent.passed_over] == [True]
    assert (urgent.bundle, urgent.preset, urgent.priority) == ("msnode-flair2d", "fast", "stat")
    assert urgent.destinations == ("research",)
    assert [missed.rule for missed in urgent.missed] == ["sagittal 3D"]
    assert urgent.missed[0].why == "of the series that would be read: axial, not sagittal"
    assert (usual.rule, len(usual.missed), usual.outcome) == (None, 3, "read")
    assert (usual.preset, usual.priority, usual.destinations) == ("standard", "routine", ("pacs", "research"))


@pytest.mark.parametrize(
    ("rules", "reads", "outcome"),
    [
        ("", False, "passed over in silence: no FLAIR series can be read"),
        ('[[rules]]\nname = "a"\nread = true\n', True, "rejected, which a report says: no FLAIR series"),
        ('[[rules]]\nname = "a"\nread = false\n', False, "passed over: the rule says"),
    ],
)
def test_what_becomes_of_a_study_without_a_flair(tmp_path, rules, reads, outcome):
    flair_series(tmp_path / "in", description="Ax T1", **SMALL)
    (each,) = explained(tmp_path, rules=rules)
    assert (each.reads, each.series) == (reads, None)
    assert each.outcome.startswith(outcome)


def test_remarks_on_files_and_on_the_choice_are_explained(tmp_path):
    files = flair_series(tmp_path / "in", **SMALL)
    (tmp_path / "in" / "notes.txt").write_text("x")
    change(files[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    copy = tmp_path / "in" / "copy.dcm"
    copy.write_bytes(files[5].read_bytes())
    change(copy, SOPInstanceUID="1.2.3")
    (one,) = explained(tmp_path)
    assert one.remarks == (
        "1 of 14 files in the folder were left out: no DICOM files",
        "1 of 13 images of the series are put aside as no slices of it: Image Type LOCALIZER",
        "1 of 12 images of the series have the pixels and the place of another one",
    )


def test_the_choices_of_a_site_reach_the_selection():
    rules = selection_rules(Settings(selection={"after_contrast": True, "reformats": True}))
    assert (rules.after_contrast, rules.reformats) == (True, True)
    assert (selection_rules(Settings()).after_contrast, selection_rules(Settings()).reformats) == (
        False,
        False,
    )
