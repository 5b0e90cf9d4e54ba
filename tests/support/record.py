"""A fresh record on each database, for tests of the record and of the services that use it."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from msnode.domain.arrivals import Arrival, AssociationFacts
from msnode.record import jobs, schema
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.record.delivery import Recipient, Result
from msnode.record.job import JobState
from msnode.record.results import finish_reading


class Record:
    """A fresh record with shorthands; `at(s)` is s seconds into the story."""

    def __init__(self, url):
        self.url = url
        self.database = Database(self.url)
        self.arrivals = Arrivals(self.database)

    @staticmethod
    def at(seconds=0):
        return datetime(2025, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=seconds)

    def open(self, association_id="a1", seconds=0):
        self.arrivals.association_opened(
            AssociationFacts(association_id, "MODALITY", "MSNODE", "10.0.0.7", self.at(seconds))
        )

    def release(self, association_id="a1", seconds=100):
        self.arrivals.association_closed(association_id, released=True, at=self.at(seconds))

    def abort(self, association_id="a1", seconds=100):
        self.arrivals.association_closed(association_id, released=False, at=self.at(seconds))

    def arrival(self, number=1, *, content="", seconds=0, **changes):
        facts = {
            "digest": f"{number}{content}".encode().hex().rjust(64, "0"),
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4",
            "sop_instance_uid": f"1.2.3.{number}",
            "series_instance_uid": "1.2.1",
            "study_instance_uid": "1.1",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "modality": "MR",
            "patient_key": ("HOSPITAL", "4711"),
            "slice_position_mm": 6.5 * number,
            "frame_count": 1,
            "own": False,
            "association_id": "a1",
            "received_at": self.at(seconds),
        }
        return Arrival(**{**facts, **changes})

    def add(self, number=1, **changes):
        """An instance; other bytes than those known show the same image."""
        arrival = self.arrival(number, **changes)
        known = self.arrivals.add(arrival).get(arrival.sop_instance_uid)
        if known is not None:
            assert self.arrivals.add(replace(arrival, replaces=known)) == {}
        return arrival

    def jobs(self):
        """All jobs, oldest first."""
        with self.database.read() as tx:
            return jobs.recent(tx)[::-1]

    def job(self, job_id=1):
        with self.database.read() as tx:
            return jobs.find(tx, job_id)

    def move(self, to, job_id=1, **facts):
        with self.database.write() as tx:
            return jobs.move(tx, jobs.find(tx, job_id), to, at=self.at(200), why="test", **facts)

    def running(self):
        """A job that a worker has taken up."""
        self.add()
        self.move(JobState.QUEUED)
        with self.database.write() as tx:
            return jobs.start(tx, 1, at=self.at(210))

    def delivering(self, recipients=None, **facts):
        """A job with a SEG and an SR on their way."""
        job = self.running()
        wanted = {"pacs": ["seg", "sr"], "archive": ["sr"]} if recipients is None else recipients
        recipients = {
            n: w if isinstance(w, Recipient) else Recipient(frozenset(w)) for n, w in wanted.items()
        }
        with self.database.write() as tx:
            return finish_reading(
                tx, job, [self.result("seg"), self.result("sr")], recipients,
                at=self.at(220), why="3 lesions", result_set="set-1", **facts,
            )  # fmt: skip

    @staticmethod
    def result(kind, sha256="ab" * 32):
        number = {"seg": 1, "sr": 2, "overlay": 3}[kind]
        return Result(kind, f"2.25.{number}", "1.2.840", "2.25.9", f"{kind}.dcm", sha256)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory):
    """A migrated file to copy, because migrating takes its time."""
    path = tmp_path_factory.mktemp("record") / "m.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_database(postgres):
    """A migrated PostgreSQL database for one test after the other, because making one takes its time."""
    url = postgres.new_database()
    upgrade(url)
    return url


def _emptied(url):
    database = Database(url)
    with database.write() as tx:
        for table in reversed(schema.metadata.sorted_tables):
            tx.execute(table.delete())
        tx.exec_driver_sql(
            "SELECT setval(oid::regclass, 1, false) FROM pg_class "
            "WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
        )
    database.close()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty record of this version; its tables stay as they are."""
    if request.param == "postgresql":
        return _emptied(request.getfixturevalue("migrated_database"))
    shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "m.db")
    return f"sqlite:///{tmp_path / 'm.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def blank_url(request, tmp_path):
    """A database that holds nothing, not even tables, and belongs to this test alone."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").new_database()
    return f"sqlite:///{tmp_path / 'm.db'}"


@pytest.fixture
def record(url):
    """A fresh record on each database that is taken."""
    record = Record(url)
    yield record
    record.database.close()


@pytest.fixture
def own_record(blank_url):
    """A fresh record of which a test may change the tables."""
    upgrade(blank_url)
    record = Record(blank_url)
    yield record
    record.database.close()
