from pathlib import Path

import pytest
from pydicom import Dataset

from msnode.series.describe import describe
from msnode.series.volume import group_series, read_instance
from support.dicom_files import change, change_all, enhanced_flair, flair_series


def described(paths: list[Path]):
    (series,) = group_series(read_instance(path) for path in paths)
    return describe(series)


def test_a_series_in_the_terms_of_the_rules(tmp_path: Path) -> None:
    found = described(flair_series(tmp_path, slices=12, spacing=(4.0, 0.8, 0.5)))
    assert (found.is_mr_image, found.own, found.flair_word) == (True, False, "flair")
    assert (found.slice_count, found.slice_distance_mm, found.coverage_mm) == (
        12,
        pytest.approx(4),
        pytest.approx(48),
    )
    assert (found.plane, found.tilt_deg, found.orientation_count) == ("axial", pytest.approx(0), 1)
    assert found.pixel_mm == 0.8


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "coronal"])
def test_the_nearest_plane_is_named(tmp_path: Path, orientation: str) -> None:
    assert described(flair_series(tmp_path, slices=5, orientation=orientation)).plane == orientation


def test_slices_without_a_place_have_no_extent(tmp_path: Path) -> None:
    paths = flair_series(tmp_path, slices=5)
    change_all(paths, ImagePositionPatient=None)
    found = described(paths)
    assert (found.plane, found.slice_count) == ("unplaced", 5)
    assert found.coverage_mm is found.slice_distance_mm is None


def test_times_of_an_enhanced_image_come_from_functional_groups(tmp_path: Path) -> None:
    found = described([enhanced_flair(tmp_path / "e.dcm", slices=12)])
    assert found.is_mr_image
    assert found.slice_count == 12
    assert None not in (found.inversion_time_ms, found.echo_time_ms, found.repetition_time_ms)


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def enhanced(
    path: Path, *, frames: dict[int, Dataset] | None = None, top: dict | None = None, **shared: object
):
    """An Enhanced MR of 12 frames: functional groups of some frames, attributes at the top, shared groups."""

    def edit(ds: Dataset) -> None:
        for sequence, one in shared.items():
            setattr(ds.SharedFunctionalGroupsSequence[0], sequence, [one])
        for index, usage in (frames or {}).items():
            ds.PerFrameFunctionalGroupsSequence[index].ContrastBolusUsageSequence = [usage]
        for keyword, value in (top or {}).items():
            setattr(ds, keyword, value)

    return described([change(enhanced_flair(path, slices=12, rows=8, columns=8), edit)])


LARGEST = 1.7976931348623157e308


@pytest.mark.parametrize(
    ("times", "stated"),
    [
        ([0.0, LARGEST], None),
        ([LARGEST, 1650.0], 1650),
        ([0.0, 1650.0], 1650),
        ([-1.0], None),
        ([float("nan")], None),
        ([1650.0, 2500.0], 1650),
    ],
)
def test_inversion_times_that_hold_a_place_are_none(
    tmp_path: Path, times: list[float], stated: float
) -> None:
    modifier = item(InversionRecovery="YES", InversionTimes=times)
    assert enhanced(tmp_path / "e.dcm", MRModifierSequence=modifier).inversion_time_ms == stated


def test_a_time_that_the_functional_group_leaves_at_0_is_read_at_the_top(tmp_path: Path) -> None:
    found = enhanced(
        tmp_path / "e.dcm",
        MREchoSequence=item(EffectiveEchoTime=0.0),
        MRTimingAndRelatedParametersSequence=item(RepetitionTime=0.0),
        top={"EchoTime": 120, "RepetitionTime": 9000},
    )
    assert (found.echo_time_ms, found.repetition_time_ms) == (120, 9000)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("InversionTime", (0, -1, 99999, 2.5)),
        ("EchoTime", (0, -1, 99999)),
        ("RepetitionTime", (0, -1, 1e30)),
    ],
)
def test_numbers_that_no_sequence_has_are_not_stated(tmp_path: Path, keyword: str, values: tuple) -> None:
    paths = flair_series(tmp_path, slices=5, rows=8, columns=8)
    name = {"InversionTime": "inversion_time_ms", "EchoTime": "echo_time_ms"}.get(
        keyword, "repetition_time_ms"
    )
    for value in values:
        change_all(paths, **{keyword: str(value)})
        assert getattr(described(paths), name) is None


AGENT = item(
    CodeValue="716020005", CodingSchemeDesignator="SCT", CodeMeaning="Gadolinium", ContrastBolusAgentNumber=1
)
GIVEN, PLANNED = item(ContrastBolusAgentAdministered="YES"), item(ContrastBolusAgentAdministered="NO")


@pytest.mark.parametrize(
    ("groups", "frames", "says"),
    [
        ({}, {}, "Contrast/Bolus Agent is given"),
        ({"ContrastBolusUsageSequence": PLANNED}, {}, ""),
        ({"ContrastBolusUsageSequence": GIVEN}, {}, "Contrast/Bolus Agent is given"),
        (
            {"ContrastBolusUsageSequence": item(ContrastBolusAgentNumber=1)},
            {},
            "Contrast/Bolus Agent is given",
        ),
        ({}, dict.fromkeys(range(12), PLANNED), ""),
        ({"ContrastBolusUsageSequence": PLANNED}, {11: GIVEN}, "Contrast/Bolus Agent is given"),
    ],
)
def test_an_agent_that_was_not_administered_is_none(
    tmp_path: Path, groups: dict, frames: dict, says: str
) -> None:
    top = {"ContrastBolusAgentSequence": [AGENT]}
    assert enhanced(tmp_path / "e.dcm", frames=frames, top=top, **groups).post_contrast == says


@pytest.mark.parametrize("code", [item(), item(CodeMeaning="None"), item(CodeMeaning="No contrast")])
def test_a_code_that_names_no_agent_is_none(tmp_path: Path, code: Dataset) -> None:
    assert not enhanced(tmp_path / "e.dcm", top={"ContrastBolusAgentSequence": [code]}).post_contrast


def test_a_diffusion_weighting_of_0_is_none(tmp_path: Path) -> None:
    for weighting, says in ((0.0, ""), (LARGEST, ""), (1000.0, "b = 1000")):
        found = enhanced(tmp_path / "e.dcm", MRDiffusionSequence=item(DiffusionBValue=weighting))
        assert found.diffusion == says
