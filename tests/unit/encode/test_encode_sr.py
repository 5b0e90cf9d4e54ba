import pytest
from pydicom.dataset import Dataset

from msnode.domain import SourceVolume
from msnode.encode import encode_rejection, encode_sr
from msnode.encode.provenance import series_uid_of
from msnode.identity import derive_uid
from support.dicom_files import change, flair_series
from support.readings import provenance, read, series_of


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


def report(reading, made_by=None):
    return next(o.dataset for o in reading.outputs(made_by) if o.kind == "sr")


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
    seg = next(o.dataset for o in reading.outputs() if o.kind == "seg")
    brain, *groups = named(one(ds, "126010"), "125007")
    for group, finding in zip(groups, reading.findings.lesions, strict=True):
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
    assert amount(one(brain, "246206008")) == (3, "1")
    assert amount(one(brain, "118565006")) == (pytest.approx(reading.findings.total_volume_mm3), "mm3")
    assert list(one(brain, "121191").ReferencedSOPSequence[0].ReferencedSegmentNumber) == [1, 2, 3]


def test_confidence_is_a_percentage_and_low_confidence_a_comment(tmp_path):
    paths = flair_series(tmp_path / "in", slices=5, rows=24, columns=24)
    ds = report(read(paths, 4, confidences=[0.9, 0.25, 0.4]))
    _, *groups = named(one(ds, "126010"), "125007")
    assert [amount(one(g, "111012")) for g in groups[:3]] == [
        (pytest.approx(90.0), "%"),
        (pytest.approx(25.0), "%"),
        (pytest.approx(40.0), "%"),
    ]
    assert not named(groups[3], "111012")
    comments = [c.TextValue for c in named(one(ds, "C0034375"), "121106")]
    assert "Low confidence (under 50 %): Lesion 2, Lesion 3." in comments


def test_without_low_confidence_nothing_is_said_of_it(tmp_path):
    paths = flair_series(tmp_path / "in", slices=5, rows=24, columns=24)
    for confidences in ((), (0.9, 0.5, 0.7)):
        ds = report(read(paths, 3, confidences=confidences))
        comments = [c.TextValue for c in named(one(ds, "C0034375"), "121106")]
        assert not [c for c in comments if "confidence" in c]


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
    (brain,) = named(one(ds, "126010"), "125007")
    assert brain.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert amount(one(brain, "246206008")) == (0, "1")
    assert amount(one(brain, "118565006")) == (0, "mm3")
    assert not named(brain, "121191")
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
    comments = [c.TextValue for c in named(one(ds, "C0034375"), "121106")]
    assert "lossy JPEG, ratio 12" in comments
    assert any("PatientSex" in c for c in comments)


def test_lesions_without_a_segmentation_are_a_mistake(reading):
    with pytest.raises(ValueError, match="segmentation"):
        encode_sr(reading.source, reading.findings, provenance(), None)
    with pytest.raises(ValueError, match="model"):
        encode_sr(reading.source, reading.findings, provenance(model=None), None)


def test_a_revision_names_the_report_it_replaces(reading):
    old = report(reading)
    made_by = provenance(revision=1, replaces_sop_instance_uid=str(old.SOPInstanceUID))
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


BROKEN = {
    "no geometry": dict.fromkeys(
        ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID")
    ),
    "no size": dict.fromkeys(("Rows", "Columns", "BitsAllocated", "SamplesPerPixel")),
    "no patient": dict.fromkeys(("PatientID", "PatientName", "PatientSex", "StudyID", "AccessionNumber")),
}


@pytest.mark.parametrize("defect", BROKEN)
@pytest.mark.parametrize("slices", [1, 3])
def test_a_rejection_gives_its_reason_and_no_number(defect, slices, tmp_path):
    paths = flair_series(tmp_path / "in", slices=slices, rows=16, columns=16)
    for path in paths:
        change(path, **BROKEN[defect])
    instances = series_of(paths).instances
    (output,) = encode_rejection(instances, "slices 3 and 4 lie 12.1 mm apart", provenance(model=None))
    ds = output.dataset
    assert output.kind == "sr"
    assert not [i for i in items(ds) if i.ValueType == "NUM"]
    assert not named(ds, "126010")
    evaluations = one(ds, "C0034375")
    assert concept(one(evaluations, "111017")) == "111245"
    assert any("slices 3 and 4 lie 12.1 mm apart" in c.TextValue for c in named(evaluations, "121106"))
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == slices


def test_a_rejection_references_only_its_own_study(tmp_path):
    mine = series_of(flair_series(tmp_path / "a", slices=1, rows=16, columns=16)).instances
    other = series_of(flair_series(tmp_path / "b", slices=1, rows=16, columns=16, study="2")).instances
    (output,) = encode_rejection([*mine, *other], "no FLAIR", provenance())
    (study,) = output.dataset.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == mine[0].header.StudyInstanceUID
    assert len(study.ReferencedSeriesSequence) == 1


def test_each_reason_has_its_own_report(tmp_path):
    instances = series_of(flair_series(tmp_path / "in", slices=1, rows=16, columns=16)).instances
    uids = {
        encode_rejection(instances, reason, provenance())[0].sop_instance_uid for reason in ("a", "b", "a")
    }
    assert len(uids) == 2


def test_a_header_with_nothing_but_its_study_is_enough(tmp_path):
    (instance,) = series_of(flair_series(tmp_path / "in", slices=1, rows=16, columns=16)).instances
    bare = Dataset()
    bare.StudyInstanceUID = "1.2.3"
    stripped = type(instance)(instance.path, instance.digest, bare)
    (output,) = encode_rejection([stripped], "nothing to read", provenance())
    assert output.dataset.StudyInstanceUID == "1.2.3"
    assert "CurrentRequestedProcedureEvidenceSequence" not in output.dataset
    assert output.dataset.SeriesInstanceUID == derive_uid("series of", output.sop_instance_uid)
