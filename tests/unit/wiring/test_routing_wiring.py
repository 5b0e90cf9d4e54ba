"""Rules, record and store together: what is decided for a study, and what its job keeps of that."""

import shutil
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread

from msnode.domain.arrivals import Arrival, AssociationFacts
from msnode.errors import ConfigurationError
from msnode.record import administration, jobs
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.record.jobs import JobState, Priority
from msnode.routing.rules import Decision, Rule
from msnode.series.volume import group_series, read_instance
from msnode.settings import FolderDestination, NodeSettings, Settings
from msnode.store import Blob, Store
from msnode.wiring import operate, reader, routing
from msnode.wiring.explaining import explain_folder
from msnode.wiring.routing import Router, check_routing, geometry_of, queue, rules_of, selection_of
from support.dicom_files import change, flair_series
from support.heads import study_of

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SMALL = {"slices": 12, "rows": 16, "columns": 16}

RULES = """
[[rules]]
name = "sagittal 3D"
preset = "best"
[rules.when.geometry]
plane = "sagittal"
acquisition = "3d"

[[rules]]
name = "urgent"
read = true
bundle = "other"
preset = "fast"
priority = "stat"
destinations = ["research"]
[rules.when]
calling_ae = "ER"
tags = { RequestedProcedurePriority = "STAT" }

[[rules]]
name = "never"
read = false
[rules.when]
calling_ae = "NOBODY"
"""


def settings_with(folder, rules=RULES):
    path = folder / "routing.toml"
    path.write_text(rules)
    there = tuple(FolderDestination(type="folder", name=n, path=folder / n) for n in ("pacs", "research"))
    return Settings(node=NodeSettings(data_dir=folder, routing=path), destinations=there)


class Site:
    """A record and a store under rules."""

    def __init__(self, folder, migrated):
        shutil.copy(migrated, folder / "m.db")
        self.database = Database(f"sqlite:///{folder / 'm.db'}")
        self.arrivals = Arrivals(self.database)
        self.store = Store(folder / "store", durable=False)
        self.router = Router(rules_of(settings_with(folder)), Settings(), self.database, self.store)
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
    site.router = Router((), Settings(), site.database, site.store)
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
    found = geometry_of(selection_of(study, Settings()))
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
    assert geometry_of(selection_of((), Settings())) is None


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
    return explain_folder(folder / "in", settings_with(folder, rules), frozenset(aes), NOON)


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

    monkeypatch.setattr(reader, "describe", lambda *_: {})
    reader.read_job(readers, site.database, site.arrivals, site.store, job.id)
    assert asked == [("b", "best", True)]


def test_a_held_study_that_an_administrator_has_read_goes_by_its_rule_too(site, tmp_path):
    settings = settings_with(tmp_path)
    site.receive(flair_series(tmp_path / "in", RequestedProcedurePriority="STAT", **SMALL), "ER")
    columns = operate._routed(settings, site.database, site.waiting().id)
    with site.database.write() as tx:
        job = administration.retry(tx, site.waiting().id, at=NOON, routed=columns)
    assert (job.state, job.rule, job.destinations) == (JobState.QUEUED, "urgent", ("research",))
    assert operate._routed(settings, site.database, job.id) == {}
    assert operate._routed(settings, site.database, 99) == {}
