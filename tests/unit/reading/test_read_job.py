"""Jobs of one study, one revision after the other, from the record and the store to result sets."""

import errno
import shutil
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pydicom.uid import RLELossless

from msnode import crash_points
from msnode.domain.arrivals import Arrival, AssociationFacts
from msnode.domain.provenance import ModelIdentity
from msnode.errors import InvalidTransition, NotReadable, OutOfResources, StoredBytesChanged
from msnode.reading.read_job import read_job
from msnode.reading.result_set import read_result
from msnode.record import deliveries, jobs, schema
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.record.delivery import DeliveryState, Recipient
from msnode.record.job import JobState
from msnode.record.results import finish_reading, withdraw_former
from msnode.segment.bundle import Scope
from msnode.settings import NodeSettings, Settings
from msnode.store import Blob, Store, quarantined
from msnode.wiring import reading as wiring
from support.dicom_files import change_all, flair_series
from support.networks import FakeNetwork

SIZE = {"slices": 14, "rows": 48, "columns": 48}
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TAKES = {
    "pacs": Recipient(frozenset({"seg", "sr", "overlay", "summary", "ko"})),
    "archive": Recipient(frozenset({"sr"})),
}


class Node:
    """Store, record and reader; `receive`, `read`, `record` and `deliver` are the steps of a study's way."""

    def __init__(self, folder, migrated):
        shutil.copy(migrated, folder / "m.db")
        self.database = Database(f"sqlite:///{folder / 'm.db'}")
        self.arrivals = Arrivals(self.database)
        self.store = Store(folder / "store", durable=False)
        self.reader = wiring.make_reader(Settings(node=NodeSettings(data_dir=folder)))
        self.networks_loaded = 0
        self.reader.networks = self._networks
        self.summary = None
        self.clock = NOON
        self.arrivals.association_opened(AssociationFacts("a1", "MR", "MSNODE", "10.0.0.7", NOON))

    def _networks(self):
        self.networks_loaded += 1
        return FakeNetwork()

    def now(self):
        self.clock += timedelta(seconds=1)
        return self.clock

    def receive(self, *paths):
        for path in paths:
            blob = Blob(path.read_bytes())
            self.store.put(blob)
            self._add(dcmread(path, stop_before_pixels=True), blob.digest)

    def _add(self, ds, digest):
        stored = self.arrivals.study_instances(ds.StudyInstanceUID)
        known = next((i.digest for i in stored if i.sop_instance_uid == ds.SOPInstanceUID), None)
        self.arrivals.add(
            Arrival(
                digest=digest,
                sop_class_uid=ds.SOPClassUID,
                sop_instance_uid=ds.SOPInstanceUID,
                series_instance_uid=ds.SeriesInstanceUID,
                study_instance_uid=ds.StudyInstanceUID,
                transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
                modality=ds.Modality,
                patient_key=("", ds.PatientID),
                slice_position_mm=None,
                frame_count=1,
                own=False,
                association_id="a1",
                received_at=self.now(),
                replaces=known,
            )
        )

    def read(self):
        """Take up the study's newest job and read it."""
        with self.database.write() as tx:
            (waiting,) = jobs.in_states(tx, [JobState.RECEIVING])
            jobs.move(tx, waiting, JobState.QUEUED, at=self.now(), why="complete")
            job = jobs.start(tx, waiting.id, at=self.now())
        return job, self.read_again(job)

    def job(self):
        with self.database.read() as tx:
            return jobs.recent(tx)[0]

    def read_again(self, job):
        """What `result.json` holds; of a reading without results what its summary says of it."""
        summary = read_job(lambda *_: self.reader, self.database, self.arrivals, self.store, job.id)
        self.summary = summary
        if summary.result_set is None:
            return {"status": summary.status, "reason": summary.reason, "outputs": []}
        return read_result(self.store.set_path(summary.result_set)) | {"result_set": summary.result_set}

    def record(self, job):
        """As the worker does."""
        summary = self.summary
        facts = {
            "selection_digest": summary.selection_digest,
            "series_instance_uid": summary.series_instance_uid,
        }
        with self.database.write() as tx:
            if summary.result_set is None:
                jobs.move(tx, job, JobState(summary.status), at=self.now(), why=summary.reason, **facts)
                return
            moved = finish_reading(
                tx, job, summary.results, TAKES, at=self.now(), why=summary.reason,
                result_set=summary.result_set, result_sha256=summary.result_sha256, **facts,
            )  # fmt: skip
            withdraw_former(tx, moved, at=self.now())

    def deliver(self, job, *kinds, destination="pacs"):
        with self.database.write() as tx:
            for each in deliveries.pending(tx, job.id, destination):
                if each.result.kind in (kinds or TAKES["pacs"].kinds):
                    deliveries.delivered(tx, each, at=self.now())

    def next_revision(self, *paths, delivered=("seg", "sr", "overlay", "summary", "ko")):
        """Receive, read, record, deliver; the job and what its set holds."""
        self.receive(*paths)
        job, result = self.read()
        self.record(job)
        if delivered:
            self.deliver(job, *delivered)
        return job, result

    def objects(self, result, kind):
        folder = self.store.set_path(result["result_set"])
        return [dcmread(folder / o["path"]) for o in result["outputs"] if o["kind"] == kind]

    def remove(self, *paths):
        """As retention does."""
        digests = {Blob(p.read_bytes()).digest for p in paths}
        for digest in digests:
            self.store.blob_path(digest).unlink()
        change = schema.instance.update().where(schema.instance.c.digest.in_(digests))
        with self.database.write() as tx:
            tx.execute(change.values(removed_at=NOON + timedelta(days=30)))


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "m.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def node(tmp_path, migrated, monkeypatch):
    scope = Scope(
        plane="axial", slice_distance_mm=(2, 9), field_strength_t=(1.5,), manufacturers=("PHILIPS",)
    )
    manifest = SimpleNamespace(
        recipe="flair2d-head-v1", scope=scope, threshold=0.5, min_volume_mm3=3, calibration=None
    )
    bundle = SimpleNamespace(path=tmp_path, manifest=manifest, identity=ModelIdentity("m", "1", "ab" * 32))
    monkeypatch.setattr(wiring, "load_bundle", lambda *_: bundle)
    made = Node(tmp_path, migrated)
    yield made
    made.database.close()


@pytest.fixture
def paths(tmp_path):
    return flair_series(tmp_path / "in", **SIZE)


def uids(result):
    return {o["sop_instance_uid"] for o in result["outputs"]}


def rejected_by(node, result):
    """Title and SOP Instance UIDs of each rejection note."""
    return [
        (
            ds.ConceptNameCodeSequence[0].CodeValue,
            {
                item.ReferencedSOPInstanceUID
                for study in ds.CurrentRequestedProcedureEvidenceSequence
                for series in study.ReferencedSeriesSequence
                for item in series.ReferencedSOPSequence
            },
        )
        for ds in node.objects(result, "ko")
    ]


def predecessors(node, result):
    (report,) = node.objects(result, "sr")
    return [
        item.ReferencedSOPInstanceUID
        for study in report.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


def report_uid(result):
    return next(o["sop_instance_uid"] for o in result["outputs"] if o["kind"] == "sr")


def test_a_first_reading_rejects_nothing_and_names_no_predecessor(node, paths):
    _, result = node.next_revision(*paths)
    assert result["status"] == "completed"
    assert {o["kind"] for o in result["outputs"]} == {"seg", "sr", "overlay", "summary"}
    assert predecessors(node, result) == []


def test_another_identity_is_encoded_again_without_a_network(node, paths):
    _, first = node.next_revision(*paths)
    loaded = node.networks_loaded
    change_all(paths, PatientID="PAT002", PatientName="Roe^Jane")
    job, second = node.next_revision(*paths)
    assert (job.revision, second["status"]) == (1, "completed")
    assert node.networks_loaded == loaded == 1
    numbers = ("volume_mm3", "confidence", "tracking_id", "centroid_lps_mm")
    assert [[x[n] for n in numbers] for x in second["lesions"]] == [
        [x[n] for n in numbers] for x in first["lesions"]
    ]
    assert uids(second).isdisjoint(uids(first))
    for kind in ("seg", "sr", "overlay", "summary"):
        for ds in node.objects(second, kind):
            assert (ds.PatientID, str(ds.PatientName)) == ("PAT002", "Roe^Jane")
            assert ds.SeriesDescription.endswith("rev 1, replaces rev 0")
    assert predecessors(node, second) == [report_uid(first)]
    assert rejected_by(node, second) == [("113037", uids(first))]
    assert [ds.PatientID for ds in node.objects(second, "ko")] == ["PAT001"]


def test_late_slices_are_read_with_the_others_as_a_new_revision(node, paths):
    _, first = node.next_revision(*paths[:10])
    job, second = node.next_revision(*paths[10:])
    assert (job.revision, second["status"]) == (1, "completed")
    assert node.networks_loaded == 2
    assert len(node.objects(second, "overlay")) == 14
    assert uids(second).isdisjoint(uids(first))
    assert predecessors(node, second) == [report_uid(first)]
    assert rejected_by(node, second) == [("113001", uids(first))]


def test_another_transfer_syntax_leaves_the_results_as_they_are(node, paths):
    node.next_revision(*paths)
    for path in paths:
        ds = dcmread(path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path, enforce_file_format=True)
    job, second = node.next_revision(*paths)
    assert (job.revision, second["status"], second["outputs"]) == (1, "unchanged", [])
    assert "in other bytes" in second["reason"]
    assert not node.store.has_set("job-2-1")
    change_all(paths, PatientName="Roe^Jane")
    job, third = node.next_revision(*paths)
    assert (job.revision, third["status"], node.networks_loaded) == (2, "completed", 1)


def test_what_no_destination_has_is_neither_predecessor_nor_rejected(node, paths):
    node.next_revision(*paths, delivered=())
    change_all(paths, PatientName="Roe^Jane")
    _, second = node.next_revision(*paths)
    assert (predecessors(node, second), rejected_by(node, second)) == ([], [])
    assert node.objects(second, "sr")[0].SeriesDescription.endswith("rev 1, replaces rev 0")


def test_a_report_that_arrived_anywhere_is_the_predecessor(node, paths):
    first_job, first = node.next_revision(*paths, delivered=())
    node.deliver(first_job, destination="archive")
    change_all(paths, PatientName="Roe^Jane")
    _, second = node.next_revision(*paths)
    assert predecessors(node, second) == [report_uid(first)]


def test_what_may_have_arrived_is_rejected_with_what_did(node, paths):
    """A sender may have been killed between sending an object and noting it."""
    _, first = node.next_revision(*paths, delivered=("seg",))
    change_all(paths, PatientName="Roe^Jane")
    _, second = node.next_revision(*paths)
    assert predecessors(node, second) == []
    assert rejected_by(node, second) == [("113037", uids(first))]


def test_what_a_revision_could_not_reject_the_next_one_does(node, paths):
    _, first = node.next_revision(*paths)
    change_all(paths, PatientName="Roe^Jane")
    _, second = node.next_revision(*paths, delivered=())
    change_all(paths, PatientName="Poe^Jane")
    _, third = node.next_revision(*paths)
    assert predecessors(node, third) == [report_uid(first)]
    assert rejected_by(node, third) == [("113037", uids(first))]
    change_all(paths, PatientName="Moe^Jane")
    _, fourth = node.next_revision(*paths)
    assert predecessors(node, fourth) == [report_uid(third)]
    left = {o["sop_instance_uid"] for o in third["outputs"] if o["kind"] != "ko"}
    assert rejected_by(node, fourth) == [("113037", left)]
    assert uids(second).isdisjoint(left)


def test_committed_objects_count_as_arrived(node, paths):
    job, first = node.next_revision(*paths)
    with node.database.write() as tx:
        for each in deliveries.of_job(tx, job.id):
            if each.state == DeliveryState.DELIVERED:
                deliveries.committed(tx, each, at=node.now(), note="kept")
    change_all(paths, PatientName="Roe^Jane")
    _, second = node.next_revision(*paths)
    assert predecessors(node, second) == [report_uid(first)]


def test_a_set_that_is_lost_is_read_anew(node, paths):
    _, first = node.next_revision(*paths)
    shutil.rmtree(node.store.set_path(first["result_set"]))
    change_all(paths, PatientName="Roe^Jane")
    _, second = node.next_revision(*paths)
    assert (second["status"], node.networks_loaded) == ("completed", 2)


REMOVED = "of 14 instances were removed by retention on 2026-02-01"


def test_a_part_of_a_series_is_never_read(node, paths, tmp_path):
    _, first = node.next_revision(*paths)
    node.remove(*paths[:12])
    change_all(paths[12:], PatientName="Roe^Jane")
    _, second = node.next_revision(*paths[12:])
    assert (second["status"], second["removed"]) == ("rejected", True)
    assert second["reason"] == f"12 {REMOVED}: send the whole series again"
    assert [o["kind"] for o in second["outputs"]] == ["sr", "summary"]
    assert predecessors(node, second) == []
    change_all(paths, PatientName="Roe^Jane")
    _, third = node.next_revision(*paths)
    assert (third["status"], third["reason"]) == ("completed", f"{first['reason']}, as found by revision 0")
    assert node.networks_loaded == 1
    assert predecessors(node, third) == [report_uid(second)]
    assert [rejected for _, rejected in rejected_by(node, third)] == [uids(second), uids(first)]


def test_another_series_changes_nothing_where_the_one_that_was_read_is_gone(node, paths, tmp_path):
    node.next_revision(*paths)
    node.remove(*paths)
    other = {"description": "Ax T1", "EchoTime": 9, "InversionTime": None, "series_number": 302}
    _, second = node.next_revision(*flair_series(tmp_path / "t1", **SIZE, **other))
    assert second["status"] == "unchanged"
    assert f"14 {REMOVED}" in second["reason"]
    _, third = node.next_revision(*flair_series(tmp_path / "b", **SIZE, series_number=303))
    assert third["status"] == "rejected"
    assert third["reason"].endswith(f"revision 0 read, 14 {REMOVED}: send the whole study again")


def test_a_study_of_which_nothing_is_left_is_not_readable(node, paths):
    node.receive(*paths)
    node.remove(*paths)
    with pytest.raises(NotReadable, match=f"14 {REMOVED}"):
        node.read()


def test_bytes_that_nobody_removed_are_missing_all_the_same(node, paths):
    node.receive(*paths)
    node.store.blob_path(Blob(paths[0].read_bytes()).digest).unlink()
    _, result = node.read()
    assert result["reason"] == "1 of 14 instances were removed from the store: send the whole series again"


def test_received_bytes_that_have_changed_are_not_read_and_heal_when_they_come_again(node, paths):
    node.receive(*paths)
    digest = Blob(paths[0].read_bytes()).digest
    changed = bytearray(paths[0].read_bytes())
    changed[-1] ^= 1
    node.store.blob_path(digest).write_bytes(changed)
    with pytest.raises(StoredBytesChanged, match=digest):
        node.read()
    assert quarantined(node.store.root) == (digest,)
    node.receive(paths[0])
    assert node.read_again(node.job())["status"] == "completed"


@pytest.mark.parametrize("name", ["result.json", "lesion_map.npz", "sr.dcm"])
def test_a_revision_does_not_build_on_a_set_that_has_changed(name, node, paths):
    _, first = node.next_revision(*paths)
    with (node.store.set_path(first["result_set"]) / name).open("ab") as file:
        file.write(b" ")
    change_all(paths, PatientName="Roe^Jane")
    node.receive(*paths)
    with pytest.raises(StoredBytesChanged, match=name):
        node.read()


def test_a_committed_set_is_not_written_again(node, paths):
    node.receive(*paths)
    job, first = node.read()
    assert node.read_again(job) == first
    assert node.networks_loaded == 1
    assert first == read_result(node.store.set_path("job-1-0")) | {"result_set": "job-1-0"}


def test_the_steps_of_a_reading_are_fault_points(node, paths, monkeypatch):
    reached = []
    monkeypatch.setattr(
        crash_points, "reach", lambda point, key: reached.append((point, key, node.store.has_set("job-1-0")))
    )
    node.receive(*paths)
    job, _ = node.read()
    uid = job.study_instance_uid
    steps = [("reading-began", uid, False), ("result-written", uid, False), ("result-committed", uid, True)]
    assert reached == steps
    node.read_again(job)
    assert reached == steps
    assert {point for point, _, _ in steps} <= set(crash_points.POINTS)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_lack_of_resources_and_leaves_no_set(code, node, paths, monkeypatch):
    def full(*_, **__):
        raise OSError(code, "no room")

    node.receive(*paths)
    monkeypatch.setattr("numpy.savez_compressed", full)
    with pytest.raises(OutOfResources):
        node.read()
    monkeypatch.undo()
    assert not node.store.has_set("job-1-0")
    assert list((node.store.root / "tmp").iterdir()) == []


def test_a_job_must_have_been_started(node, paths):
    node.receive(*paths)
    for job_id in (1, 7):
        with pytest.raises(InvalidTransition):
            read_job(lambda *_: node.reader, node.database, node.arrivals, node.store, job_id)


def test_all_objects_of_a_revision_are_sent_under_uids_of_their_own(node, paths):
    """A result is recorded under one UID with one content for ever: the record refuses anything else."""
    seen = set()
    for name in ("A^A", "B^B", "A^A"):
        change_all(paths, PatientName=name)
        _, result = node.next_revision(*paths)
        assert seen.isdisjoint(uids(result))
        seen |= uids(result)
