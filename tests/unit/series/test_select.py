"""The FLAIR rules: one row a case. To change a rule, change a row."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from msnode.domain.imaging import FLAIR, Instance, Selection, Series
from msnode.errors import AmbiguousSelection, NoEligibleSeries, NotReadable
from msnode.series.select import SelectionRules, select
from msnode.series.volume import group_series, read_instance
from support.dicom_files import enhanced_flair, flair_series
from support.environment import shared_data

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
NORMALS = {AXIAL: (0, 0, 1), SAGITTAL: (-1, 0, 0)}
FLAIR_TIMES = {"InversionTime": 2500, "EchoTime": 120, "RepetitionTime": 9000}


def made(
    description: str = "Ax T2 FLAIR",
    *,
    uid: str = "1.2.1",
    slices: int = 20,
    step: float = 6.0,
    orientation: tuple = AXIAL,
    **attributes: object,
) -> Series:
    """A series of headers; None deletes an attribute."""
    instances = []
    for k in range(slices):
        ds = Dataset()
        ds.SOPClassUID = MRImageStorage
        ds.SOPInstanceUID = f"{uid}.{k + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2", uid
        ds.Modality = "MR"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        ds.SeriesDescription = description
        ds.MRAcquisitionType = "2D" if step > 2 else "3D"
        ds.ImageOrientationPatient = list(orientation)
        ds.ImagePositionPatient = [n * k * step for n in NORMALS[orientation]]
        ds.PixelSpacing = [0.9, 0.9]
        for keyword, value in (FLAIR_TIMES | attributes).items():
            if value is not None:
                setattr(ds, keyword, value)
            elif keyword in ds:
                delattr(ds, keyword)
        instances.append(Instance(path=Path("unused"), digest="0" * 64, header=ds))
    return Series(series_instance_uid=uid, study_instance_uid="1.2", instances=tuple(instances))


def times(ti: float | None, te: float | None, tr: float | None) -> dict[str, object]:
    return {"InversionTime": ti, "EchoTime": te, "RepetitionTime": tr}


NO_TIMES = times(None, None, None)

TAKEN = [
    ("FLAIR", {}),
    ("t2_tirm_tra_dark-fluid", {}),
    ("t2_tirm_tra_dark-fluid_p2", times(2370, 93, 8000)),
    ("t2_space_dark-fluid_sag_p2_iso", times(1800, 387, 5000)),
    ("Ax T2 FLAIR", {}),
    ("AX FLAIR FS PROPELLER", {}),
    ("3D CUBE FLAIR", times(1700, 120, 6000)),
    ("Sag CUBE T2 FLAIR", times(1645, 400, 6500)),
    ("VISTA_FLAIR", times(1650, 386, 4800)),
    ("BrainVIEW FLAIR", times(1650, 340, 4800)),
    ("3D_FLAIR_SENSE", times(1660, 300, 4800)),
    ("T2W_FLAIR longTR", times(2800, 125, 11000)),
    ("FLAIR tra", times(None, 120, 9000)),
    ("FLAIR tra", times(None, None, None)),
    ("FLAIR tra", times(0, 120, 9000)),
    ("Ax FLAIR pre contrast", {}),
    ("FLAIR without contrast", {}),
    ("FLAIR w/o Gd", {}),
    ("FLAIR nativ", {}),
    ("Flair posterior fossa", {}),
    ("brain series 4", {}),
    ("", {}),
    ("tirm tra", times(2500, 120, 9000)),
    ("hyperfine", times(1400, 194, 4000)),
    ("FLAIR", {"BodyPartExamined": "HEAD"}),
    ("FLAIR", {"BodyPartExamined": "Brain"}),
    ("FLAIR", {"ContrastBolusAgent": ""}),
    ("", {"ProtocolName": "AX FLAIR", **NO_TIMES}),
    ("FLAIR", {"ProtocolName": "BRAIN W/WO CONTRAST"}),
    ("FLAIR brain and cervical spine", {}),
    ("Ax T2 FLAIR brain", {"BodyPartExamined": "CSPINE"}),
    ("Ax T2 FLAIR orbits", {"BodyPartExamined": "HEAD"}),
    ("Orbit trial FLAIR", {"StudyDescription": "MRI BRAIN"}),
]

NOT_ASKED_FOR = [
    ("t1_mprage_sag", times(900, 3, 2200), "another contrast"),
    ("Sag T1 FLAIR", times(860, 24, 2400), "another contrast"),
    ("t1_tirm_tra_dark-fluid", times(860, 12, 2000), "another contrast"),
    ("T2 TSE tra", times(None, 100, 5000), "TI missing"),
    ("PD TSE tra", times(None, 12, 3000), "TI missing"),
    ("STIR cor", times(160, 60, 5000), "another contrast"),
    ("tirm cor", times(160, 60, 5000), "TI 160 ms"),
    ("SPACE DIR", times(2950, 300, 7500), "another contrast"),
    ("SWI", times(None, 20, 30), "not a FLAIR"),
    ("pd_fse", times(2500, 20, 9000), "TE 20 ms"),
    ("fast ir", times(2500, 120, 2000), "TR 2000 ms"),
    ("FLAIR", {"Modality": "CT", "SOPClassUID": CTImageStorage}, "Modality CT"),
    ("MS AI OVERLAY FLAIR", {"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage}, "Modality OT"),
    ("FLAIR report", {"Modality": "SR", "SOPClassUID": ComprehensiveSRStorage}, "Modality SR"),
    ("FLAIR", {"Modality": "MR", "SOPClassUID": SecondaryCaptureImageStorage}, "not an MR image"),
    ("FLAIR C-spine", {}, "not a head"),
    ("FLAIR", {"BodyPartExamined": "KNEE"}, "not a head: Body Part Examined KNEE"),
    ("T2 FLAIR orbits", {}, "not a head"),
    ("FLAIR C-spine", {"StudyDescription": "MRI BRAIN AND CERVICAL SPINE"}, "not a head"),
    ("FLAIR", {"BodyPartExamined": "CSPINE", "StudyDescription": "MRI BRAIN"}, "Body Part Examined CSPINE"),
]

ASKED_FOR_BUT_NOT_READABLE = [
    ("FLAIR localizer", {}, "a localiser"),
    ("FLAIR", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser: Image Type LOCALIZER"),
    ("scout flair", {}, "a localiser"),
    ("FLAIR survey", {}, "a localiser"),
    ("FLAIR MPR tra", {}, "derived images: 'mpr' in its description"),
    ("FLAIR", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "derived images: Image Type DERIVED"),
    ("FLAIR_MIP", {}, "derived images"),
    ("FLAIR subtraction", {}, "derived images"),
    ("Synthetic T2 FLAIR", {}, "derived images"),
    ("FLAIR +C", {}, "after contrast agent"),
    ("Ax T2 FLAIR POST", {}, "after contrast agent"),
    ("FLAIR_post_Gd", {}, "after contrast agent"),
    ("tra FLAIR KM", {}, "after contrast agent"),
    ("FLAIR CE", {}, "after contrast agent"),
    ("FLAIR gadovist", {}, "after contrast agent"),
    ("FLAIR", {"ContrastBolusAgent": "Gadovist"}, "Contrast/Bolus Agent is given"),
    ("ep2d_diff FLAIR", {}, "diffusion"),
    ("FLAIR trace", {"DiffusionBValue": 1000.0}, "b = 1000"),
    ("FLAIR", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "not a magnitude image"),
    ("FLAIR", times(860, 120, 9000), "named FLAIR, but TI 860 ms"),
    ("FLAIR", times(2500, 30, 9000), "named FLAIR, but TE 30 ms"),
    ("FLAIR", times(2500, 120, 600), "named FLAIR, but TR 600 ms"),
]


@pytest.mark.parametrize(("description", "attributes"), TAKEN)
def test_a_flair_is_taken(description: str, attributes: dict) -> None:
    series = made(description, **attributes)
    selection = select([series])
    assert selection.refusal is None
    assert selection.series[FLAIR] is series
    assert selection.reason.startswith("FLAIR by ")
    assert selection.asked_for
    assert selection.passed_over == ()


@pytest.mark.parametrize(("description", "attributes", "says"), NOT_ASKED_FOR)
def test_what_is_no_flair_of_a_head_is_merely_passed_over(
    description: str, attributes: dict, says: str
) -> None:
    selection = select([made(description, **attributes)])
    (passed,) = selection.passed_over
    assert says in passed.reason
    assert isinstance(selection.refusal, NoEligibleSeries)
    assert not selection.asked_for
    assert selection.series == {}


@pytest.mark.parametrize(("description", "attributes", "says"), ASKED_FOR_BUT_NOT_READABLE)
def test_a_flair_that_cannot_be_read_is_answered(description: str, attributes: dict, says: str) -> None:
    selection = select([made(description, **attributes)])
    (passed,) = selection.passed_over
    assert says in passed.reason
    assert isinstance(selection.refusal, NoEligibleSeries)
    assert says in str(selection.refusal)
    assert selection.asked_for


def test_too_few_slices_and_too_little_coverage_are_answered() -> None:
    assert "too few slices: 1, at least 5" in select([made(slices=1)]).reason
    assert "slices cover 20 mm, at least 40" in select([made(slices=20, step=1.0)]).reason
    assert select([made(slices=1)]).asked_for


@pytest.mark.parametrize("description", ["FLAIR brain/orbits", "FLAIR C-spine", "FLAIR pituitary"])
def test_a_second_region_needs_a_stack_that_shows_the_whole_head(description: str) -> None:
    thin = select([made(description, slices=16, step=3.0, BodyPartExamined="HEAD")])
    assert "slices cover 48 mm, at least 90 are needed to show the whole head" in thin.reason
    assert thin.asked_for


def test_mixed_orientations_are_answered() -> None:
    one, other = made(slices=10), made(slices=10, orientation=SAGITTAL)
    mixed = Series("1.2.1", "1.2", one.instances + other.instances)
    assert "2 orientations" in select([mixed]).reason


def test_our_own_objects_never_count() -> None:
    item = Dataset()
    item.Manufacturer = "msnode"
    selection = select([made("FLAIR", ContributingEquipmentSequence=[item])])
    assert selection.passed_over[0].reason == "made by this node"
    assert not selection.asked_for


def chosen(*series: Series) -> Selection:
    forwards, backwards = select(series), select(series[::-1])
    assert dict(forwards.series) == dict(backwards.series)
    assert {p.series_instance_uid for p in forwards.passed_over} == {
        p.series_instance_uid for p in backwards.passed_over
    }
    return forwards


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        ({}, {"slices": 180, "step": 1.0, "orientation": SAGITTAL}, "acquisition and plane"),
        ({"slices": 180, "step": 1.0, "orientation": SAGITTAL}, {"orientation": SAGITTAL}, "acquisition"),
        ({"slices": 24}, {"slices": 20}, "number of slices"),
        ({"PixelSpacing": [0.5, 0.5]}, {}, "pixel size"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]}, {}, "corrections"),
        ({}, {"SeriesDescription": "FLAIR brain/orbits", "PixelSpacing": [0.5, 0.5]}, "no second region"),
        ({}, {"SeriesDescription": "ORIG FLAIR"}, "corrections"),
        ({"SeriesDescription": "FLAIR repeat"}, {}, "being a repetition"),
    ],
)
def test_preference(better: dict, worse: dict, why: str) -> None:
    first, second = made("FLAIR", uid="1.2.9", **better), made("FLAIR", uid="1.2.5", **worse)
    selection = chosen(first, second)
    assert selection.series[FLAIR] is first
    (passed,) = selection.passed_over
    assert passed.series_instance_uid == "1.2.5"
    assert why in passed.reason


def test_the_order_of_kinds_is_a_rule() -> None:
    axial, sagittal = made(uid="1.2.1"), made(uid="1.2.2", orientation=SAGITTAL)
    volume = made(uid="1.2.3", slices=180, step=1.0, orientation=SAGITTAL)
    study = [axial, sagittal, volume]
    for prefer, best in (
        (("axial-2d", "3d", "other-2d"), axial),
        (("3d", "axial-2d", "other-2d"), volume),
        (("other-2d",), sagittal),
    ):
        assert select(study, SelectionRules(prefer=prefer)).series[FLAIR] is best


EIGHT = [
    (
        "AAHead_Scout_MPR_tra",
        {"slices": 5, "ImageType": ["DERIVED", "PRIMARY", "MPR"], **times(None, 1.4, 3)},
    ),
    ("t1_tirm_tra_dark-fluid", times(860, 12, 2000)),
    ("t2_tse_tra_512", times(None, 108, 6000)),
    ("ep2d_diff_4scan_trace_p2_ADC", {"ImageType": ["DERIVED", "PRIMARY", "ADC"], **times(None, 89, 5500)}),
    ("t2_space_dir_sag_iso", {"slices": 60, "step": 1.2, "orientation": SAGITTAL, **times(3000, 319, 7500)}),
    ("t2_tirm_tra_dark-fluid", {}),
    ("t2_tirm_tra_dark-fluid nach KM", {}),
    ("t2_space_dark-fluid_tra_MPR", {"slices": 40, "step": 3.0}),
]
"""A study of Siemens protocol names; the sixth is the right one."""


def test_one_of_eight_mixed_series_is_the_right_one() -> None:
    study = [made(name, uid=f"1.2.{k}", **what) for k, (name, what) in enumerate(EIGHT)]
    selection = chosen(*study)
    assert selection.series[FLAIR] is study[5]
    assert selection.reason.startswith("FLAIR by description (dark fluid); 2D axial")
    reasons = {p.series_instance_uid: p.reason for p in selection.passed_over}
    for k, says in {
        0: "not a FLAIR",
        1: "another contrast: 't1'",
        2: "TI missing",
        3: "not a FLAIR",
        4: "another contrast: 'dir'",
        6: "after contrast agent: 'km'",
        7: "derived images: 'mpr'",
    }.items():
        assert says in reasons[f"1.2.{k}"]


def test_a_true_tie_is_refused() -> None:
    selection = chosen(made(uid="1.2.3"), made(uid="1.2.4"), made(uid="1.2.5", slices=10))
    assert isinstance(selection.refusal, AmbiguousSelection)
    assert selection.asked_for
    assert len(selection.passed_over) == 3


def test_every_series_not_taken_has_a_reason() -> None:
    study = [
        made("localizer", uid="1.2.10", slices=3, **times(None, 5, 20)),
        made("Ax T2 FLAIR", uid="1.2.11"),
        made("Ax T2 FLAIR +C", uid="1.2.12"),
        made("FLAIR MPR", uid="1.2.13"),
        made("T1 mprage", uid="1.2.14", **times(900, 3, 2200)),
    ]
    selection = chosen(*study)
    assert selection.series[FLAIR].series_instance_uid == "1.2.11"
    assert {p.series_instance_uid for p in selection.passed_over} == {f"1.2.1{k}" for k in (0, 2, 3, 4)}
    assert all(p.reason for p in selection.passed_over)


EXAM = {"SeriesDescription": "", "ProtocolName": "MS BRAIN T2 FLAIR"}
T2 = {"uid": "1.2.2", "slices": 40, "step": 3.0, **times(None, 100, 4500)}


@pytest.mark.parametrize("name", [EXAM, {"SeriesDescription": "MS BRAIN T2 FLAIR"}])
def test_a_flair_by_its_numbers_beats_one_by_the_name_of_the_examination(name: dict) -> None:
    flair, t2 = made(uid="1.2.1", **name), made(**T2, **name)
    selection = chosen(flair, t2)
    assert selection.series[FLAIR] is flair
    (passed,) = selection.passed_over
    assert "being a FLAIR by its numbers, not by the name of the examination" in passed.reason


def test_a_description_beats_the_name_of_the_examination() -> None:
    flair, other = made("Ax FLAIR", uid="1.2.1", **times(None, 120, 9000)), made(**T2, **EXAM)
    assert chosen(flair, other).series[FLAIR] is flair


def test_the_name_of_an_examination_denies_nothing() -> None:
    exam = {"SeriesDescription": "", "ProtocolName": "MS T1 FLAIR C-SPINE DWI +C SCOUT"}
    flair, t1 = made(uid="1.2.1", **exam), made(uid="1.2.2", **exam | times(None, 10, 500))
    assert chosen(flair, t1).series[FLAIR] is flair
    assert select([flair]).refusal is not None  # alone, the name is that of the series


def test_a_series_whose_images_were_refused_gives_way_to_the_next() -> None:
    best, next_best, third = made(uid="1.2.3", slices=30), made(uid="1.2.2", slices=25), made(uid="1.2.1")
    selection = select([best, next_best, third], refused={"1.2.3": "no brain was found"})
    assert selection.series[FLAIR] is next_best
    assert selection.remarks == ("another FLAIR was not read: no brain was found",)
    none = select([best], refused={"1.2.3": "no brain was found"})
    assert (none.series, none.asked_for, none.reason) == ({}, True, "no brain was found")


POST = [("FLAIR +C", {}), ("FLAIR", {"ContrastBolusAgent": "Gadovist"})]
REFORMATS = [
    ("FLAIR MPR tra", {"ImageType": ["DERIVED", "PRIMARY", "MPR", "NORM"]}),
    ("FLAIR", {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}),
    ("FLAIR", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
    ("3D FLAIR ref. axial", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
    ("FLAIR Axial Reformat", {"ImageType": ["DERIVED", "SECONDARY"]}),
]


@pytest.mark.parametrize(("description", "attributes"), POST)
def test_a_site_may_read_after_contrast_agent(description: str, attributes: dict) -> None:
    post = made(description, uid="1.2.1", slices=40, step=3.0, **attributes)
    assert select([post]).refusal is not None
    rules = SelectionRules(after_contrast=True)
    selection = select([post], rules)
    assert selection.series[FLAIR] is post
    (remark,) = selection.remarks
    assert remark.startswith("read after contrast agent (")
    native = made(uid="1.2.2")
    selection = select([post, native], rules)
    assert (selection.series[FLAIR], selection.remarks) == (native, ())
    assert "being free of contrast agent" in selection.passed_over[0].reason


@pytest.mark.parametrize(("description", "attributes"), REFORMATS)
def test_a_site_may_read_reformats(description: str, attributes: dict) -> None:
    reformat = made(description, uid="1.2.1", slices=50, step=3.0, **attributes)
    assert select([reformat]).refusal is not None
    rules = SelectionRules(reformats=True)
    selection = select([reformat], rules)
    assert selection.series[FLAIR] is reformat
    (remark,) = selection.remarks
    assert remark.startswith("read from reformatted images (")
    sagittal = made("Sag 3D FLAIR", uid="1.2.2", slices=176, step=1.0, orientation=SAGITTAL)
    selection = select([reformat, sagittal], rules)
    assert (selection.series[FLAIR], selection.remarks) == (sagittal, ())
    assert "being acquired, not reformatted" in selection.passed_over[0].reason


def test_of_several_reformats_the_axial_one_is_read() -> None:
    of_3d = {"step": 3.0, "MRAcquisitionType": "3D"}
    axial = made("FLAIR MPR tra", uid="1.2.2", slices=50, **of_3d)
    other = made("FLAIR MPR sag", uid="1.2.1", slices=60, orientation=SAGITTAL, **of_3d)
    assert select([other, axial], SelectionRules(reformats=True)).series[FLAIR] is axial


@pytest.mark.parametrize(
    ("description", "attributes"),
    [
        ("FLAIR_MIP", {}),
        ("FLAIR MPR subtraction", {}),
        ("Synthetic T2 FLAIR", {}),
        ("FLAIR", {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}),
        ("FLAIR MPR", {"ImageType": ["DERIVED", "SECONDARY", "MPR", "MIP"]}),
        ("FLAIR", {"ImageType": ["DERIVED", "SECONDARY"]}),
        ("FLAIR fused MPR", {"ImageType": ["DERIVED", "SECONDARY"]}),
    ],
)
def test_other_derived_images_are_never_read(description: str, attributes: dict) -> None:
    series = made(description, **attributes)
    assert "derived" in select([series], SelectionRules(reformats=True, after_contrast=True)).reason


def test_empty_study_is_not_asked_for() -> None:
    selection = select([])
    assert isinstance(selection.refusal, NoEligibleSeries)
    assert not selection.asked_for


def test_rules_are_settings() -> None:
    series = [made("FLAIR", slices=8, **times(900, 120, 9000))]
    assert select(series).refusal is not None
    assert select(series, SelectionRules(inversion_time_ms=(800, 3000))).refusal is None


def test_enhanced_values_come_from_functional_groups(tmp_path: Path) -> None:
    path = enhanced_flair(tmp_path / "e.dcm", slices=60, rows=8, columns=8, description="series 4")
    (series,) = group_series([read_instance(path)])
    selection = select([series])
    assert selection.refusal is None
    assert "3D sagittal, 60 slices" in selection.reason
    assert series.instances[0].sop_class_uid == EnhancedMRImageStorage


def test_a_flair_of_which_a_part_is_missing_is_neither_read_nor_passed_over_for_another() -> None:
    cut, whole = replace(made("FLAIR", slices=2), missing="18 of 20 are missing"), made("FLAIR", uid="1.2.2")
    selection = select([cut, whole])
    assert isinstance(selection.refusal, NotReadable)
    assert (str(selection.refusal), selection.asked_for) == ("18 of 20 are missing", True)
    assert not selection.series
    reasons = {p.series_instance_uid: p.reason for p in selection.passed_over}
    assert reasons == {"1.2.1": "18 of 20 are missing", "1.2.2": "a part of another FLAIR is missing"}


@pytest.mark.parametrize("description", ["Ax T1", "Ax FLAIR post Gd", "FLAIR localizer"])
def test_what_would_not_be_read_anyway_may_be_missing(description: str) -> None:
    cut, whole = replace(made(description, slices=2), missing="gone"), made("FLAIR", uid="1.2.2")
    assert select([cut, whole]).series[FLAIR] is whole


def test_malformed_numbers_do_not_stop_the_selection() -> None:
    series = made("FLAIR", slices=6)
    for instance in series.instances:
        instance.header.add_new("EchoTime", "LO", "fast")
        del instance.header.ImagePositionPatient
    assert select([series]).refusal is None


def test_files_made_by_the_test_support_are_eligible(tmp_path: Path) -> None:
    (series,) = group_series(read_instance(p) for p in flair_series(tmp_path, rows=8, columns=8))
    assert "2D axial, 20 slices" in select([series]).reason


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("siemens/anatomical/001", "too few slices: 4"),
        ("philips/anatomical/001", "too few slices: 4"),
        ("hyperfine/anatomical/001", "3D axial, 8 slices"),
        ("ge/anatomical/001", "no FLAIR series"),
        ("hitachi/anatomical/001", "no FLAIR series"),
        ("philips_enhanced/anatomical/001", "no FLAIR series"),
        ("siemens_multiframe/anatomical/001", "no FLAIR series"),
        ("failing/gantrytilting/001", "no FLAIR series"),
        ("failing/notavolume/001", "no FLAIR series"),
        ("failing/slicecount/001", "too few slices: 2"),
        ("failing/sliceincrement/002", "no FLAIR series"),
        ("failing/sliceorientation/001", "no FLAIR series"),
        ("../dcm_qa/In/Orientation/ax/axasc36", "no FLAIR series"),
        ("../dcm_qa_enh/In/Philips", "no FLAIR series"),
        ("../dcm_qa_enh/In/Siemens/XA10", "no FLAIR series"),
    ],
)
def test_real_headers(folder: str, says: str) -> None:
    files = shared_data(f"dicom/icometrix/{folder}").iterdir()
    selection = select(group_series(read_instance(path) for path in files))
    assert says in selection.reason
