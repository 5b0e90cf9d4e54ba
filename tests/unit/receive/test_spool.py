import errno
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

from msnode.domain import AssociationFacts
from msnode.errors import NotReadable, OutOfResources
from msnode.receive.incoming import read_filing, valid_uid
from msnode.receive.spool import MemoryLedger, Spool
from msnode.store import Store
from support.dicom_files import enhanced_flair, flair_series

FACTS = AssociationFacts("a1", "SENDER", "MSNODE", "127.0.0.1", datetime(2024, 1, 2, tzinfo=UTC))


def encoded(ds: Dataset, *, implicit: bool = False) -> bytes:
    from pydicom.filebase import DicomBytesIO  # noqa: PLC0415 - only this function writes raw data sets

    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    plain = Dataset()
    plain.update({element.tag: element for element in ds})
    write_dataset(buffer, plain)
    return buffer.getvalue()


@pytest.fixture
def image(tmp_path: Path) -> Dataset:
    return dcmread(flair_series(tmp_path / "in", slices=3)[2])


def request(ds: Dataset, **command: Any) -> Any:
    """What pynetdicom hands to a C-STORE handler."""
    data = command.pop("data", None) or encoded(ds)
    affected = {"AffectedSOPClassUID": ds.SOPClassUID, "AffectedSOPInstanceUID": ds.SOPInstanceUID}
    affected |= command
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = affected["AffectedSOPClassUID"]
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return SimpleNamespace(
        request=SimpleNamespace(**affected, DataSet=BytesIO(data)),
        context=SimpleNamespace(transfer_syntax=ExplicitVRLittleEndian),
        file_meta=meta,
        encoded_dataset=lambda **_: data,
    )


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
    assert spool().receive(request(image, AffectedSOPClassUID=CTImageStorage), FACTS).status == 0x0122
    accepting = spool(also_accept=frozenset({CTImageStorage}))
    assert accepting.receive(request(image, AffectedSOPClassUID=CTImageStorage), FACTS).status == 0x0000
    assert ledger.arrivals == []


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
def test_data_set_that_differs_from_the_command(spool, ledger, image, keyword: str) -> None:
    sent = request(image)
    setattr(image, keyword, "1.2.3.4")
    data = encoded(image)
    sent.encoded_dataset = lambda **_: data
    assert spool().receive(sent, FACTS).status == 0xA900
    assert ledger.arrivals == []


@pytest.mark.parametrize("uid", ["../../x", "1.2.03", "1" * 65, "", "1..2", "1.2\n"])
def test_instance_uid_that_is_none_cannot_be_understood(spool, ledger, image, uid: str) -> None:
    answer = spool().receive(request(image, AffectedSOPInstanceUID=uid), FACTS)
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
    def broken(_: object) -> None:
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


def test_own_objects_are_known_by_equipment_or_uid(spool, ledger, image) -> None:
    one = spool(same=True)
    ledger.outputs.add(str(image.SOPInstanceUID))
    one.receive(request(image), FACTS)
    ledger.outputs.clear()
    item = Dataset()
    item.Manufacturer = "msnode"
    image.ContributingEquipmentSequence = [item]
    one.receive(request(image), FACTS)
    item.Manufacturer = "Somebody Else"
    one.receive(request(image), FACTS)
    assert [a.own for a in ledger.arrivals] == [True, True, False]


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


@pytest.mark.parametrize("implicit", [False, True])
def test_cut_off_data_set_is_not_readable_wherever_it_ends(image, *, implicit: bool) -> None:
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    data = encoded(image, implicit=implicit)
    assert read_filing(data, syntax).modality == "MR"
    pixels = len(image.PixelData)
    for end in (0, 1, 50, 200, len(data) - pixels - 3, len(data) - pixels, len(data) - 1):
        with pytest.raises(NotReadable):
            read_filing(data[:end], syntax)


def test_cut_off_encapsulated_pixel_data_is_not_readable(image) -> None:
    image.compress(RLELossless, generate_instance_uid=False)
    data = encoded(image)
    assert read_filing(data, RLELossless).frame_count == 1
    for cut in (1, 8, 20, 500):
        with pytest.raises(NotReadable):
            read_filing(data[:-cut], RLELossless)


def test_no_pixel_data_is_readable_but_unsuitable(image) -> None:
    del image.PixelData
    assert read_filing(encoded(image), ExplicitVRLittleEndian).sop_class_uid == MRImageStorage


def test_place_is_known_only_for_a_classic_plane(image, tmp_path: Path) -> None:
    enhanced = dcmread(enhanced_flair(tmp_path / "e.dcm"))
    filing = read_filing(encoded(enhanced), ExplicitVRLittleEndian)
    assert (filing.frame_count, filing.slice_position_mm) == (12, None)
    image.ImageOrientationPatient = [0, 0, 0, 0, 0, 0]
    assert read_filing(encoded(image), ExplicitVRLittleEndian).slice_position_mm is None
    del image.ImagePositionPatient
    assert read_filing(encoded(image), ExplicitVRLittleEndian).slice_position_mm is None


@given(data=st.binary(max_size=300), implicit=st.booleans())
def test_noise_is_not_readable(*, data: bytes, implicit: bool) -> None:
    with pytest.raises(NotReadable):
        read_filing(data, ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.1", "2.25.0", "0.1"])
def test_valid_uid(uid: str) -> None:
    assert valid_uid(uid)


def test_bytes_without_a_record_are_recorded_at_the_next_start(spool, ledger, image) -> None:
    one = spool()
    one.receive(request(image), FACTS)
    (arrival,) = ledger.arrivals
    assert one.index_again({arrival.digest}) == 0
    ledger.arrivals.clear()
    assert one.index_again(set()) == 1
    (again,) = ledger.arrivals
    assert again.association_id.startswith("lost-")
    same = {"association_id", "received_at"}
    assert {k: v for k, v in vars(again).items() if k not in same} == {
        k: v for k, v in vars(arrival).items() if k not in same
    }
