"""DCMTK's senders, and sockets that misbehave, against the listener."""

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage

from msnode.errors import ConfigurationError
from msnode.receive.accepted import sop_class_uids
from msnode.receive.admission import Peer
from msnode.receive.ledger import MemoryLedger
from msnode.receive.limits import Limits
from msnode.receive.scp import Receiver
from msnode.receive.spool import Spool
from msnode.series.comparison import same_image
from msnode.store import Store
from support.dicom_files import change, change_all, enhanced_flair, flair_series
from support.environment import peer, shared_data
from support.peers import wait_until

pytestmark = pytest.mark.peer

AE_TITLE = "MSNODE"


class Node:
    """A listener with its ledger and store."""

    def __init__(self, root: Path, **options: object) -> None:
        self.ledger = MemoryLedger()
        self.store = Store(root / "store", durable=False)
        spool = Spool(
            self.store,
            self.ledger,
            same_image=same_image,
            min_free_bytes=int(options.get("min_free_bytes", 0)),
            also_accept=sop_class_uids(options.get("also_accept", ())),
        )
        self.receiver = Receiver(
            AE_TITLE, "127.0.0.1", 0, options.get("peers", ()), spool, limits=options.get("limits")
        )
        self.receiver.start()

    def await_closed(self, count: int = 1) -> list[bool]:
        with self.ledger.changed:
            assert self.ledger.changed.wait_for(lambda: len(self.ledger.closed) >= count, timeout=20)
        return list(self.ledger.closed.values())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    started: list[Node] = []

    def start(**options: object) -> Node:
        one = Node(tmp_path / f"node{len(started)}", **options)
        started.append(one)
        return one

    yield start
    for one in started:
        one.receiver.stop()


def run(tool: str, node: Node, *arguments: object, called: str = AE_TITLE, calling: str = "SENDER"):
    command = [peer(tool), "-v", "-aec", called, "-aet", calling, *map(str, arguments)]
    where = command.index("127.0.0.1") if "127.0.0.1" in command else len(command)
    command[where:where] = ["127.0.0.1", str(node.receiver.port)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
        check=False,
    )


def storescu(node: Node, files: list[Path], *options: str, **titles: str):
    command = [peer("storescu"), "-v", "-aec", titles.get("called", AE_TITLE)]
    command += ["-aet", titles.get("calling", "SENDER"), *options, "127.0.0.1", str(node.receiver.port)]
    return subprocess.run(
        [*command, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
        check=False,
    )


def send_raw(node: Node, path: Path, **request: object):
    """One C-STORE by pynetdicom, for what DCMTK's sender would refuse to send; returns the response."""
    ae = AE(ae_title="SENDER")
    dataset = dcmread(path)
    ae.add_requested_context(MRImageStorage, dataset.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", node.receiver.port, ae_title=AE_TITLE)
    assert association.is_established
    try:
        for keyword, value in request.items():
            setattr(dataset, keyword, value)
        return association.send_c_store(dataset)
    finally:
        association.release()


def connect(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.receiver.port), timeout=60)


def blobs(node: Node) -> list[str]:
    """Digests of what the node has stored."""
    return list(node.store.blobs())


def closed_by_node(client: socket.socket) -> bool:
    """Wait until the node closes the connection (an abort may come first)."""
    try:
        while client.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_echo(node) -> None:
    one = node()
    assert run("echoscu", one).returncode == 0
    assert one.ledger.opened == [], "what can bring nothing is not written down"


def test_instances_are_stored_byte_for_byte_before_success(node, tmp_path: Path) -> None:
    one = node()
    files = flair_series(tmp_path / "in", slices=6)
    assert storescu(one, files).returncode == 0
    assert one.await_closed() == [True]
    assert [a.slice_position_mm for a in one.ledger.arrivals] == pytest.approx([-15, -9, -3, 3, 9, 15])
    assert {a.calling_ae for a in one.ledger.opened} == {"SENDER"}
    for arrival, path in zip(one.ledger.arrivals, files, strict=True):
        stored = dcmread(one.store.blob_path(arrival.digest))
        assert stored == dcmread(path)
        assert (arrival.own, arrival.modality, arrival.patient_key) == (False, "MR", ("", "PAT001"))


@pytest.mark.parametrize(
    ("tool", "option", "propose"),
    [
        ("dcmcrle", "", "-xr"),
        ("dcmcjpeg", "+e1", "-xs"),
        ("dcmcjpls", "+el", "-xt"),
    ],
)
def test_compressed_transfer_syntaxes(node, tmp_path: Path, tool: str, option: str, propose: str) -> None:
    one = node()
    plain = flair_series(tmp_path / "in", slices=1)[0]
    packed = tmp_path / "packed.dcm"
    peer("storescu")  # the same package brings the compressors
    subprocess.run([f"/usr/bin/{tool}", *option.split(), plain, packed], check=True, capture_output=True)
    assert storescu(one, [packed], propose).returncode == 0
    (arrival,) = one.ledger.arrivals
    assert arrival.transfer_syntax_uid == str(dcmread(packed).file_meta.TransferSyntaxUID)
    assert same_image(plain, one.store.blob_path(arrival.digest))


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "propose"),
    [
        ("dicom/dcm_qa/In/Orientation/axmb/AxInt36mb/jp2k1.dcm", "-xv"),
        ("dicom/dcm_qa/In/Orientation/axmb/AxAsc36mb2a/jpg1.dcm", "-xs"),
    ],
)
def test_vendor_jpeg_files_are_taken(node, file: str, propose: str) -> None:
    one = node()
    assert storescu(one, [shared_data(file)], propose).returncode == 0
    assert len(one.ledger.arrivals) == 1


def test_implicit_and_enhanced_are_taken(node, tmp_path: Path) -> None:
    one = node()
    implicit = flair_series(tmp_path / "in", slices=1)
    assert storescu(one, implicit, "-xi").returncode == 0
    assert storescu(one, [enhanced_flair(tmp_path / "enhanced.dcm")]).returncode == 0
    classic, enhanced = one.ledger.arrivals
    assert classic.transfer_syntax_uid == "1.2.840.10008.1.2"
    assert (enhanced.frame_count, enhanced.slice_position_mm) == (12, None)


def test_wrong_called_ae_title_is_rejected(node) -> None:
    one = node()
    answer = run("echoscu", one, called="SOMEBODY")
    assert answer.returncode != 0
    assert "Called AE Title Not Recognized" in answer.stderr
    assert one.ledger.opened == []


def test_calling_ae_title_must_be_on_the_list(node) -> None:
    one = node(peers=(Peer("KNOWN", ("127.0.0.0/8",)),))
    answer = run("echoscu", one, calling="STRANGER")
    assert answer.returncode != 0
    assert "Calling AE Title Not Recognized" in answer.stderr
    assert run("echoscu", one, calling="KNOWN").returncode == 0


def test_known_ae_title_from_another_address_is_rejected(node) -> None:
    one = node(peers=(Peer("KNOWN", ("192.0.2.0/24",)),))
    assert run("echoscu", one, calling="KNOWN").returncode != 0
    assert one.ledger.opened == []


def test_declared_pdu_length_over_the_cap_closes_the_connection(node) -> None:
    one = node(limits=Limits(max_pdu_bytes=64 * 1024))
    with connect(one) as client:
        client.sendall(struct.pack(">BBL", 0x01, 0, 200 * 1024 * 1024))
        assert closed_by_node(client)
    assert run("echoscu", one).returncode == 0


def test_half_a_header_then_silence_is_closed_at_the_deadline(node) -> None:
    one = node(limits=Limits(pdu_timeout_s=0.5))
    with connect(one) as client:
        client.sendall(b"\x01\x00")
        assert closed_by_node(client)
    assert run("echoscu", one).returncode == 0


def test_connections_of_one_address_are_capped(node) -> None:
    one = node(limits=Limits(max_connections_per_address=2))
    with connect(one), connect(one):
        # the server announces no accepted connection
        wait_until(lambda: len(one.receiver._server.active_associations) == 2, what="two are accepted")
        with connect(one) as third:
            assert closed_by_node(third)
    # both have gone without a request
    wait_until(lambda: not one.receiver._server.active_associations, what="their places are free again")
    assert run("echoscu", one).returncode == 0


def test_message_over_the_cap_closes_the_connection(node, tmp_path: Path) -> None:
    one = node(limits=Limits(max_message_bytes=4096))
    assert storescu(one, flair_series(tmp_path / "in", slices=1)).returncode != 0
    assert one.await_closed() == [False]
    assert one.ledger.arrivals == []


def test_other_sop_classes_are_refused_unless_also_accepted(node, tmp_path: Path) -> None:
    capture = change(flair_series(tmp_path / "in", slices=1)[0], SOPClassUID=SecondaryCaptureImageStorage)
    closed, opened = node(), node(also_accept=["SecondaryCaptureImageStorage", CTImageStorage])
    assert (
        "No presentation context" in storescu(closed, [capture]).stderr + storescu(closed, [capture]).stdout
    )
    assert storescu(opened, [capture]).returncode == 0
    assert opened.ledger.arrivals == []
    assert blobs(opened) == []


def test_same_bytes_again_are_silent(node, tmp_path: Path) -> None:
    one = node()
    files = flair_series(tmp_path / "in", slices=1)
    for _ in range(3):
        assert storescu(one, files).returncode == 0
    assert len(blobs(one)) == 1
    assert len(one.ledger.arrivals) == 3
    assert one.ledger.audited == []


def test_same_image_with_another_header_is_a_new_version(node, tmp_path: Path) -> None:
    one = node()
    files = flair_series(tmp_path / "in", slices=1)
    assert storescu(one, files).returncode == 0
    change_all(files, PatientID="MERGED")
    assert storescu(one, files).returncode == 0
    assert [a.patient_key[1] for a in one.ledger.arrivals] == ["PAT001", "MERGED"]
    assert [event for event, _ in one.ledger.audited] == ["instance_new_version"]
    assert len(blobs(one)) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"PixelData": bytes(64 * 64 * 2)},
        {"ImagePositionPatient": [0, 0, 1]},
    ],
)
def test_other_pixels_or_geometry_under_a_known_uid_are_refused(node, tmp_path: Path, other: dict) -> None:
    one = node()
    files = flair_series(tmp_path / "in", slices=1)
    assert storescu(one, files).returncode == 0
    response = send_raw(one, change(files[0], **other))
    assert response.Status == 0xC000
    assert "other pixels or geometry" in response.ErrorComment
    assert [event for event, _ in one.ledger.audited] == ["instance_refused_other_pixels"]
    assert len(blobs(one)) == 1


def test_no_room_answers_out_of_resources(node, tmp_path: Path) -> None:
    one = node(min_free_bytes=10**18)
    response = send_raw(one, flair_series(tmp_path / "in", slices=1)[0])
    assert response.Status == 0xA700
    assert one.ledger.arrivals == []


def test_truncated_data_set_cannot_be_understood(node, tmp_path: Path) -> None:
    one = node()
    path = flair_series(tmp_path / "in", slices=1)[0]
    path.write_bytes(path.read_bytes()[:-100])
    command = [peer("storescu"), "-aec", AE_TITLE, "127.0.0.1", str(one.receiver.port), str(path)]
    subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert one.ledger.arrivals == []
    assert run("echoscu", one).returncode == 0


def test_abort_in_the_middle_counts_as_interrupted(node, tmp_path: Path) -> None:
    one = node()
    path = flair_series(tmp_path / "in", slices=1)[0]
    ae = AE(ae_title="SENDER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", one.receiver.port, ae_title=AE_TITLE)
    assert association.send_c_store(dcmread(path)).Status == 0
    association.abort()
    assert one.await_closed() == [False]
    assert len(one.ledger.arrivals) == 1


def test_lost_connection_counts_as_interrupted(node, tmp_path: Path) -> None:
    one = node()
    files = flair_series(tmp_path / "in", pixels=np.zeros((150, 256, 256), dtype=np.uint16))
    command = [peer("storescu"), "-aec", AE_TITLE, "127.0.0.1", str(one.receiver.port), *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sender:
        with one.ledger.changed:
            assert one.ledger.changed.wait_for(lambda: one.ledger.arrivals, timeout=30)
        sender.kill()
    assert one.await_closed() == [False]
    assert 0 < len(one.ledger.arrivals) < 150


def test_stop_ends_open_associations_and_frees_the_port(node) -> None:
    one = node()
    ae = AE(ae_title="SENDER")
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", one.receiver.port, ae_title=AE_TITLE)
    port = one.receiver.port
    one.receiver.stop()
    assert one.await_closed() == [False]
    association.join(timeout=10)
    assert not association.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_port_in_use_is_a_configuration_error(node, tmp_path: Path) -> None:
    one = node()
    taken = one.receiver.port
    other = Receiver(AE_TITLE, "127.0.0.1", taken, (), one.receiver._spool)
    with pytest.raises(ConfigurationError, match=str(taken)):
        other.start()


def test_instances_from_parallel_senders_all_arrive(node, tmp_path: Path) -> None:
    one = node()
    batches = [flair_series(tmp_path / str(n), slices=5, study=str(n)) for n in range(4)]
    threads = [threading.Thread(target=storescu, args=(one, batch)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.await_closed(4) == [True] * 4
    assert len({a.sop_instance_uid for a in one.ledger.arrivals}) == 20


def test_no_patient_data_in_any_log(node, tmp_path: Path, capsys, caplog) -> None:
    caplog.set_level("DEBUG")
    one = node()
    files = flair_series(tmp_path / "in", slices=2, patient_name="Secret^Name", patient_id="SECRETID")
    assert storescu(one, files).returncode == 0
    one.await_closed()
    written = "".join([*capsys.readouterr(), caplog.text])
    assert "association_opened" in written
    assert not any(secret in written for secret in ("Secret", "SECRETID", "19800101"))
