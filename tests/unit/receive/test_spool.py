import errno
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from msnode.domain.arrivals import Arrival, AssociationFacts
from msnode.errors import OutOfResources
from msnode.receive.ledger import MemoryLedger
from msnode.receive.request import StoreRequest
from msnode.receive.spool import Spool
from msnode.store import Store, quarantined
from support.dicom_files import encoded, flair_series

FACTS = AssociationFacts("a1", "SENDER", "MSNODE", "127.0.0.1", datetime(2024, 1, 2, tzinfo=UTC))


@pytest.fixture
def image(tmp_path: Path) -> Dataset:
    return dcmread(flair_series(tmp_path / "in", slices=3)[2])


def request(ds: Dataset, **command: Any) -> StoreRequest:
    """An instance as it comes in; `command` says what the command says otherwise."""
    as_it_should_be = StoreRequest(
        str(ds.SOPClassUID), str(ds.SOPInstanceUID), str(ExplicitVRLittleEndian), encoded(ds)
    )
    return replace(as_it_should_be, **command)


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


@pytest.fixture
def spool(tmp_path: Path, ledger: MemoryLedger) -> Callable[..., Spool]:
    def make(*, same: bool = False, also_accept: frozenset[str] = frozenset()) -> Spool:
        store = Store(tmp_path / "store", durable=False)
        return Spool(
            store, ledger, same_image=lambda _one, _other: same, min_free_bytes=0, also_accept=also_accept
        )

    return make


def test_success_comes_after_bytes_and_ledger(spool, ledger, image, tmp_path: Path) -> None:
    one = spool()
    assert one.receive(request(image), FACTS).status == 0x0000
    (arrival,) = ledger.arrivals
    stored = Store(tmp_path / "store").blob_path(arrival.digest)
    assert dcmread(stored) == image
    assert stored.read_bytes().endswith(encoded(image))
    assert (arrival.slice_position_mm, arrival.frame_count) == (pytest.approx(6.0), 1)
    assert (arrival.association_id, arrival.received_at.tzinfo) == ("a1", UTC)


def test_sop_class_that_was_not_negotiated_for_reading(spool, ledger, image) -> None:
    assert spool().receive(request(image, sop_class_uid=CTImageStorage), FACTS).status == 0x0122
    accepting = spool(also_accept=frozenset({CTImageStorage}))
    assert accepting.receive(request(image, sop_class_uid=CTImageStorage), FACTS).status == 0x0000
    assert ledger.arrivals == []


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_data_set_that_differs_from_the_command(spool, ledger, image, keyword: str) -> None:
    sent = request(image)
    setattr(image, keyword, "1.2.3.4")
    assert spool().receive(replace(sent, data=encoded(image)), FACTS).status == 0xA900
    assert ledger.arrivals == []


@pytest.mark.parametrize("uid", ["../../x", "1.2.03", "1" * 65, "", "1..2", "1.2\n"])
def test_instance_uid_that_is_none_cannot_be_understood(spool, ledger, image, uid: str) -> None:
    answer = spool().receive(request(image, sop_instance_uid=uid), FACTS)
    assert answer.status == 0xC000
    assert len(answer.comment) <= 64
    assert ledger.arrivals == []


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_study_and_series_uid_must_be_valid(spool, image, keyword: str) -> None:
    delattr(image, keyword)
    answer = spool().receive(request(image), FACTS)
    assert (answer.status, keyword.partition("Instance")[0] in answer.comment) == (0xC000, True)


def test_full_disk_while_writing_is_out_of_resources(spool, ledger, image, monkeypatch) -> None:
    one = spool()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "_write", full)
    assert one.receive(request(image), FACTS).status == 0xA700
    assert ledger.arrivals == []


def test_ledger_that_cannot_write_is_out_of_resources(spool, ledger, image, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OutOfResources("database locked")

    monkeypatch.setattr(ledger, "add", broken)
    assert spool().receive(request(image), FACTS).status == 0xA700


@pytest.mark.parametrize(("same", "status", "count"), [(True, 0x0000, 2), (False, 0xC000, 1)])
def test_known_uid_with_other_bytes(*, spool, ledger, image, same: bool, status: int, count: int) -> None:
    one = spool(same=same)
    one.receive(request(image), FACTS)
    image.PatientID = "OTHER"
    assert one.receive(request(image), FACTS).status == status
    assert len(ledger.arrivals) == count
    assert len(ledger.audited) == 1


def test_known_uid_whose_bytes_were_removed_is_taken_again(spool, ledger, image, tmp_path: Path) -> None:
    one = spool()
    one.receive(request(image), FACTS)
    Store(tmp_path / "store").blob_path(ledger.arrivals[0].digest).unlink()
    image.PatientID = "OTHER"
    assert one.receive(request(image), FACTS).status == 0x0000


def test_refused_bytes_are_not_kept_unless_a_version_has_them(spool, ledger, image, tmp_path: Path) -> None:
    one, store = spool(same=False), Store(tmp_path / "store")
    one.receive(request(image), FACTS)
    image.PatientID = "OTHER"
    assert one.receive(request(image), FACTS).status == 0xC000
    assert list(store.blobs()) == [ledger.arrivals[0].digest]
    ledger.arrivals.insert(0, replace(ledger.arrivals[0], digest=refused_digest(ledger)))
    assert one.receive(request(image), FACTS).status == 0xC000
    assert len(list(store.blobs())) == 2, "an earlier version's bytes are left alone"


def refused_digest(ledger: MemoryLedger) -> str:
    return ledger.audited[-1][1]["new_digest"]


def test_version_that_changes_while_it_is_compared_is_compared_again(
    spool, ledger, image, tmp_path: Path
) -> None:
    store, compared = Store(tmp_path / "store"), []
    one = Spool(store, ledger, same_image=lambda known, _: compared.append(known.stem), min_free_bytes=0)
    one.receive(request(image), FACTS)
    first = ledger.arrivals[0]

    def somebody_else_is_faster(known: Path, new: Path) -> bool:
        compared.append(known.stem)
        if len(compared) == 1:
            ledger.arrivals.append(replace(first, digest=other))
        return True

    one._same_image = somebody_else_is_faster
    image.PatientID = "THEIRS"
    Spool(store, MemoryLedger(), same_image=lambda *_: True, min_free_bytes=0).receive(request(image), FACTS)
    (other,) = set(store.blobs()) - {first.digest}
    image.PatientID = "OURS"
    assert one.receive(request(image), FACTS).status == 0x0000
    assert compared == [first.digest, other]
    assert ledger.arrivals[-1].replaces == other


def test_bytes_that_retention_took_meanwhile_are_put_again(spool, ledger, image, tmp_path: Path) -> None:
    one, store = spool(), Store(tmp_path / "store")
    one.receive(request(image), FACTS)
    digest = ledger.arrivals[0].digest
    add = ledger.add

    def after_retention(*arrivals, keep_bytes):
        store.remove(digest)
        return add(*arrivals, keep_bytes=keep_bytes)

    ledger.add = after_retention
    assert one.receive(request(image), FACTS).status == 0x0000
    assert store.has_blob(digest)


def test_no_memory_is_out_of_resources(spool, ledger, image) -> None:
    assert spool().receive(request(image, data=None), FACTS).status == 0xA700
    assert ledger.arrivals == []


def test_own_objects_are_known_by_equipment(spool, ledger, image) -> None:
    one = spool(same=True)
    item = Dataset()
    item.Manufacturer = "msnode"
    image.ContributingEquipmentSequence = [item]
    one.receive(request(image), FACTS)
    item.Manufacturer = "Somebody Else"
    one.receive(request(image), FACTS)
    assert [a.own for a in ledger.arrivals] == [True, False]


def test_no_patient_data_in_logs_or_answers(spool, image, capsys, caplog) -> None:
    caplog.set_level(0)
    image.PatientName, image.PatientID, image.PatientBirthDate = "Secret^Name", "SECRETID", "19771231"
    one = spool()
    one.receive(request(image), FACTS)
    image.PixelData = bytes(len(image.PixelData))
    answer = one.receive(request(image), FACTS)
    written = "".join([*capsys.readouterr(), caplog.text, answer.comment])
    assert "instance_refused" in written
    assert not any(secret in written for secret in ("Secret", "SECRETID", "19771231"))


def test_bytes_without_a_record_are_recorded_at_the_next_start(spool, ledger, image) -> None:
    one = spool()
    one.receive(request(image), FACTS)
    (arrival,) = ledger.arrivals
    assert one.recover_unrecorded() == 0
    ledger.arrivals.clear()
    assert one.recover_unrecorded() == 1
    (again,) = ledger.arrivals
    assert again.association_id.startswith("lost-")
    same = {"association_id", "received_at"}
    assert {k: v for k, v in vars(again).items() if k not in same} == {
        k: v for k, v in vars(arrival).items() if k not in same
    }


def test_only_bytes_from_about_the_last_record_on_are_looked_at(spool, ledger, image, tmp_path: Path) -> None:
    one, store = spool(), Store(tmp_path / "store")
    for number in (1, 2, 3):
        image.SOPInstanceUID = f"1.2.3.{number}"
        one.receive(request(image), FACTS)
    old, lost, last = ledger.arrivals
    os.utime(store.blob_path(old.digest), times=2 * (last.received_at.timestamp() - 7200,))
    ledger.arrivals[:] = [last]
    assert one.recover_unrecorded() == 1
    assert {a.digest for a in ledger.arrivals} == {last.digest, lost.digest}


def test_stored_bytes_that_cannot_be_recorded_are_set_aside_and_the_others_are_recorded(
    spool, ledger, image, tmp_path: Path, capsys
) -> None:
    one, store = spool(), Store(tmp_path / "store")
    for number in (1, 2, 3):
        image.SOPInstanceUID = f"1.2.3.{number}"
        one.receive(request(image), FACTS)
    refused = ledger.arrivals[1].digest
    ledger.arrivals.clear()
    store.blob_path("ab" * 32).write_bytes(b"damaged")
    add_lost = ledger.add_lost

    def add(arrival: Arrival) -> int:
        if arrival.digest == refused:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        return add_lost(arrival)

    ledger.add_lost = add
    assert one.recover_unrecorded() == 2
    aside = {refused, "ab" * 32}
    assert set(quarantined(store.root)) == aside
    assert {
        facts["digest"] for event, facts in ledger.audited if event == "stored_instance_set_aside"
    } == aside
    assert capsys.readouterr().out.count("stored_instance_set_aside") == 2
    assert aside.isdisjoint(store.blobs())
    assert one.recover_unrecorded() == 0, "nothing is left to set aside"


def test_a_record_that_does_not_answer_sets_nothing_aside(spool, ledger, image, tmp_path: Path) -> None:
    one = spool()
    one.receive(request(image), FACTS)
    ledger.arrivals.clear()

    def gone(*_: object) -> int:
        raise OutOfResources("the database does not answer")

    ledger.add_lost = gone
    with pytest.raises(OutOfResources):
        one.recover_unrecorded()
    assert quarantined(tmp_path / "store") == ()


def test_an_error_that_nothing_foresaw_is_logged_and_answered_and_leaves_no_bytes(
    spool, ledger, image, tmp_path: Path, capsys
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    one, add = spool(), ledger.add
    ledger.add = broken
    assert one.receive(request(image), FACTS).status == 0x0110
    assert "storing_failed" in capsys.readouterr().out
    assert list(Store(tmp_path / "store").blobs()) == []
    ledger.add = add
    assert one.receive(request(image), FACTS).status == 0x0000
    ledger.add = broken
    assert one.receive(request(image), FACTS).status == 0x0110
    assert list(Store(tmp_path / "store").blobs()) == [ledger.arrivals[0].digest], "a version has these bytes"


def test_known_bytes_that_have_changed_are_set_aside_and_refuse_nothing(
    spool, ledger, image, tmp_path: Path, capsys
) -> None:
    one, store = spool(same=False), Store(tmp_path / "store")
    one.receive(request(image), FACTS)
    known = ledger.arrivals[0].digest
    store.blob_path(known).write_bytes(b"changed")
    image.PatientID = "OTHER"
    assert one.receive(request(image), FACTS).status == 0x0000
    assert quarantined(store.root) == (known,)
    assert "stored_instance_set_aside" in capsys.readouterr().out


def test_lost_bytes_that_have_changed_are_not_recorded(spool, ledger, image, tmp_path: Path) -> None:
    one, store = spool(), Store(tmp_path / "store")
    one.receive(request(image), FACTS)
    digest = ledger.arrivals.pop().digest
    content = store.blob_path(digest).read_bytes()
    store.blob_path(digest).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert one.recover_unrecorded() == 0
    assert (quarantined(store.root), ledger.arrivals) == ((digest,), [])
