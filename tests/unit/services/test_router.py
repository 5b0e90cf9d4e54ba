"""Rules, record and store together: what is decided for a study, and what its job keeps of that."""

import shutil
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread

from msnode.domain.arrivals import Arrival, AssociationFacts
from msnode.errors import InvalidTransition
from msnode.reading import read_job as reading
from msnode.record import administration, jobs
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.record.job import JobState, Priority
from msnode.routing.rules import Decision, Rule
from msnode.series.select import SelectionRules, select
from msnode.series.volume import group_series, read_instance
from msnode.services import router as routing
from msnode.services.administer import Administrator
from msnode.services.router import Router, geometry_of, queue
from msnode.store import Blob, Store
from msnode.wiring.routing import rules_of
from support.dicom_files import change, flair_series
from support.heads import study_of
from support.site_rules import settings_with

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SMALL = {"slices": 12, "rows": 16, "columns": 16}


class Site:
    """A record and a store under rules."""

    def __init__(self, folder, migrated):
        shutil.copy(migrated, folder / "m.db")
        self.database = Database(f"sqlite:///{folder / 'm.db'}")
        self.arrivals = Arrivals(self.database)
        self.store = Store(folder / "store", durable=False)
        self.router = Router(rules_of(settings_with(folder)), SelectionRules(), self.database, self.store)
        self.associations = 0

    def receive(self, paths, calling_ae):
        """All of a study, complete; its UID."""
        self.associations += 1
        name = f"a{self.associations}"
        self.arrivals.association_opened(AssociationFacts(name, calling_ae, "MSNODE", "10.0.0.7", NOON))
        for path in paths:
            blob, ds = Blob(path.read_bytes()), dcmread(path, stop_before_pixels=True)
            self.store.put(blob)
            arrival = Arrival(
                digest=blob.digest, sop_class_uid=ds.SOPClassUID, sop_instance_uid=ds.SOPInstanceUID,
                series_instance_uid=ds.SeriesInstanceUID, study_instance_uid=ds.StudyInstanceUID,
                transfer_syntax_uid=ds.file_meta.TransferSyntaxUID, modality="MR",
                patient_key=("", ds.PatientID), slice_position_mm=None, frame_count=1, own=False,
                association_id=name, received_at=NOON,
            )  # fmt: skip
            self.arrivals.add(arrival)
        return study_of(paths[0])

    def decided(self, paths, calling_ae):
        """Name of the rule that decides for the study."""
        rule = self.router.decide(self.receive(paths, calling_ae), NOON).rule
        return rule and rule.name

    def waiting(self):
        with self.database.read() as tx:
            return jobs.in_states(tx, [JobState.RECEIVING])[-1]

    def queue(self, decision):
        with self.database.write() as tx:
            return queue(tx, self.waiting(), decision, at=NOON, why="complete")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "m.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def site(tmp_path, migrated):
    made = Site(tmp_path, migrated)
    yield made
    made.database.close()


def test_a_study_is_decided_by_its_sender_its_headers_and_its_geometry(site, tmp_path):
    stat = {**SMALL, "RequestedProcedurePriority": "STAT"}
    assert site.decided(flair_series(tmp_path / "1", study="1", **stat), "ER") == "urgent"
    assert site.decided(flair_series(tmp_path / "2", study="2", **stat), "MR1") is None
    assert site.decided(flair_series(tmp_path / "3", study="3", **SMALL), "ER") is None
    assert site.decided(flair_series(tmp_path / "4", study="4", **SMALL), "NOBODY") == "never"
    thin = {"slices": 60, "rows": 16, "columns": 16, "spacing": (1.0, 4.0, 4.0), "orientation": "sagittal"}
    assert site.decided(flair_series(tmp_path / "5", study="5", **thin), "ER") == "sagittal 3D"


def test_what_cannot_be_read_does_not_stop_a_decision(site, tmp_path):
    paths = flair_series(tmp_path / "in", RequestedProcedurePriority="STAT", **SMALL)
    study = site.receive(paths, "ER")
    for path in paths[1:]:
        site.store.blob_path(Blob(path.read_bytes()).digest).unlink()
    assert site.router.decide(study, NOON).rule.name == "urgent"
    site.store.blob_path(Blob(paths[0].read_bytes()).digest).write_bytes(b"damaged")
    decision = site.router.decide(study, NOON)
    assert decision.rule is None
    assert [m.why for m in decision.missed] == [
        "no series would be read, so there is no geometry to compare",
        "no series has a value for RequestedProcedurePriority",
        'it was sent by ER, not by "NOBODY"',
    ]


def test_without_rules_no_header_is_read(tmp_path, migrated, monkeypatch):
    monkeypatch.setattr(routing, "read_instance", None)
    site = Site(tmp_path, migrated)
    site.router = Router((), SelectionRules(), site.database, site.store)
    assert site.decided(flair_series(tmp_path / "in", **SMALL), "ER") is None
    site.database.close()


def test_a_job_keeps_what_was_decided(site, tmp_path):
    site.receive(flair_series(tmp_path / "in", **SMALL), "ER")
    rule = Rule("r", read=True, bundle="b", preset="fast", urgent=True, destinations=("pacs",))
    job = site.queue(Decision(rule))
    with site.database.read() as tx:
        assert jobs.find(tx, job.id) == job
    assert (job.state, job.rule, job.asked_for, job.bundle, job.preset, job.priority, job.destinations) == (
        JobState.QUEUED, "r", True, "b", "fast", Priority.STAT, ("pacs",),
    )  # fmt: skip


def test_a_study_that_no_rule_takes_is_as_the_settings_say(site, tmp_path):
    site.receive(flair_series(tmp_path / "in", **SMALL), "ER")
    job = site.queue(Decision())
    assert (job.state, job.rule, job.bundle, job.preset, job.priority, job.destinations) == (
        JobState.QUEUED, None, None, None, Priority.ROUTINE, None,
    )  # fmt: skip


def test_a_study_that_was_hurried_stays_so(site, tmp_path):
    site.receive(flair_series(tmp_path / "in", **SMALL), "ER")
    with site.database.write() as tx:
        administration.hurry(tx, site.waiting().id, at=NOON)
    assert site.queue(Decision(Rule("routine"))).priority == Priority.STAT


def test_a_study_that_is_not_to_be_read_is_passed_over_until_somebody_wants_it(site, tmp_path):
    site.receive(flair_series(tmp_path / "in", **SMALL), "ER")
    job = site.queue(Decision(Rule("never", read=False)))
    assert (job.state, job.reason) == (
        JobState.PASSED_OVER,
        "the rule 'never' says that it is not to be read",
    )
    with site.database.write() as tx:
        assert administration.retry(tx, job.id, at=NOON).state == JobState.QUEUED


@pytest.mark.parametrize(
    ("orientation", "spacing", "tilt_deg", "says"),
    [
        ("axial", (6.0, 4, 4), 0, ("axial", "2d", 6.0)),
        ("axial", (6.0, 4, 4), 25, ("axial", "2d", 6.0)),
        ("axial", (6.0, 4, 4), 35, ("oblique", "2d", 6.0)),
        ("coronal", (5.0, 4, 4), 0, ("coronal", "2d", 5.0)),
        ("sagittal", (1.2, 4, 4), 0, ("sagittal", "3d", 1.2)),
    ],
)
def test_geometry_is_that_of_the_series_that_would_be_read(tmp_path, orientation, spacing, tilt_deg, says):
    slices = 12 if spacing[0] > 2 else 50
    paths = flair_series(
        tmp_path, slices=slices, rows=16, columns=16, orientation=orientation, spacing=spacing
    )
    if tilt_deg:
        _tilt(paths, tilt_deg)
    study = group_series(read_instance(path) for path in paths)
    found = geometry_of(select(study, SelectionRules()))
    assert (found.plane, found.acquisition, found.slice_count) == (*says[:2], slices)
    assert found.slice_distance_mm == pytest.approx(says[2], abs=1e-3)


def _tilt(paths, degrees):
    """Turn the whole series about the patient's left-right axis."""
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])

    for path in paths:
        ds = dcmread(path)
        cosines = np.array(ds.ImageOrientationPatient, float).reshape(2, 3) @ turn.T
        position = turn @ np.array(ds.ImagePositionPatient, float)
        change(
            path,
            ImageOrientationPatient=[f"{v:.9f}" for v in cosines.ravel()],
            ImagePositionPatient=[f"{v:.9f}" for v in position],
        )


def test_a_study_of_which_nothing_would_be_read_has_no_geometry():
    assert geometry_of(select((), SelectionRules())) is None


def test_a_job_is_read_with_what_it_was_routed_to(site, tmp_path, monkeypatch):
    site.receive(flair_series(tmp_path / "in", **SMALL), "ER")
    job = site.queue(Decision(Rule("r", read=True, bundle="b", preset="best")))
    with site.database.write() as tx:
        jobs.start(tx, job.id, at=NOON)
    asked = []

    def readers(bundle, preset):
        def read(_study, **options):
            asked.append((bundle, preset, options["asked_for"]))
            return SimpleNamespace(outputs=())

        return SimpleNamespace(read=read)

    monkeypatch.setattr(reading, "describe", lambda *_: None)
    monkeypatch.setattr(reading.ReadingSummary, "of", lambda *_: None)
    reading.read_job(readers, site.database, site.arrivals, site.store, job.id)
    assert asked == [("b", "best", True)]


class FakeEngine:
    """Remembers the workflows that were enqueued."""

    def __init__(self):
        self.enqueued = []

    def enqueue(self, _tx, _workflow, workflow_id, *_, **__):
        self.enqueued.append(workflow_id)


def test_a_held_study_that_an_administrator_has_read_goes_by_its_rule_too(site, tmp_path):
    site.receive(flair_series(tmp_path / "in", RequestedProcedurePriority="STAT", **SMALL), "ER")
    engine = FakeEngine()
    job = Administrator(site.database, engine, lambda: site.router).retry(site.waiting().id)
    assert (job.state, job.rule, job.destinations) == (JobState.QUEUED, "urgent", ("research",))
    assert engine.enqueued == [f"job:{job.id}:0"]


def test_a_job_that_was_routed_before_is_retried_without_rules(site, tmp_path):
    site.receive(flair_series(tmp_path / "in", **SMALL), "ER")
    job = site.queue(Decision(Rule("never", read=False)))
    tried = Administrator(site.database, FakeEngine(), None).retry(job.id)
    assert (tried.state, tried.rule) == (JobState.QUEUED, "never")
    with pytest.raises(InvalidTransition):
        Administrator(site.database, FakeEngine(), None).retry(99)
