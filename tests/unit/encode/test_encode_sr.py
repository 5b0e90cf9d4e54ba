from dataclasses import replace
from itertools import pairwise

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from msnode.dicom.uids import derive_uid
from msnode.domain.findings import LOW_QUALITY, OUTSIDE_SCOPE
from msnode.domain.imaging import SourceVolume
from msnode.encode import (
    REPORT_KINDS,
    ResultRules,
    encode_rejection,
    encode_seg,
    encode_sr,
)
from msnode.encode.provenance import series_uid_of
from support.dicom_files import change, enhanced_flair, flair_series
from support.readings import MARK_BELOW, provenance, read, series_of


def items(node):
    """Every content item below a node."""
    for child in node.get("ContentSequence", []):
        yield child
        yield from items(child)


def named(node, code):
    return [c for c in node.get("ContentSequence", []) if c.ConceptNameCodeSequence[0].CodeValue == code]


def one(node, code):
    (child,) = named(node, code)
    return child


def concept(item):
    return item.ConceptCodeSequence[0].CodeValue


def amount(item):
    measured = item.MeasuredValueSequence[0]
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


@pytest.fixture
def reading(tmp_path):
    return read(flair_series(tmp_path / "in", slices=5, rows=24, columns=24), 3)


def report(reading, made_by=None, kind="sr", **options):
    made_by = made_by or provenance()
    seg = None
    if reading.findings.lesions:
        seg = encode_seg(reading.source, reading.lesion_map, reading.findings, made_by)
    options = {"mark_below": MARK_BELOW} | options
    return encode_sr(reading.source, reading.findings, made_by, seg, kind=kind, **options).dataset


def rejected(instances, reason, made_by=None, kind="sr"):
    rules = ResultRules(frozenset({kind}))
    outputs = encode_rejection(instances, reason, made_by or provenance(), rules)
    return next(o for o in outputs if o.kind == kind)


def limited(reading, *limitations):
    return replace(reading, findings=replace(reading.findings, limitations=limitations))


def evaluations(ds):
    return one(ds, "C0034375")


def comments(ds):
    return [c.TextValue for c in named(evaluations(ds), "121106")]


def groups(ds):
    """Groups of lesions, then the others by tracking identifier."""
    found = named(one(ds, "126010"), "125007")
    lesions = [g for g in found if named(g, "121191")]
    assert found[: len(lesions)] == lesions
    return lesions, {one(g, "112039").TextValue: g for g in found[len(lesions) :]}


def lesion_groups(ds):
    return groups(ds)[0]


def sources(group):
    """What a group was measured on."""
    return [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in named(group, "121112")]


def test_the_root_is_an_unverified_preliminary_measurement_report(reading):
    ds = report(reading)
    assert ds.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert ds.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (ds.VerificationFlag, ds.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert concept(one(ds, "121058")) == "25056-3"
    assert one(ds, "121012").UID.startswith("2.25.")
    assert ds.SeriesDescription == "MS AI REPORT"


def test_each_lesion_has_a_group_with_identity_segment_and_volume(reading):
    ds = report(reading)
    seg = encode_seg(reading.source, reading.lesion_map, reading.findings, provenance()).dataset
    for group, finding in zip(lesion_groups(ds), reading.findings.lesions, strict=True):
        assert group.ContentTemplateSequence[0].TemplateIdentifier == "1411"
        assert one(group, "112039").TextValue == finding.tracking_id
        assert finding.tracking_uid == one(group, "112040").UID
        assert concept(one(group, "121071")) == "301766008"
        assert concept(one(group, "363698007")) == "12738006"
        assert amount(one(group, "118565006")) == (pytest.approx(finding.lesion.volume_mm3), "mm3")
        referenced = one(group, "121191").ReferencedSOPSequence[0]
        assert referenced.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert referenced.ReferencedSegmentNumber == finding.lesion.label
        assert reading.source.series.series_instance_uid == one(group, "121232").UID


def test_count_and_total_volume_are_measured_on_the_segmentation_and_on_no_segment(reading):
    ds = report(reading)
    seg = encode_seg(
        reading.source, reading.lesion_map, reading.findings, provenance(), form="single"
    ).dataset
    _, others = groups(ds)
    (together,) = others.values()
    assert together.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert one(together, "112039").TextValue == "MS lesions"
    assert seg.SegmentSequence[0].TrackingUID == one(together, "112040").UID
    assert concept(one(together, "121071")) == "301766008"
    assert concept(one(together, "363698007")) == "12738006"
    assert amount(one(together, "246206008")) == (3, "1")
    assert amount(one(together, "118565006")) == (pytest.approx(reading.findings.total_volume_mm3), "mm3")
    assert sources(together) == [seg.SOPInstanceUID]
    assert not named(together, "121191")
    assert not named(together, "121232")


def test_the_diameter_of_a_lesion_says_that_it_is_axial(reading):
    for group, finding in zip(lesion_groups(report(reading)), reading.findings.lesions, strict=True):
        diameter = one(group, "103339001")
        assert amount(diameter) == (pytest.approx(finding.lesion.longest_axial_mm, abs=1e-3), "mm")
        assert concept(one(diameter, "111031")) == "24422004"
        assert one(diameter, "121050").TextValue == "Longest axial diameter"


def test_the_centre_of_a_lesion_is_a_point_in_space(reading):
    ds = report(reading)
    for group, finding in zip(lesion_groups(ds), reading.findings.lesions, strict=True):
        centre = one(group, "111010")
        assert (centre.ValueType, centre.GraphicType) == ("SCOORD3D", "POINT")
        assert list(centre.GraphicData) == pytest.approx(finding.lesion.centroid_lps_mm, abs=1e-3)
        assert centre.ReferencedFrameOfReferenceUID == ds.FrameOfReferenceUID


def test_every_group_has_a_place(reading, tmp_path):
    with_brain = replace(reading, findings=replace(reading.findings, brain_volume_ml=1234.5))
    _, others = groups(report(with_brain))
    voxels = np.argwhere(reading.lesion_map.labels > 0)
    everything = reading.lesion_map.grid.to_lps(voxels).mean(axis=0)
    assert list(one(others["MS lesions"], "111010").GraphicData) == pytest.approx(everything, abs=1e-3)
    middle = reading.lesion_map.grid.to_lps([[2, 11.5, 11.5]])[0]
    assert list(one(others["Brain"], "STACK-CENTER").GraphicData) == pytest.approx(middle, abs=1e-3)
    none = read(flair_series(tmp_path / "none", slices=5, rows=24, columns=24), 0)
    _, empty = groups(report(none))
    assert list(one(empty["MS lesions"], "STACK-CENTER").GraphicData) == pytest.approx(middle, abs=1e-3)


def in_space(point, image):
    """Where a point of an image lies, LPS mm, by PS3.3 C.7.6.2.1.1 and C.18.6.1.2, and the image's normal."""
    plane, measures = image, image
    orientation = image
    if "PerFrameFunctionalGroupsSequence" in image:
        number = point.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber
        plane = image.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0]
        shared = image.SharedFunctionalGroupsSequence[0]
        measures, orientation = shared.PixelMeasuresSequence[0], shared.PlaneOrientationSequence[0]
    along_row, along_column = np.array(orientation.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, measures.PixelSpacing)
    column, row = point.GraphicData
    position = np.array(plane.ImagePositionPatient, float)
    position += along_row * (column - 0.5) * between_columns + along_column * (row - 0.5) * between_rows
    return position, np.cross(along_row, along_column)


@pytest.mark.parametrize("kind", ["sr-comprehensive", "sr-enhanced"])
@pytest.mark.parametrize("of", ["axial", "sagittal", "coronal", "enhanced"])
def test_without_space_the_centre_is_a_point_in_the_nearest_plane(of, kind, tmp_path):
    size = {"slices": 7, "rows": 30, "columns": 24}
    if of == "enhanced":
        paths = [enhanced_flair(tmp_path / "in.dcm", **size)]
    else:
        paths = flair_series(tmp_path / "in", orientation=of, spacing=(3.0, 0.8, 1.1), **size)
    images = {i.SOPInstanceUID: i for i in map(dcmread, paths)}
    reading = read(paths, 4)
    slice_step = reading.source.volume.grid.spacing[0]
    ds = report(reading, kind=kind)
    for group, finding in zip(lesion_groups(ds), reading.findings.lesions, strict=True):
        point = one(group, "111010")
        assert (point.ValueType, point.GraphicType) == ("SCOORD", "POINT")
        (image,) = point.ContentSequence
        assert (image.ValueType, image.RelationshipType) == ("IMAGE", "SELECTED FROM")
        (referenced,) = image.ReferencedSOPSequence
        assert ("ReferencedFrameNumber" in referenced) == (of == "enhanced")
        position, normal = in_space(point, images[referenced.ReferencedSOPInstanceUID])
        away = np.array(finding.lesion.centroid_lps_mm) - position
        assert np.abs(away - normal * (away @ normal)).max() < 1e-3
        assert abs(away @ normal) <= slice_step / 2 + 1e-3


@pytest.mark.parametrize("lesions", [0, 2])
def test_the_volume_of_the_brain_cannot_be_taken_for_that_of_lesions(lesions, tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=24, columns=24), lesions)
    reading = replace(reading, findings=replace(reading.findings, brain_volume_ml=1234.5))
    _, others = groups(report(reading))
    brain = others["Brain"]
    assert brain.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert not named(brain, "121191")
    assert not named(brain, "118565006")
    assert concept(one(brain, "121071")) == concept(one(brain, "363698007")) == "12738006"
    assert sources(brain) == [f.instance.sop_instance_uid for f in reading.source.frames]
    volume, total = one(brain, "YEKZ"), one(others["MS lesions"], "118565006")
    assert amount(volume) == (1234.5, "mL")
    assert concept(one(volume, "363698007")) == "12738006"
    assert one(volume, "121050").TextValue.startswith("Brain volume")
    assert amount(total) == (pytest.approx(reading.findings.total_volume_mm3), "mm3")
    assert one(others["MS lesions"], "112040").UID != one(brain, "112040").UID


def test_a_brain_that_was_not_measured_has_no_group(reading):
    assert list(groups(report(reading))[1]) == ["MS lesions"]


def test_highdicom_takes_nothing_but_lesions_for_regions(reading):
    with_brain = replace(reading, findings=replace(reading.findings, brain_volume_ml=1234.5))
    content = highdicom.sr.Comprehensive3DSR.from_dataset(report(with_brain)).content
    regions = content.get_volumetric_roi_measurement_groups()
    assert [g.tracking_uid for g in regions] == [f.tracking_uid for f in reading.findings.lesions]
    for group, finding in zip(regions, reading.findings.lesions, strict=True):
        assert group.referenced_segment.referenced_segment_numbers == [finding.lesion.label]
    plain = content.get_image_measurement_groups()
    assert [g.tracking_identifier for g in plain] == ["MS lesions", "Brain"]
    assert [m.name.value for g in plain for m in g.get_measurements()] == ["246206008", "118565006", "YEKZ"]


def test_of_a_single_segment_every_lesion_is_a_part(reading):
    ds = report(reading, form="single")
    for group in lesion_groups(ds):
        assert one(group, "121191").ReferencedSOPSequence[0].ReferencedSegmentNumber == 1


SCOPE, QUALITY = f"{OUTSIDE_SCOPE}a slice distance of 9 mm.", f"{LOW_QUALITY}noise."


@pytest.mark.parametrize(
    ("lesions", "limitations", "said"),
    [
        (0, (), {"111017": "111241"}),
        (0, (SCOPE,), {"111017": "111243", "SCOPE": "OUTSIDE"}),
        (0, (QUALITY,), {"111017": "111243", "130550": "RID13"}),
        (2, (), {"111017": "111242"}),
        (2, (QUALITY,), {"111017": "111244", "130550": "RID13"}),
        (2, (SCOPE, QUALITY), {"111017": "111244", "130550": "RID13", "SCOPE": "OUTSIDE"}),
    ],
)
@pytest.mark.parametrize("kind", REPORT_KINDS)
def test_limits_of_scope_and_quality_are_said_in_words_and_in_code(
    kind, lesions, limitations, said, tmp_path
):
    reading = read(flair_series(tmp_path / "in", slices=5, rows=24, columns=24), lesions)
    ds = report(limited(reading, *limitations), kind=kind)
    coded = [c for c in evaluations(ds).ContentSequence if c.ValueType == "CODE"]
    assert {c.ConceptNameCodeSequence[0].CodeValue: concept(c) for c in coded} == said
    assert [c for c in comments(ds) if c in limitations] == list(limitations)
    declared = [s.CodingSchemeDesignator for s in ds.get("CodingSchemeIdentificationSequence", [])]
    assert declared == ["99MSNODE"]


def test_the_variants_are_one_report_under_three_classes(reading):
    made = {kind: report(reading, kind=kind) for kind in REPORT_KINDS}
    assert [ds.SOPClassUID.name for ds in made.values()] == [
        "Comprehensive 3D SR Storage",
        "Comprehensive SR Storage",
        "Enhanced SR Storage",
    ]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"):
        assert len({ds[keyword].value for ds in made.values()}) == 3

    def numbers(ds):
        return [(name.CodeValue, amount(i)) for i in items(ds) if i.ValueType == "NUM"
                for name in i.ConceptNameCodeSequence]  # fmt: skip

    assert all(numbers(a) == numbers(b) for a, b in pairwise(made.values()))


def test_only_the_wanted_variants_are_made(reading):
    instances = [f.instance for f in reading.source.frames]
    for kinds in (set(), {"sr-enhanced"}, {"sr", "sr-comprehensive"}):
        rules = ResultRules(frozenset(kinds))
        for outputs in (
            reading.outputs(rules=rules),
            encode_rejection(instances, "no FLAIR", provenance(), rules),
        ):
            assert {o.kind for o in outputs} & set(REPORT_KINDS) == {"sr", *kinds}


def test_confidence_is_a_percentage_and_low_confidence_a_comment(tmp_path):
    paths = flair_series(tmp_path / "in", slices=5, rows=24, columns=24)
    ds = report(read(paths, 4, confidences=[0.9, 0.25, 0.4]))
    found = lesion_groups(ds)
    assert [amount(one(g, "111012")) for g in found[:3]] == [
        (pytest.approx(90.0), "%"),
        (pytest.approx(25.0), "%"),
        (pytest.approx(40.0), "%"),
    ]
    assert not named(found[3], "111012")
    assert "Low confidence (under 50 %): Lesion 2, Lesion 3." in comments(ds)


def test_without_low_confidence_nothing_is_said_of_it(tmp_path):
    paths = flair_series(tmp_path / "in", slices=5, rows=24, columns=24)
    for confidences in ((), (0.9, 0.5, 0.7)):
        ds = report(read(paths, 3, confidences=confidences))
        assert not [c for c in comments(ds) if "confidence" in c]


def test_the_algorithm_is_named_under_the_measurements(reading):
    measurements = one(report(reading), "126010")
    assert one(measurements, "111001").TextValue == "flair-unet"
    assert one(measurements, "111003").TextValue == "1.2.3"
    assert "ab" * 32 in one(measurements, "111002").TextValue
    for group in named(measurements, "125007"):
        assert not named(group, "111001")


def test_the_summary_says_that_lesions_were_found(reading):
    assert concept(one(one(report(reading), "C0034375"), "111017")) == "111242"


def test_no_lesion_is_a_count_of_zero_with_its_own_summary(tmp_path):
    ds = report(read(flair_series(tmp_path / "in", slices=5, rows=24, columns=24), 0))
    (together,) = named(one(ds, "126010"), "125007")
    assert together.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert amount(one(together, "246206008")) == (0, "1")
    assert amount(one(together, "118565006")) == (0, "mm3")
    assert concept(one(one(ds, "C0034375"), "111017")) == "111241"


def test_the_evidence_names_source_and_segmentation(reading):
    (study,) = report(reading).CurrentRequestedProcedureEvidenceSequence
    source, seg = study.ReferencedSeriesSequence
    assert source.SeriesInstanceUID == reading.source.series.series_instance_uid
    assert [i.ReferencedSOPInstanceUID for i in source.ReferencedSOPSequence] == [
        f.instance.sop_instance_uid for f in reading.source.frames
    ]
    assert seg.ReferencedSOPSequence[0].ReferencedSOPClassUID.name == "Segmentation Storage"


def test_warnings_and_header_defects_are_comments(tmp_path):
    reading = read(flair_series(tmp_path / "in", slices=4, rows=16, columns=16, PatientSex=None), 0)
    source = SourceVolume(
        reading.source.volume, reading.source.frames, reading.source.series, ("lossy JPEG, ratio 12",)
    )
    ds = encode_sr(source, reading.findings, provenance(), None).dataset
    assert "lossy JPEG, ratio 12" in comments(ds)
    assert any("PatientSex" in c for c in comments(ds))


def test_lesions_without_a_segmentation_are_a_mistake(reading):
    with pytest.raises(ValueError, match="segmentation"):
        encode_sr(reading.source, reading.findings, provenance(), None)
    with pytest.raises(ValueError, match="model"):
        encode_sr(reading.source, reading.findings, provenance(model=None), None)


def test_a_revision_names_the_report_it_replaces(reading):
    old = report(reading)
    made_by = provenance(revision=1, replaced_reports={"sr": str(old.SOPInstanceUID)})
    new = report(reading, made_by)
    (study,) = new.PredecessorDocumentsSequence
    assert study.StudyInstanceUID == old.StudyInstanceUID
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == old.SeriesInstanceUID
    named_old = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named_old.ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert new.SOPInstanceUID != old.SOPInstanceUID
    assert new.SeriesInstanceUID != old.SeriesInstanceUID
    assert new.SeriesDescription == "MS AI REPORT rev 1, replaces rev 0"
    assert series_uid_of(str(old.SOPInstanceUID)) == old.SeriesInstanceUID


@pytest.mark.parametrize("kind", REPORT_KINDS)
@pytest.mark.parametrize("former", REPORT_KINDS)
def test_a_variant_names_its_own_kind_or_the_one_that_is_there(kind, former, reading):
    old = {k: report(reading, kind=k) for k in REPORT_KINDS}
    uids = {k: str(ds.SOPInstanceUID) for k, ds in old.items()}

    def predecessor(replaced):
        new = report(reading, provenance(revision=1, replaced_reports=replaced), kind)
        (series,) = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
        (instance,) = series.ReferencedSOPSequence
        found = (series.SeriesInstanceUID, instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID)
        return next(
            k for k, ds in old.items() if found == (ds.SeriesInstanceUID, ds.SOPClassUID, ds.SOPInstanceUID)
        )

    assert predecessor({former: uids[former]}) == former
    assert predecessor(uids) == kind


BROKEN = {
    "no geometry": dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID")
    ),
    "no size": dict.fromkeys(("Rows", "Columns", "BitsAllocated", "SamplesPerPixel")),
    "no patient": dict.fromkeys(("PatientID", "PatientName", "PatientSex", "StudyID", "AccessionNumber")),
}


@pytest.mark.parametrize("kind", REPORT_KINDS)
@pytest.mark.parametrize("defect", BROKEN)
@pytest.mark.parametrize("slices", [1, 3])
def test_a_rejection_gives_its_reason_and_no_number(defect, slices, kind, tmp_path):
    paths = flair_series(tmp_path / "in", slices=slices, rows=16, columns=16)
    for path in paths:
        change(path, **BROKEN[defect])
    instances = series_of(paths).instances
    reason = "slices 3 and 4 lie 12.1 mm apart"
    output = rejected(instances, reason, provenance(model=None), kind)
    ds = output.dataset
    assert not [i for i in items(ds) if i.ValueType in ("NUM", "SCOORD", "SCOORD3D")]
    assert not named(ds, "126010")
    assert concept(one(evaluations(ds), "111017")) == "111245"
    assert not named(evaluations(ds), "SCOPE")
    assert any(reason in c for c in comments(ds))
    assert "this is not a negative finding" in " ".join(comments(ds))
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == slices


@pytest.mark.parametrize("kind", REPORT_KINDS)
def test_a_rejection_for_scope_says_so_in_code(kind, tmp_path):
    instances = series_of(flair_series(tmp_path / "in", slices=1, rows=16, columns=16)).instances
    ds = rejected(instances, SCOPE, kind=kind).dataset
    assert concept(one(evaluations(ds), "111017")) == "111245"
    assert concept(one(evaluations(ds), "SCOPE")) == "OUTSIDE"
    assert not [i for i in items(ds) if i.ValueType == "NUM"]
    assert ds.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99MSNODE"


def test_a_rejection_references_only_its_own_study(tmp_path):
    mine = series_of(flair_series(tmp_path / "a", slices=1, rows=16, columns=16)).instances
    other = series_of(flair_series(tmp_path / "b", slices=1, rows=16, columns=16, study="2")).instances
    (study,) = rejected([*mine, *other], "no FLAIR").dataset.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == mine[0].header.StudyInstanceUID
    assert len(study.ReferencedSeriesSequence) == 1


def test_each_reason_has_its_own_report(tmp_path):
    instances = series_of(flair_series(tmp_path / "in", slices=1, rows=16, columns=16)).instances
    uids = {rejected(instances, reason).sop_instance_uid for reason in ("a", "b", "a")}
    assert len(uids) == 2


def test_a_header_with_nothing_but_its_study_is_enough(tmp_path):
    (instance,) = series_of(flair_series(tmp_path / "in", slices=1, rows=16, columns=16)).instances
    bare = Dataset()
    bare.StudyInstanceUID = "1.2.3"
    stripped = type(instance)(instance.path, instance.digest, bare)
    output = rejected([stripped], "nothing to read")
    assert output.dataset.StudyInstanceUID == "1.2.3"
    assert "CurrentRequestedProcedureEvidenceSequence" not in output.dataset
    assert output.dataset.SeriesInstanceUID == derive_uid("series of", output.sop_instance_uid)
