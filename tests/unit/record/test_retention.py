import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from msnode.dicom.commitment import Reference, Request
from msnode.errors import OutOfResources
from msnode.record import audit, deliveries, jobs, schema
from msnode.record.delivery import Recipient, Verify
from msnode.record.job import JobState
from msnode.record.promises import promise
from msnode.record.results import finish_reading
from msnode.record.retention import remove_old
from msnode.store import Blob, Store

LATE = 10_000


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def received(record, store):
    """One study of two instances, read and delivering to a destination that confirms."""
    digests = []
    for number in (1, 2):
        blob = Blob(f"instance {number}".encode())
        store.put(blob)
        record.add(number, digest=blob.digest)
        digests.append(blob.digest)
    return digests


def deliver(record, verify):
    record.move(JobState.QUEUED)
    record.move(JobState.RUNNING)
    with record.database.write() as tx:
        job = jobs.find(tx, 1)
        finish_reading(
            tx, job, [record.result("sr")], {"pacs": Recipient(frozenset({"sr"}), verify)}, at=record.at(220),
            why="test", result_set="set-1",
        )  # fmt: skip
        (sr,) = deliveries.pending(tx, 1, "pacs")
        deliveries.delivered(tx, sr, at=record.at(230))
        return sr


def remove(record, store, *, before=LATE, limit=10):
    return remove_old(record.database, store, before=record.at(before), limit=limit)


def commit(record, delivery):
    with record.database.write() as tx:
        deliveries.committed(tx, delivery, at=record.at(300), note="committed")


def test_bytes_go_once_the_results_are_confirmed(record, store, received):
    delivery = deliver(record, Verify.COMMITMENT)
    assert record.job().state == JobState.DELIVERED
    assert remove(record, store) == 0
    commit(record, delivery)
    assert record.job().state == JobState.COMPLETED
    assert remove(record, store) == 2
    assert not any(store.has_blob(digest) for digest in received)
    assert remove(record, store) == 0
    found = record.arrivals.study_instances("1.1")
    assert [i.digest for i in found] == received
    assert all(i.removed_at is not None for i in found)
    with record.database.read() as tx:
        assert audit.verify(tx) is None
        assert "received_bytes_removed" in tx.execute(schema.audit.select()).all()[-1].event


def test_age_runs_from_the_last_instance(record, store, received):
    deliver(record, Verify.NONE)
    assert remove(record, store, before=0) == 0
    assert remove(record, store, before=1) == 2


@pytest.mark.parametrize("state", [JobState.RECEIVING, JobState.QUEUED, JobState.RUNNING, JobState.FAILED])
def test_bytes_of_a_study_that_is_not_done_stay(record, store, received, state):
    for step in (JobState.QUEUED, JobState.RUNNING, JobState.FAILED):
        if record.job().state != state:
            record.move(step)
    assert record.job().state == state
    assert remove(record, store) == 0
    assert all(store.has_blob(digest) for digest in received)


@pytest.mark.parametrize("state", [JobState.PASSED_OVER, JobState.CANCELLED])
def test_bytes_of_a_study_without_results_go(record, store, received, state):
    record.move(state)
    assert remove(record, store) == 2


def test_a_destination_that_could_confirm_nothing_keeps_the_bytes(record, store, received):
    delivery = deliver(record, Verify.FIND)
    with record.database.write() as tx:
        deliveries.cannot_confirm(tx, delivery, at=record.at(300), note="no C-FIND")
    assert record.job().state == JobState.COMPLETED
    assert remove(record, store) == 0


def test_what_a_peer_was_promised_stays(record, store, received):
    deliver(record, Verify.NONE)
    with record.database.write() as tx:
        tx.execute(schema.instance.update().where(schema.instance.c.id == 1).values(promised=True))
    assert remove(record, store) == 0


def test_a_later_revision_that_is_not_done_keeps_the_bytes(record, store, received):
    deliver(record, Verify.NONE)
    record.add(3, seconds=500)
    assert remove(record, store) == 0


def test_bytes_that_were_removed_before_a_kill_are_noted_by_the_next_call(record, store, received):
    deliver(record, Verify.NONE)
    store.remove(received[0])
    assert remove(record, store) == 2


def test_work_is_bounded(record, store, received):
    record.move(JobState.CANCELLED)
    blob = Blob(b"another")
    store.put(blob)
    record.add(9, digest=blob.digest, study_instance_uid="1.9", series_instance_uid="1.9.1")
    record.move(JobState.CANCELLED, job_id=2)
    assert [remove(record, store, limit=1) for _ in range(3)] == [2, 1, 0]


def test_a_kill_in_the_middle_is_made_up_for_by_the_next_call(record, store, received, monkeypatch):
    deliver(record, Verify.NONE)
    remove_one, removed = store.remove, []

    def killed_at_the_second(digest):
        if removed:
            raise OutOfResources("as good as killed")
        removed.append(digest)
        remove_one(digest)

    with monkeypatch.context() as patch:
        patch.setattr(store, "remove", killed_at_the_second)
        with pytest.raises(OutOfResources):
            remove(record, store)
    assert [i.removed_at for i in record.arrivals.study_instances("1.1")] == [None, None]
    assert remove(record, store) == 2
    assert list(store.blobs()) == []


def test_instance_that_is_sent_again_while_its_bytes_are_removed_has_bytes_afterwards(
    record, store, received, monkeypatch
):
    deliver(record, Verify.NONE)
    again, remove_one, senders = threading.Event(), store.remove, []
    blob = Blob(b"instance 1")

    def send_again():
        store.put(blob)
        again.set()
        arrival = record.arrival(1, digest=blob.digest, seconds=20_000)
        record.arrivals.add(arrival, keep_bytes=lambda _: store.has_blob(blob.digest) or store.put(blob))

    def meanwhile(digest):
        if not senders:
            senders.append(threading.Thread(target=send_again))
            senders[0].start()
            assert again.wait(20), "put, and waiting to be recorded"
        remove_one(digest)

    with monkeypatch.context() as patch:
        patch.setattr(store, "remove", meanwhile)
        assert remove(record, store) == 2
    senders[0].join()
    first, second = record.arrivals.study_instances("1.1")
    assert (first.removed_at, store.has_blob(first.digest)) == (None, True)
    assert (second.removed_at is None, store.has_blob(second.digest)) == (False, False)
    assert record.jobs()[-1].state == JobState.RECEIVING, "a reading may lack it"
    assert remove(record, store) == 0, "it is to be read again"


def test_promise_made_meanwhile_is_kept(record, store, received):
    deliver(record, Verify.NONE)
    reference = Reference(record.arrival(1).sop_class_uid, record.arrival(1).sop_instance_uid)
    with ThreadPoolExecutor(1) as pool:
        with record.database.write() as tx:
            promise(tx, Request("1.2.9", (reference,)), has_bytes=store.has_blob)
            removal = pool.submit(remove, record, store)
            with pytest.raises(TimeoutError):
                removal.result(timeout=0.5)
        assert removal.result(timeout=20) == 0
    assert all(store.has_blob(digest) for digest in received)
