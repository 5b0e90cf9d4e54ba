"""The node as its users see it: real peers on both sides, `msnode serve` in between."""

import io
import re
import socket
import struct
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE

from msnode.demo.patient import study_uid, write_series
from msnode.demo.phantom import make_patient
from support.dicom_files import change_all, flair_series
from support.heads import head_series, study_of
from support.node import dicom_destination, node
from support.peers import free_port, storescp, storescu, wait_until

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

NAME = "Sentinel^Patience"
PATIENT_ID = "ID-SENTINEL-QUOKKA"


@pytest.fixture(scope="module")
def running_node(session_orthanc, tmp_path_factory):
    destination = dicom_destination("pacs", session_orthanc.aet, session_orthanc.dicom_port)
    with node(tmp_path_factory.mktemp("node") / "n", destination) as found:
        yield found


def send(files, port, **options):
    done = storescu(files, port, **options)
    assert done.returncode == 0, done.stderr


def results(orthanc, study: str) -> list[pydicom.Dataset]:
    """What the archive holds of the study, made by the node."""
    found = []
    for uid in orthanc.find_instances(StudyInstanceUID=study):
        dataset = pydicom.dcmread(io.BytesIO(orthanc.download(uid)))
        if "ContributingEquipmentSequence" in dataset:
            found.append(dataset)
    return found


def num_values(dataset) -> list:
    found = [item for item in dataset.get("ContentSequence", []) if item.ValueType == "NUM"]
    for item in dataset.get("ContentSequence", []):
        found += num_values(item)
    return found


def test_a_flair_comes_back_as_seg_sr_and_overlay(running_node, orthanc, tmp_path):
    phantom = make_patient(seed=3)
    files = write_series(phantom, tmp_path / "study")
    study = study_uid(phantom)
    send(files, running_node.port)
    details = running_node.wait_for_job(study=study)
    assert details["job"]["state"] == "completed", details["job"]["reason"]
    assert details["job"]["lesion_count"] > 0
    objects = results(orthanc, study)
    classes = [str(d.SOPClassUID) for d in objects]
    assert classes.count(SEG) == 1
    assert classes.count(REPORT) == 1
    assert classes.count(CAPTURE) == len(phantom.volume.data) + 1  # the summary page
    seg = next(d for d in objects if d.SOPClassUID == SEG)
    assert len(seg.SegmentSequence) == details["job"]["lesion_count"]
    source = {p: pydicom.dcmread(p, stop_before_pixels=True) for p in files}
    frames_of_reference = {
        str(d.FrameOfReferenceUID) for d in source.values() if "FLAIR" in d.SeriesDescription
    }
    in_space = [d for d in objects if "ImagePositionPatient" in d or d.SOPClassUID == SEG]
    assert len(in_space) == len(objects) - 2  # all but report and page
    assert {str(d.FrameOfReferenceUID) for d in in_space} == frames_of_reference
    assert {d["state"] for d in details["deliveries"]} == {"committed"}
    reasons = {p["series_instance_uid"] for p in details["passed_over"]}
    others = {str(d.SeriesInstanceUID) for d in source.values() if "FLAIR" not in d.SeriesDescription}
    assert reasons == others

    # the archive routes everything back: no new job
    before = len(running_node.jobs())
    back = tmp_path / "back"
    back.mkdir()
    for dataset in objects:
        dataset.save_as(back / f"{dataset.SOPInstanceUID}.dcm")
    send([back], running_node.port, options=["--required"])
    send(files[:3], running_node.port)
    marker = flair_series(tmp_path / "marker", slices=2, patient_id="MARKER")
    send(marker, running_node.port)
    running_node.wait_for_job(study=study_of(marker[0]))
    assert len(running_node.jobs()) == before + 1


def test_what_cannot_be_read_is_reported_without_a_number(running_node, orthanc, tmp_path):
    files = flair_series(tmp_path / "gap", patient_id="GAP")
    files.pop(9)
    send(files, running_node.port)
    study = study_of(files[0])
    details = running_node.wait_for_job(study=study)
    assert details["job"]["state"] == "rejected"
    report, page = sorted(results(orthanc, study), key=lambda ds: ds.Modality, reverse=True)
    assert (report.SOPClassUID, page.SOPClassUID) == (REPORT, CAPTURE)
    assert num_values(report) == []
    assert "111245" in str(report)


def test_a_study_without_a_candidate_is_passed_over_in_silence(running_node, orthanc, tmp_path):
    files = flair_series(
        tmp_path / "t1", patient_id="T1", description="Ax T1", InversionTime=None, RepetitionTime=500,
        EchoTime=10, ScanningSequence="SE",
    )  # fmt: skip
    send(files, running_node.port)
    study = study_of(files[0])
    assert running_node.wait_for_job(study=study)["job"]["state"] == "passed_over"
    assert results(orthanc, study) == []


def test_an_interrupted_series_is_not_read_until_it_is_complete(running_node, orthanc, tmp_path):
    files = head_series(tmp_path / "cut", patient_id="CUT")
    study = study_of(files[0])
    _store_then_drop(running_node.port, files[:12])
    send(flair_series(tmp_path / "other", slices=2, patient_id="OTHER"), running_node.port)
    running_node.wait_for_job(
        study=study_of(next((tmp_path / "other").iterdir()))
    )  # ended after its waiting time
    (held,) = [j for j in running_node.jobs() if j["study_instance_uid"] == study]
    assert held["state"] == "receiving"
    assert "cut off" in held["reason"]
    assert results(orthanc, study) == []
    send(files, running_node.port)
    details = running_node.wait_for_job(study=study)
    assert details["job"]["state"] == "completed"
    assert details["series"][0]["instance_count"] == 20
    assert len([j for j in running_node.jobs() if j["study_instance_uid"] == study]) == 1


def _store_then_drop(port: int, files: list[Path]) -> None:
    """Store files, then cut the connection without releasing the association."""
    entity = AE(ae_title="CUTTER")
    entity.add_requested_context(pydicom.uid.MRImageStorage, pydicom.uid.ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="MSNODE")
    assert association.is_established
    for path in files:
        assert association.send_c_store(pydicom.dcmread(path)).Status == 0
    connection = association.dul.socket.socket
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    association.join(10)
    connection.close()


def test_the_same_series_thrice_gives_one_result(running_node, orthanc, tmp_path):
    files = flair_series(tmp_path / "again", patient_id="AGAIN")
    study = study_of(files[0])
    for _ in range(2):
        send(files, running_node.port)
    running_node.wait_for_job(study=study)
    send(files, running_node.port)
    marker = flair_series(tmp_path / "marker", slices=2, patient_id="MARKER2")
    send(marker, running_node.port)
    running_node.wait_for_job(study=study_of(marker[0]))
    assert len([j for j in running_node.jobs() if j["study_instance_uid"] == study]) == 1
    assert [str(d.SOPClassUID) for d in results(orthanc, study)].count(REPORT) == 1


def test_late_slices_make_a_revision_that_names_its_predecessor(running_node, orthanc, tmp_path):
    files = head_series(tmp_path / "late", patient_id="LATE", slices=22)
    study = study_of(files[0])
    send(files[:20], running_node.port)
    running_node.wait_for_job(study=study)
    send(files[20:], running_node.port)
    wait_until(
        lambda: len([j for j in running_node.jobs() if j["study_instance_uid"] == study]) == 2, what="rev 1"
    )
    assert running_node.wait_for_job(study=study)["job"]["state"] == "completed"
    reports = [d for d in results(orthanc, study) if d.SOPClassUID == REPORT]
    assert len(reports) == 2
    first, second = sorted(reports, key=lambda d: "PredecessorDocumentsSequence" in d)
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "rev 1, replaces rev 0" in second.SeriesDescription


def test_no_patient_data_reaches_the_log(running_node, orthanc, tmp_path):
    files = head_series(tmp_path / "named", patient_id=PATIENT_ID, patient_name=NAME)
    change_all(files, PatientBirthDate="19571104")
    send(files, running_node.port)
    study = study_of(files[0])
    assert running_node.wait_for_job(study=study)["job"]["state"] == "completed"
    log = running_node.log.read_text()
    assert study in log
    assert not re.search("sentinel|19571104|quokka", log, re.IGNORECASE)


def test_a_destination_that_is_down_gets_its_results_later_even_after_a_restart(tmp_path):
    port = free_port()
    files = head_series(tmp_path / "study", patient_id="DOWN")
    destination = dicom_destination("pacs", "LATEPACS", port, ["sr"])
    retry = "[retry]\nfirst_s = 0.5\nmax_s = 1\n"
    with node(tmp_path / "n", destination, extra=retry) as first:
        send(files, first.port)
        details = first.wait_for_job("delivering")
        wait_until(
            lambda: first.read("jobs", "show", details["job"]["id"])["deliveries"][0]["attempts"] > 0,
            what="a failed try", poll_s=0.3,
        )  # fmt: skip
        (owed,) = first.read("jobs", "show", details["job"]["id"])["deliveries"]
        assert owed["state"] == "pending"
        assert "127.0.0.1" in owed["note"]
    (tmp_path / "pacs").mkdir()
    with (
        node(tmp_path / "n", destination, extra=retry) as second,
        storescp(tmp_path / "pacs", aet="LATEPACS", options=[], port=port) as late,
    ):
        details = second.wait_for_job()
        assert details["job"]["state"] == "completed"
        assert len(late.files()) == 1
        assert pydicom.dcmread(late.files()[0]).SOPClassUID == REPORT
