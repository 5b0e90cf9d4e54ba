"""A disk or database that is full, locked or gone: what was answered is there, and the receiver recovers."""

import hashlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from pydicom import dcmread

from msnode.engine import connections
from msnode.receive.scp import Receiver
from msnode.receive.spool import Spool
from msnode.record import schema
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.store import Store
from support.dicom_files import encoded, flair_series
from support.disks import small_disk
from support.peers import free_port, listens, running
from support.raw_sender import RawSender

MIB = 2**20
SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700


class Node:
    """A receiver as the node has it: store and record."""

    def __init__(self, store: Path, url: str, *, min_free_bytes: int = 0) -> None:
        self.store, self.database = Store(store), Database(url)
        self.arrivals = Arrivals(self.database, "receiver-1")
        self.spool = Spool(
            self.store, self.arrivals, same_image=lambda *_: True, min_free_bytes=min_free_bytes
        )
        self.receiver = Receiver("MSNODE", "127.0.0.1", 0, (), self.spool)
        self.receiver.start()

    def sender(self) -> closing[RawSender]:
        return closing(RawSender(self.receiver.port))

    def stop(self) -> None:
        self.receiver.stop()
        self.database.close()

    def recorded(self, study: str) -> dict[str, str]:
        """SOP Instance UID → digest, of instances whose bytes are there and intact."""
        found = {i.sop_instance_uid: i.digest for i in self.arrivals.study_instances(study)}
        for digest in found.values():
            assert hashlib.sha256(self.store.blob_path(digest).read_bytes()).hexdigest() == digest
        return found


@pytest.fixture
def node() -> Iterator[Callable[..., Node]]:
    with ExitStack() as stack:

        def start(*arguments: object, **options: int) -> Node:
            found = Node(*arguments, **options)
            stack.callback(found.stop)
            return found

        yield start


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'msnode.db'}"
    upgrade(url)
    return url


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", mib=8) as place:
        yield place


@pytest.fixture
def instances(tmp_path: Path) -> list[tuple[str, bytes]]:
    """SOP Instance UID and data set of each, 1 MiB."""
    files = flair_series(tmp_path / "in", slices=12, rows=1024, columns=512)
    return [(str(ds.SOPInstanceUID), encoded(ds)) for ds in map(dcmread, files)]


@pytest.fixture
def study(tmp_path: Path, instances: list[tuple[str, bytes]]) -> str:
    del instances
    return str(dcmread(next((tmp_path / "in").iterdir()), stop_before_pixels=True).StudyInstanceUID)


def fill(place: Path, *, leave: int) -> Path:
    """Take the free room but for so many bytes."""
    ballast = place / "ballast"
    ballast.write_bytes(b"\1" * (shutil.disk_usage(place).free - leave))
    return ballast


def send(sender: RawSender, instances: list[tuple[str, bytes]]) -> dict[str, int]:
    """SOP Instance UID → status."""
    return {uid: sender.store(uid, data) for uid, data in instances}


def accepted(statuses: dict[str, int]) -> set[str]:
    assert set(statuses.values()) <= {SUCCESS, OUT_OF_RESOURCES}
    return {uid for uid, status in statuses.items() if status == SUCCESS}


def test_disk_that_fills_up_and_is_emptied(node, disk, database_url, instances, study) -> None:
    one = node(disk, database_url)
    with one.sender() as sender:
        statuses = send(sender, instances)
        assert 3 <= len(accepted(statuses)) < len(instances)
        assert one.recorded(study).keys() == accepted(statuses)
        assert list((disk / "tmp").iterdir()) == []
        assert sender.echo() == 0
        for path in (disk / "blobs").glob("??/*"):
            path.unlink()
        refused = [each for each in instances if each[0] not in accepted(statuses)]
        assert accepted(send(sender, refused[:3])) == {uid for uid, _ in refused[:3]}
        sender.release()


def test_below_the_watermark_nothing_is_taken_until_there_is_room(
    node, disk, database_url, instances, study
) -> None:
    one = node(disk, database_url, min_free_bytes=3 * MIB)
    ballast = fill(disk, leave=5 * MIB)
    with one.sender() as sender:
        assert list(send(sender, instances[:3]).values()) == [SUCCESS, OUT_OF_RESOURCES, OUT_OF_RESOURCES]
        ballast.unlink()
        assert accepted(send(sender, instances[1:3])) == {uid for uid, _ in instances[1:3]}
    assert len(one.recorded(study)) == 3


def test_database_that_has_no_room(node, disk, tmp_path: Path, instances, study) -> None:
    url = f"sqlite:///{disk / 'msnode.db'}"
    upgrade(url)
    one = node(tmp_path / "store", url)
    with one.sender() as sender:
        before = accepted(send(sender, instances[:1]))
        ballast = fill(disk, leave=0)
        statuses = send(sender, instances[1:])
        assert OUT_OF_RESOURCES in statuses.values()
        assert sender.echo() == 0
        ballast.unlink()
        assert accepted(send(sender, instances[1:])) == {uid for uid, _ in instances[1:]}
        sender.release()
    assert one.recorded(study).keys() == before | {uid for uid, _ in instances[1:]}


def test_without_a_free_byte_an_association_is_answered_until_there_is_room(
    node, disk, instances, study
) -> None:
    url = f"sqlite:///{disk / 'msnode.db'}"
    upgrade(url)
    one = node(disk, url)
    ballast = fill(disk, leave=0)
    with one.sender() as sender:
        assert set(send(sender, instances[:3]).values()) == {OUT_OF_RESOURCES}
        assert sender.echo() == 0
        ballast.unlink()
        assert accepted(send(sender, instances[:3])) == {uid for uid, _ in instances[:3]}
        sender.release()
    assert one.recorded(study).keys() == {uid for uid, _ in instances[:3]}


def test_a_receiver_that_is_killed_without_a_free_byte_starts_again(disk, tmp_path: Path, instances) -> None:
    config, port = tmp_path / "msnode.toml", free_port()
    config.write_text(
        f'[node]\ndata_dir = "{disk}"\n[receive]\nport = {port}\nmin_free_mb = 0\n'
        f'[[destinations]]\nname = "out"\ntype = "folder"\npath = "{tmp_path}"\n'
    )
    command = [sys.executable, "-m", "msnode", "serve", "--role", "receiver", "--config", str(config)]
    with running(command, tmp_path / "first.log", ready=lambda: listens(port)) as first:
        with closing(RawSender(port)) as sender:
            assert sender.store(*instances[0]) == SUCCESS
        first.kill()
        first.wait()
    ballast = fill(disk, leave=0)
    with (
        running(command, tmp_path / "second.log", ready=lambda: listens(port)),
        closing(RawSender(port)) as sender,
    ):
        assert sender.store(*instances[1]) == OUT_OF_RESOURCES
        ballast.unlink()
        assert sender.store(*instances[1]) == SUCCESS
    assert "store_not_tested" in (tmp_path / "second.log").read_text()


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_MS", 200)


@pytest.mark.usefixtures("impatient")
def test_database_that_is_locked_for_too_long(node, tmp_path: Path, database_url, instances, study) -> None:
    one = node(tmp_path / "store", database_url)
    with one.sender() as sender:
        assert send(sender, instances[:1]) == {instances[0][0]: SUCCESS}
        with closing(sqlite3.connect(tmp_path / "msnode.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert sender.store(*instances[1]) == OUT_OF_RESOURCES
            assert sender.echo() == 0
        assert sender.store(*instances[1]) == SUCCESS
    assert len(one.recorded(study)) == 2


def test_database_server_that_is_away_for_a_while(
    node, tmp_path: Path, own_postgres, instances, study
) -> None:
    upgrade(own_postgres.url)
    one = node(tmp_path / "store", own_postgres.url)
    with one.sender() as sender:
        before = accepted(send(sender, instances[:2]))
        assert len(before) == 2
        own_postgres.stop()
        assert accepted(send(sender, instances[2:4])) == set()
        assert sender.echo() == 0
        own_postgres.start()
        assert len(accepted(send(sender, instances[2:]))) == len(instances) - 2
        sender.release()
    assert one.recorded(study).keys() == {uid for uid, _ in instances}


def test_bytes_that_were_stored_but_not_recorded_are_recorded_at_the_next_start(
    node, tmp_path: Path, own_postgres, instances, study
) -> None:
    """A sender that is told to try again, and never does."""
    upgrade(own_postgres.url)
    one = node(tmp_path / "store", own_postgres.url)
    with one.sender() as sender:
        assert sender.store(*instances[0]) == SUCCESS
        own_postgres.stop()
        assert sender.store(*instances[1]) == OUT_OF_RESOURCES
        own_postgres.start()
    assert one.spool.recover_unrecorded() == 1
    assert one.spool.recover_unrecorded() == 0
    assert len(one.recorded(study)) == 2


def test_blobs_from_long_before_the_last_record_are_not_looked_at(
    node, tmp_path: Path, database_url, instances
) -> None:
    one = node(tmp_path / "store", database_url)
    with one.sender() as sender:
        send(sender, instances[:3])
    with one.database.write() as tx:
        tx.execute(schema.instance.delete().where(schema.instance.c.id < 3))
    for path in (tmp_path / "store" / "blobs").glob("??/*"):
        os.utime(path, times=(0, 0))
    assert one.spool.recover_unrecorded() == 0
    with one.database.write() as tx:
        tx.execute(schema.instance.delete())
    assert one.spool.recover_unrecorded() == 3, "where nothing is recorded all of them are"
