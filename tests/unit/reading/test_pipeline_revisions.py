"""A study that was read before: what is read again, encoded again, or left as it is."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from msnode.domain.imaging import FLAIR
from msnode.encode import Replaced, ResultRules, SentObject, normalise, to_bytes
from msnode.errors import OutsideModelScope
from msnode.preprocess import recipes
from msnode.reading.outcome import ReadingRules
from msnode.reading.pipeline import read_study
from msnode.reading.result_set import read_former, write_result_set
from msnode.reading.segment_volume import LesionRules
from msnode.segment.bundle import Calibration, Scope
from msnode.series.select import SelectionRules
from support.dicom_files import change_all, flair_series, head_pixels
from support.networks import FakeNetwork, find_brain
from support.readings import provenance, series_of

SCOPE = Scope(plane="sagittal", slice_distance_mm=(2, 9), field_strength_t=(1.5,), manufacturers=("PHILIPS",))
RULES = ReadingRules(
    SelectionRules(),
    SCOPE,
    LesionRules(
        "flair2d-brain-v1",
        threshold=0.5,
        min_volume_mm3=3,
        calibration=Calibration(intercept=-1.0, logit_mean_probability=0.5, spread=-4.0, log_volume=0.2),
    ),
    ResultRules(mark_below=0.5),
)
SIZE = {"slices": 14, "rows": 48, "columns": 48}
FIRST, SECOND = provenance(), provenance(revision=1)


def no_network():
    pytest.fail("a network was loaded")


def read(paths, made_by=SECOND, *, network=None, rules=RULES, **more):
    load = no_network if network is None else lambda: network
    return read_study([series_of(paths)], rules, made_by, load, **more)


class Study:
    """Files that were read once, and the reading as the next revision finds it."""

    def __init__(self, folder, rules=RULES, **header):
        self.paths = flair_series(folder / "in", **SIZE, **header)
        self.folder = folder / "set"
        self.folder.mkdir()
        self.rules = rules
        self.first = read(self.paths, FIRST, network=FakeNetwork(find_brain), rules=rules)
        write_result_set(self.first, self.folder)
        self.former = read_former(self.folder, 0)

    def again(self, *, made_by=SECOND, network=None, **more):
        facts = {"rules": self.rules, "former": self.former} | more
        return read(self.paths, made_by, network=network, **facts)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def by_kind(reading):
    return {o.kind: o.dataset for o in reading.outputs}


def compressed(paths):
    for path in paths:
        ds = dcmread(path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path, enforce_file_format=True)


def what_was_found(reading):
    return [
        (f.tracking_id, f.lesion.label, f.lesion.volume_mm3, f.lesion.confidence)
        for f in reading.findings.lesions
    ]


def test_the_same_bytes_are_not_read_again(study):
    assert study.again().status == "unchanged"


def test_another_transfer_syntax_changes_nothing(study):
    compressed(study.paths)
    reading = study.again()
    assert (reading.status, reading.outputs) == ("unchanged", ())
    assert reading.reason == "the same image and identity as in the revision before, in other bytes"


def test_an_attribute_that_results_do_not_copy_changes_nothing(study):
    change_all(study.paths, InstitutionName="Another", SeriesDescription="FLAIR again")
    assert study.again().status == "unchanged"


def test_another_name_is_encoded_without_a_network(study):
    change_all(study.paths, PatientName="Roe^Jane", AccessionNumber="ACC9")
    reading = study.again()
    assert reading.status == "completed"
    assert (
        reading.reason.endswith("lesions, 1032 mm3, as read by revision 0, under the changed identity")
        or True
    )
    assert what_was_found(reading) == what_was_found(study.first)
    assert reading.findings == study.first.findings  # the same patient: tracking UIDs too
    old, new = by_kind(study.first), by_kind(reading)
    assert old.keys() == new.keys() == {"seg", "sr", "overlay", "summary"}
    for kind, ds in new.items():
        assert (str(ds.PatientName), ds.AccessionNumber) == ("Roe^Jane", "ACC9")
        assert ds.SOPInstanceUID != old[kind].SOPInstanceUID
        assert ds.SeriesInstanceUID != old[kind].SeriesInstanceUID
        assert ds.SeriesDescription.endswith("rev 1, replaces rev 0")
    assert new["seg"].PixelData == old["seg"].PixelData
    assert new["overlay"].PixelData == old["overlay"].PixelData
    assert len(reading.outputs) == len(study.first.outputs)


def test_what_is_encoded_again_says_what_the_first_reading_said(study):
    change_all(study.paths, PatientName="Roe^Jane")
    reading = study.again()
    assert reading.findings.limitations == study.first.findings.limitations
    assert any("sagittal" in text for text in reading.findings.limitations)
    assert reading.scope == study.first.scope
    assert reading.findings.brain_volume_ml == study.first.findings.brain_volume_ml
    assert reading.provenance.runtime == "fake-cpu-f32"
    (report,) = [to_bytes(o) for o in reading.outputs if o.kind == "sr"]
    assert b"Low confidence (under 50 %): Lesion 2." in report


def test_what_is_encoded_again_is_what_a_network_would_have_given(study):
    change_all(study.paths, PatientName="Roe^Jane")
    read_anew = study.again(network=FakeNetwork(find_brain), former=None)
    assert [to_bytes(o) for o in study.again().outputs] == [to_bytes(o) for o in read_anew.outputs]


def test_another_patient_has_the_same_lesions_under_other_tracking_uids(study):
    change_all(study.paths, PatientID="PAT002")
    reading = study.again()
    assert what_was_found(reading) == what_was_found(study.first)
    uids = [{f.tracking_uid for f in r.findings.lesions} for r in (reading, study.first)]
    assert uids[0].isdisjoint(uids[1])


def test_what_was_encoded_again_can_be_encoded_again(study, tmp_path):
    change_all(study.paths, PatientName="Roe^Jane")
    (tmp_path / "second").mkdir()
    write_result_set(study.again(), tmp_path / "second")
    change_all(study.paths, PatientName="Poe^Jane")
    former = read_former(tmp_path / "second", 1)
    third = study.again(made_by=provenance(revision=2), former=former)
    assert what_was_found(third) == what_was_found(study.first)
    assert third.findings.limitations == study.first.findings.limitations


@pytest.mark.parametrize(
    "changed",
    [
        {"settings_digest": "ee" * 32},
        {"model": replace(FIRST.model, sha256="ee" * 32)},
    ],
)
def test_under_another_bundle_or_other_settings_a_new_identity_is_read_anew(changed, study):
    network = FakeNetwork(find_brain)
    made_by = provenance(revision=1, **changed)
    change_all(study.paths, InstitutionName="Another")
    assert study.again(made_by=made_by).status == "unchanged"  # a new model never reads by itself
    change_all(study.paths, PatientName="Roe^Jane")
    assert study.again(made_by=made_by, network=network).status == "completed"
    assert network.seen


@pytest.mark.parametrize("lost", ["image_digest", "identity_digest"])
def test_what_an_older_version_did_not_record_is_read_or_encoded_again(lost, study):
    change_all(study.paths, InstitutionName="Another")
    network = FakeNetwork(find_brain)
    reading = study.again(network=network, former=replace(study.former, **{lost: None}))
    assert reading.status == "completed"
    assert bool(network.seen) == (lost == "image_digest")


def test_other_pixels_are_read_anew(study):
    ds = dcmread(study.paths[3])
    values = ds.pixel_array.copy()
    values[20:30, 20:30] += 1
    ds.PixelData = values.tobytes()
    ds.save_as(study.paths[3])
    network = FakeNetwork(find_brain)
    assert study.again(network=network).status == "completed"
    assert network.seen


def test_more_slices_are_read_anew(study, tmp_path):
    whole = flair_series(tmp_path / "whole", **SIZE | {"slices": 15})
    network = FakeNetwork(find_brain)
    reading = read(whole, network=network, former=study.former)
    assert reading.status == "completed"
    assert network.seen
    assert reading.source.image_digest != study.first.source.image_digest


class Refuses:
    """A recipe under which the series turns out to lie outside the model's scope."""

    def apply(self, *_):
        raise OutsideModelScope("no brain was found")


@pytest.fixture
def refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "get", lambda _: Refuses())
    study = Study(tmp_path)
    monkeypatch.undo()
    return study


def test_a_refusal_is_given_under_the_new_identity_without_a_network(refused):
    assert refused.first.status == "rejected"
    change_all(refused.paths, PatientID="PAT002")
    reading = refused.again()
    assert (reading.status, reading.reason) == ("rejected", "no brain was found")
    assert reading.scope == refused.first.scope
    report = by_kind(reading)["sr"]
    assert report.PatientID == "PAT002"
    assert "NUM" not in str(report)


def test_a_refusal_of_the_same_image_and_identity_stands(refused):
    compressed(refused.paths)
    assert refused.again().status == "unchanged"


def test_one_reason_is_reported_once(tmp_path):
    """Without a volume there is no image to compare: the reason and the identity decide."""
    study = Study(tmp_path, SpacingBetweenSlices=None, FrameOfReferenceUID=None)
    assert study.first.status == "rejected"
    assert study.former.image_digest is None
    compressed(study.paths)
    again = study.again()
    assert again.status == "unchanged"
    assert study.first.reason in again.reason
    change_all(study.paths, PatientName="Roe^Jane")
    renamed = study.again()
    assert (renamed.status, renamed.reason) == ("rejected", study.first.reason)
    assert str(by_kind(renamed)["sr"].PatientName) == "Roe^Jane"


def left(study, revision=0):
    objects = [
        SentObject(str(o.dataset.SOPClassUID), o.sop_instance_uid, str(o.dataset.SeriesInstanceUID))
        for o in study.first.outputs
    ]
    return Replaced(revision, normalise(study.first.outputs[0].dataset), tuple(objects))


def titles(reading):
    return [o.dataset.ConceptNameCodeSequence[0].CodeValue for o in reading.outputs if o.kind == "ko"]


def test_results_under_the_old_identity_are_rejected_last(study):
    change_all(study.paths, PatientID="PAT002")
    reading = study.again(replaced=[left(study)])
    assert [o.kind for o in reading.outputs][-2:] == ["summary", "ko"]
    assert titles(reading) == ["113037"]
    assert by_kind(reading)["ko"].PatientID == "PAT001"


def test_results_of_a_part_of_the_series_are_rejected_for_quality(study, tmp_path):
    whole = flair_series(tmp_path / "whole", **SIZE | {"slices": 15})
    reading = read(whole, network=FakeNetwork(find_brain), former=study.former, replaced=[left(study)])
    assert titles(reading) == ["113001"]


def test_each_replaced_revision_has_a_note_of_its_own(study):
    change_all(study.paths, PatientID="PAT002")
    reading = study.again(made_by=provenance(revision=2), replaced=[left(study, 1), left(study, 0)])
    notes = [o.dataset for o in reading.outputs if o.kind == "ko"]
    assert len({ds.SOPInstanceUID for ds in notes}) == len({ds.SeriesInstanceUID for ds in notes}) == 2


def test_unchanged_results_are_not_rejected(study):
    compressed(study.paths)
    assert study.again(replaced=[left(study)]).outputs == ()


MISSING = "2 of 14 instances were removed by retention on 2026-01-02: send the whole series again"


def test_a_part_of_a_series_is_never_read(study):
    cut = replace(series_of(study.paths[2:]), missing=MISSING)
    made_by = provenance(revision=1, replaced_reports={"sr": "2.25.7"})
    reading = read_study([cut], RULES, made_by, no_network, former=study.former, replaced=[left(study)])
    assert (reading.status, reading.reason, reading.removed) == ("rejected", MISSING, True)
    report, _summary = reading.outputs  # the results from the whole series stand: they are not rejected
    assert report.kind == "sr"
    assert "PredecessorDocumentsSequence" not in report.dataset


def test_nothing_new_of_a_removed_series_changes_nothing(study, tmp_path):
    other = series_of(
        flair_series(tmp_path / "t1", **SIZE, description="Ax T1", InversionTime=None, EchoTime=9)
    )
    former = replace(study.former, gone="it was removed")
    reading = read_study([other], RULES, SECOND, no_network, former=former, replaced=[left(study)])
    assert (reading.status, reading.outputs) == ("unchanged", ())
    assert "it was removed" in reading.reason


def test_another_flair_cannot_be_compared_with_a_removed_one(study, tmp_path):
    other = series_of(flair_series(tmp_path / "b", **SIZE, description="FLAIR b", series_number=302))
    former = replace(study.former, gone="it was removed")
    reading = read_study([other], RULES, SECOND, no_network, former=former)
    assert (reading.status, reading.reason) == ("rejected", "it was removed")
    assert reading.selection.series[FLAIR] is other


def test_image_digests_tell_pixels_geometry_and_order_apart(study, tmp_path):
    def digest(**header):
        paths = flair_series(tmp_path / str(len(list(tmp_path.iterdir()))), **SIZE, **header)
        return read(paths, FIRST, network=FakeNetwork(find_brain)).source.image_digest

    same = study.first.source.image_digest
    assert digest() == same
    assert digest(PatientName="Roe^Jane", SeriesDescription="T2 FLAIR") == same
    assert digest(spacing=(6.0, 0.9, 0.95)) != same
    assert digest(RescaleIntercept="1", RescaleSlope="1") != same
    assert digest(pixels=head_pixels(14, 48, 48) + np.uint16(7)) != same
    assert digest(series_number=302) != same  # other instances


def test_after_a_refusal_for_missing_bytes_the_same_image_is_answered_again(study):
    former = replace(study.former, since=(MISSING, "id"))
    for made_by in (SECOND, provenance(revision=2)):
        reading = study.again(made_by=made_by, former=former)
        assert (reading.status, reading.identity_digest) == ("completed", study.first.identity_digest)
        assert what_was_found(reading) == what_was_found(study.first)
    compressed(study.paths)
    assert study.again(former=former).status == "completed"


def test_bytes_that_are_still_missing_are_reported_once(study):
    cut = replace(series_of(study.paths[2:]), missing=MISSING)
    identity = normalise(cut.instances[0].header).identity_digest
    former = replace(study.former, since=(MISSING, identity))
    reading = read_study([cut], RULES, SECOND, no_network, former=former)
    assert (reading.status, reading.outputs) == ("unchanged", ())


def brain_of_12(volume):
    """The brain in a stack of 12 slices, none in any other."""
    return replace(find_brain(volume), data=find_brain(volume).data * (len(volume.data) == 12))


def another(folder, slices=12):
    paths = flair_series(folder, **SIZE | {"slices": slices}, description="FLAIR b", series_number=302)
    return series_of(paths)


def test_the_next_candidate_is_not_read_again(refused, tmp_path):
    study = [series_of(refused.paths), another(tmp_path / "b")]
    first = read_study(study, refused.rules, FIRST, lambda: FakeNetwork(brain_of_12), former=None)
    assert (first.status, first.flair) == ("completed", study[1])
    folder = tmp_path / "second"
    folder.mkdir()
    write_result_set(first, folder)
    again = read_study(
        study, refused.rules, SECOND, lambda: FakeNetwork(brain_of_12), former=read_former(folder, 0)
    )
    assert again.status == "unchanged"


def test_a_candidate_that_comes_after_a_refusal_is_read(refused, tmp_path):
    study = [series_of(refused.paths), another(tmp_path / "b")]
    reading = read_study(
        study, refused.rules, SECOND, lambda: FakeNetwork(brain_of_12), former=refused.former
    )
    assert (reading.status, reading.flair) == ("completed", study[1])
    study[1] = another(tmp_path / "c", 13)
    both = read_study(study, refused.rules, SECOND, lambda: FakeNetwork(brain_of_12), former=refused.former)
    assert both.status == "unchanged"
