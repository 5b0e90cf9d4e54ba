"""Reports and requests of storage commitment at the listener, over the wire."""

from dataclasses import dataclass, field

import pytest
from pydicom.uid import MRImageStorage

from msnode.dicom.commitment import PROCESSING_FAILURE, SUCCESS, Reference, Report, Request
from msnode.dicom.contexts import COMMITMENT, VERIFICATION, Context
from msnode.receive.admission import Peer
from msnode.receive.ledger import MemoryLedger
from msnode.receive.scp import Receiver
from msnode.receive.spool import Spool
from msnode.store import Store
from support.commitment_peer import report_association, send_report, send_request

KEPT = Reference(MRImageStorage, "1.2.3.1")
REPORT = Report("1.2.9", (KEPT,), {Reference(MRImageStorage, "1.2.3.2"): 0x0112})
REQUEST = Request("1.2.9", (KEPT,))
MR = Context(MRImageStorage, "1.2.840.10008.1.2.1")


@dataclass
class MemoryCommitment:
    """Keeps what it was told, with the calling AE title, and answers `status`."""

    status: int = SUCCESS
    reports: list[tuple[str, Report]] = field(default_factory=list)
    requests: list[tuple[str, Request]] = field(default_factory=list)

    def report(self, report: Report, calling_ae: str) -> int:
        self.reports.append((calling_ae, report))
        return self.status

    def request(self, request: Request, calling_ae: str) -> int:
        self.requests.append((calling_ae, request))
        return self.status


class Listener:
    """A receiver that keeps what it is told in `told`, and its ledger."""

    def __init__(self, folder, **options):
        self.told, self.ledger = MemoryCommitment(), MemoryLedger()
        store = Store(folder, durable=False)
        spool = Spool(store, self.ledger, same_image=lambda *_: True, min_free_bytes=0)
        options = {"commitment": self.told, **options}
        self.receiver = Receiver("MSNODE", "127.0.0.1", 0, options.pop("peers", ()), spool, **options)
        self.receiver.start()

    def associate(self, calling="PACS", **options):
        return report_association(self.receiver.port, calling, **options)


@pytest.fixture
def listener(tmp_path):
    started = []

    def start(**options):
        started.append(Listener(tmp_path / str(len(started)), **options))
        return started[-1]

    yield start
    for one in started:
        one.receiver.stop()


@pytest.mark.parametrize("role", [True, False])
def test_a_report_is_taken_whether_or_not_the_peer_negotiates_its_role(listener, role):
    one = listener()
    with one.associate(role=role) as association:
        assert send_report(association, REPORT) == 0x0000
    assert one.told.reports == [("PACS", REPORT)]


def test_a_request_is_taken(listener):
    one = listener()
    with one.associate("ROUTER", role=False) as association:
        assert send_request(association, REQUEST) == 0x0000
    assert one.told.requests == [("ROUTER", REQUEST)]


def test_the_answer_is_the_nodes_and_the_association_stays(listener):
    one = listener()
    one.told.status = PROCESSING_FAILURE
    with one.associate(role=False) as association:
        assert (send_report(association, REPORT), send_request(association, REQUEST)) == (0x0110, 0x0110)
        one.told.status = 0x0000
        assert (send_report(association, REPORT), send_request(association, REQUEST)) == (0x0000, 0x0000)


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x00\x95\x11\xf0\xff\xff\x7f" + b"x" * 9,
        b"\x08\x00\x99\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\x05\x00\x00\x00\x00",
        b"\x00",
        b"not a data set at all" * 50,
    ],
)
def test_bytes_that_are_no_data_set_are_a_failure(listener, monkeypatch, content):
    one = listener()
    with one.associate(role=False) as association:
        with monkeypatch.context() as patch:
            patch.setattr("pynetdicom.association.encode", lambda *_: content)
            answers = {send_report(association, REPORT), send_request(association, REQUEST)}
        assert answers <= {0x0110, 0x0115}
        assert one.told.reports == one.told.requests == []
        assert send_report(association, REPORT) == 0x0000


def test_a_destination_that_is_no_peer_may_report_and_not_store(listener):
    here = ("127.0.0.1",)
    one = listener(
        peers=[Peer("MODALITY", here)], reporters=[Peer("PACS", here), Peer("AWAY", ("10.1.1.1",))]
    )
    with one.associate("PACS", contexts=[VERIFICATION, COMMITMENT, MR]) as association:
        accepted = {c.abstract_syntax for c in association.accepted_contexts}
        assert accepted == {VERIFICATION.sop_class_uid, COMMITMENT.sop_class_uid}
        assert send_report(association, REPORT) == 0x0000
    assert one.ledger.opened == []  # it can bring nothing
    with one.associate("MODALITY", contexts=[COMMITMENT, MR]) as association:
        assert len(association.accepted_contexts) == 2
    for stranger in ("STRANGER", "AWAY"):
        with one.associate(stranger) as association:
            assert association.is_rejected


def test_without_anything_to_take_them_reports_are_not_offered(listener):
    one = listener(commitment=None)
    with one.associate(contexts=[VERIFICATION, COMMITMENT]) as association:
        assert [c.abstract_syntax for c in association.accepted_contexts] == [VERIFICATION.sop_class_uid]
