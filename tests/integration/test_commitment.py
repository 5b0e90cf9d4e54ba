"""Storage commitment with real peers: what the node sends is kept, and what it is asked to keep is."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from pydicom.uid import MRImageStorage

from msnode.deliver import dicom
from msnode.deliver.dicom import CONTEXT_OF_KIND, DicomDestination
from msnode.deliver.dicomweb import DicomWebDestination
from msnode.deliver.retry import RetryPolicy
from msnode.dicom.commitment import Reference, Report, Request
from msnode.dicom.connection import DicomAddress
from msnode.domain.arrivals import Arrival
from msnode.receive.ledger import MemoryLedger
from msnode.receive.scp import Receiver
from msnode.receive.spool import Spool
from msnode.record import deliveries, jobs, promises, schema, work
from msnode.record.arrivals import Arrivals
from msnode.record.database import Database, upgrade
from msnode.record.delivery import DeliveryState, Recipient, Result, Verify
from msnode.record.job import JobState
from msnode.record.results import finish_reading
from msnode.series.comparison import same_image
from msnode.services.answer_commitments import CommitmentListener, CommitmentResponder
from msnode.services.confirm_storage import Reports, Verifier
from msnode.services.send_results import Sender
from msnode.store import Blob, Store
from support.commitment_peer import (
    commitment_pacs,
    kept,
    reference,
    report_association,
    send_request,
)
from support.dicom_files import derived_uid
from support.peers import wait_until
from support.result_files import write_results

RETRY = RetryPolicy(first_s=0.05, factor=1, max_s=0.05, limit=20)
STUDY = derived_uid("study", "")


class Node:
    """Record, store, listener, sender and verifier of one destination; `drain` stands for the engine."""

    def __init__(self, folder, *, aet="MSNODE", requesters=()):
        url = f"sqlite:///{folder / 'm.db'}"
        upgrade(url)
        self.aet, self.folder = aet, folder
        self.database, self.store = Database(url), Store(folder / "store", durable=False)
        self.addresses = {}
        self.reports = Reports(self.database, RETRY, self._enqueue)
        desk = CommitmentListener(
            self.database,
            self.reports.take,
            {"PACS": {"pacs"}, "ORTHANC": {"pacs"}},
            set(requesters),
            lambda _tx, open_: self.open_reports.append(open_.id),
        )
        self.enqueued, self.open_reports = 0, []
        spool = Spool(self.store, MemoryLedger(), same_image=same_image, min_free_bytes=0)
        self.receiver = Receiver(aet, "127.0.0.1", 0, [], spool, commitment=desk)
        self.receiver.start()

    def _enqueue(self, _tx, _job):
        self.enqueued += 1

    @property
    def port(self):
        return self.receiver.port

    def deliver(self, destination, verify=Verify.COMMITMENT):
        """A job whose SEG, SR and three overlay images are to go to the destination."""
        with self.store.new_set("set-1") as files:
            objects = write_results(files)
        Arrivals(self.database).add(_arrival("1.2.3.1", "ab" * 32))
        with self.database.write() as tx:
            job = jobs.find(tx, 1)
            at = datetime.now(UTC)
            jobs.move(tx, job, JobState.QUEUED, at=at, why="test")
            results = [
                Result(
                    o.kind, o.sop_instance_uid, o.sop_class_uid, derived_uid("series", "", o.kind),
                    o.path.name, Blob((self.store.set_path("set-1") / o.path.name).read_bytes()).digest,
                )
                for o in objects
            ]  # fmt: skip
            finish_reading(
                tx, jobs.start(tx, 1, at=at), results,
                {"pacs": Recipient(frozenset(CONTEXT_OF_KIND), verify)},
                at=at, why="test", result_set="set-1",
            )  # fmt: skip
        self.sender = Sender(self.database, self.store, {"pacs": destination}, RETRY, self._enqueue)
        self.verifier = Verifier(self.database, {"pacs": destination}, RETRY, self._enqueue)
        return [o.sop_instance_uid for o in objects]

    def step(self):
        """Run what is due now, as the engine would; returns which workflows."""
        with self.database.read() as tx:
            soon = datetime.now(UTC) + timedelta(seconds=0.2)
            due = [w for w in work.expected(tx) if w.not_before is None or w.not_before < soon]
        for each in due:
            run = self.sender.run if each.workflow == work.DELIVER else self.verifier.run
            run(*each.arguments)
        return [each.workflow for each in due]

    def drain(self, state=JobState.COMPLETED, *, timeout_s=20):
        def there():
            if self.job().state != state:
                self.step()
            return self.job().state == state

        wait_until(there, what=f"job {state}", timeout_s=timeout_s)

    def job(self):
        with self.database.read() as tx:
            return jobs.find(tx, 1)

    def deliveries(self):
        with self.database.read() as tx:
            return {d.result.sop_instance_uid: d for d in deliveries.of_job(tx, 1)}

    def states(self):
        return {d.state for d in self.deliveries().values()}

    def notes(self):
        return {d.note for d in self.deliveries().values()}

    def audited(self):
        with self.database.read() as tx:
            lines = tx.execute(sa.select(schema.audit).order_by(schema.audit.c.id)).all()
        return [line.event for line in lines]

    def answer_requests(self):
        for request_id in self.open_reports:
            CommitmentResponder(
                self.database, self.store, self.addresses, calling_ae=self.aet, retry=RETRY,
                enqueue=lambda _tx, _open: None,
            ).run(request_id)  # fmt: skip

    def close(self):
        self.receiver.stop()
        self.database.close()


def _arrival(uid, digest):
    return Arrival(
        digest=digest, sop_class_uid=MRImageStorage, sop_instance_uid=uid, series_instance_uid="1.2.1",
        study_instance_uid=STUDY, transfer_syntax_uid="1.2.840.10008.1.2.1", modality="MR",
        patient_key=("", "P1"), slice_position_mm=0.0, frame_count=1, own=False, association_id="a1",
        received_at=datetime.now(UTC),
    )  # fmt: skip


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "_LINGER_S", 0.3)
    made = []

    def make(**options):
        folder = tmp_path / f"node{len(made)}"
        folder.mkdir()
        made.append(Node(folder, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def to(pacs, **options):
    address = DicomAddress(pacs.aet, "127.0.0.1", pacs.port)
    return DicomDestination("pacs", frozenset(CONTEXT_OF_KIND), address, "MSNODE", **options)


# ---- Orthanc


@pytest.fixture
def with_orthanc(node, orthanc):
    """A node that Orthanc knows, and its destination there."""
    one = node(aet="COMMITNODE", requesters={orthanc.aet})
    orthanc.add_modality("commitnode", one.aet, one.port)
    address = DicomAddress(orthanc.aet, "127.0.0.1", orthanc.dicom_port)
    one.addresses = {orthanc.aet: address}
    return one, DicomDestination("pacs", frozenset(CONTEXT_OF_KIND), address, one.aet)


@pytest.mark.peer
def test_orthanc_commits_what_it_was_given(with_orthanc, orthanc):
    one, pacs = with_orthanc
    assert (pacs.echo().confirms_by, pacs.echo().advice) == ("commitment", "")
    uids = one.deliver(pacs)
    assert one.step() == [work.DELIVER]
    assert one.job().state == JobState.DELIVERED
    assert one.step() == [work.VERIFY]
    wait_until(lambda: one.job().state == JobState.COMPLETED, what="job completed")
    assert one.states() == {DeliveryState.COMMITTED}
    assert one.notes() == {"committed by the destination"}
    assert orthanc.find_instances() == sorted(uids)
    assert one.audited() == ["commitment_report_applied"]


@pytest.mark.peer
def test_orthanc_is_sent_again_only_what_it_lost(with_orthanc, orthanc):
    one, pacs = with_orthanc
    uids = one.deliver(pacs)
    one.step()
    (lost,) = orthanc.find("Instance", SOPInstanceUID=uids[0])
    orthanc.request("DELETE", f"/instances/{lost['ID']}")
    one.step()
    wait_until(lambda: one.job().state == JobState.DELIVERING, what="report of a failure")
    states = {uid: d.state for uid, d in one.deliveries().items()}
    assert states == dict.fromkeys(uids[1:], DeliveryState.COMMITTED) | {uids[0]: DeliveryState.PENDING}
    assert one.deliveries()[uids[0]].note == "not committed: no such object (0x0112)"
    received_before = orthanc.instance_count()
    one.drain()
    assert (received_before, orthanc.instance_count()) == (4, 5)
    assert one.states() == {DeliveryState.COMMITTED}


@pytest.mark.peer
def test_orthanc_asked_by_find(with_orthanc, orthanc):
    one, pacs = with_orthanc
    uids = one.deliver(pacs, Verify.FIND)
    one.step()
    (lost,) = orthanc.find("Instance", SOPInstanceUID=uids[1])
    orthanc.request("DELETE", f"/instances/{lost['ID']}")
    one.drain()
    assert one.notes() == {"found by C-FIND"}
    assert orthanc.find_instances() == sorted(uids)


@pytest.mark.peer
def test_orthanc_over_the_web(node, orthanc):
    one = node()
    pacs = DicomWebDestination("pacs", frozenset(CONTEXT_OF_KIND), f"{orthanc.url}/dicom-web/")
    uids = one.deliver(pacs, Verify.FIND)
    one.step()
    (lost,) = orthanc.find("Instance", SOPInstanceUID=uids[4])
    orthanc.request("DELETE", f"/instances/{lost['ID']}")
    one.drain()
    assert one.notes() == {"found by QIDO-RS"}
    assert orthanc.find_instances() == sorted(uids)


@pytest.mark.peer
def test_orthanc_asks_the_node_to_keep_what_it_sent(with_orthanc, orthanc):
    one, _ = with_orthanc
    blob = Blob(b"bytes")
    one.store.put(blob)
    Arrivals(one.database).add(_arrival("1.2.3.1", blob.digest))
    asked = [{"SOPClassUID": MRImageStorage, "SOPInstanceUID": uid} for uid in ("1.2.3.1", "1.2.3.2")]
    body = json.dumps({"DicomInstances": asked}).encode()
    made = json.loads(orthanc.request("POST", "/modalities/commitnode/storage-commitment", body))
    wait_until(lambda: bool(one.open_reports), what="request of Orthanc")
    assert orthanc.get_json(made["Path"])["Status"] == "Pending"
    one.answer_requests()
    told = orthanc.get_json(made["Path"])
    assert told["Status"] == "Failure"
    assert [each["SOPInstanceUID"] for each in told["Success"]] == ["1.2.3.1"]
    assert [(each["SOPInstanceUID"], each["FailureReason"]) for each in told["Failures"]] == [
        ("1.2.3.2", 0x0112)
    ]


# ---- a PACS of our own making


def test_a_report_over_the_association_of_the_request(node):
    with commitment_pacs(on_association=lambda request: [kept(request)]) as pacs:
        one = node()
        one.deliver(to(pacs))
        one.drain()
        pacs.wait()
    assert one.states() == {DeliveryState.COMMITTED}
    assert (len(pacs.requests), pacs.answers) == (1, [0x0000])


def test_a_report_that_is_lost_ends_in_a_find(node):
    with commitment_pacs() as pacs:
        one = node()
        one.deliver(to(pacs, commitment_deadline_s=0.1))
        one.drain()
    assert one.notes() == {"found by C-FIND"}
    assert len(pacs.requests) == 1


def test_a_report_that_is_lost_by_a_pacs_without_find_is_requested_anew(node):
    answers = iter([[], [], None])
    with commitment_pacs(finds=False) as pacs:
        pacs.on_association = lambda request: [kept(request)] if next(answers) is None else []
        one = node()
        one.deliver(to(pacs, commitment_deadline_s=0.1))
        one.drain(timeout_s=40)
    assert len({request.transaction_uid for request in pacs.requests}) == 3
    assert one.states() == {DeliveryState.COMMITTED}


def test_a_report_that_comes_days_later_on_an_association_of_its_own(node):
    with commitment_pacs() as pacs:
        one = node()
        one.deliver(to(pacs))
        one.step()
        one.step()
        assert one.job().state == JobState.DELIVERED
        assert one.step() == []
        assert pacs.report(one.port, kept(pacs.requests[0])) == [0x0000]
    assert one.job().state == JobState.COMPLETED


def test_a_report_that_is_repeated_is_answered_and_changes_nothing(node):
    with commitment_pacs() as pacs:
        one = node()
        uids = one.deliver(to(pacs))
        one.step()
        del pacs.held[uids[0]]
        one.step()
        verdict = pacs.verdict(pacs.requests[0])
        assert pacs.report(one.port, verdict, verdict) == [0x0000, 0x0000]
        assert pacs.report(one.port, verdict) == [0x0000]
        assert one.deliveries()[uids[0]].attempts == 1
        pacs.on_association = lambda request: [pacs.verdict(request)]
        one.drain()
    assert one.audited().count("commitment_report_repeated") == 2
    assert [len(request.instances) for request in pacs.requests] == [5, 1]


def test_a_report_that_leaves_objects_out_is_asked_for_the_rest(node):
    def half(request):
        return [Report(request.transaction_uid, request.instances[: (len(request.instances) + 1) // 2])]

    with commitment_pacs(on_association=half) as pacs:
        one = node()
        one.deliver(to(pacs))
        one.drain()
    assert [len(request.instances) for request in pacs.requests] == [5, 2, 1]
    assert len({request.transaction_uid for request in pacs.requests}) == 3


def test_a_report_of_an_unknown_transaction_is_answered_and_audited(node):
    with commitment_pacs() as pacs:
        one = node()
        assert pacs.report(one.port, Report("1.2.3.4", (reference("1.2.3"),))) == [0x0000]
    assert one.audited() == ["commitment_report_unknown"]


def test_a_report_of_somebody_else_is_refused(node):
    with commitment_pacs() as pacs:
        one = node()
        one.deliver(to(pacs))
        one.step()
        one.step()
        assert pacs.report(one.port, kept(pacs.requests[0]), calling="OTHER") == [0x0124]
        assert one.states() == {DeliveryState.DELIVERED}
        assert pacs.report(one.port, kept(pacs.requests[0])) == [0x0000]
    assert one.states() == {DeliveryState.COMMITTED}


def test_a_pacs_that_takes_no_commitment_is_asked_by_find(node):
    with commitment_pacs(commits=False) as pacs:
        one = node()
        assert to(pacs).echo().confirms_by == "find"
        one.deliver(to(pacs))
        one.drain()
    assert one.notes() == {"found by C-FIND"}


def test_a_pacs_that_can_confirm_nothing_ends_the_job_with_advice(node):
    with commitment_pacs(commits=False, finds=False) as pacs:
        one = node()
        assert to(pacs).echo().confirms_by is None
        one.deliver(to(pacs))
        one.drain()
    assert 'set verify = "none"' in one.job().reason


def test_a_pacs_that_refuses_requests_is_asked_by_find_after_three(node):
    with commitment_pacs(action_statuses=[0x0213] * 9) as pacs:
        one = node()
        one.deliver(to(pacs))
        one.drain()
    assert len({request.transaction_uid for request in pacs.requests}) == 3
    assert one.notes() == {"found by C-FIND"}


def test_a_pacs_that_forgets_everything_is_sent_it_until_it_keeps_it(node):
    with commitment_pacs() as pacs:
        one = node()
        uids = one.deliver(to(pacs, commitment_deadline_s=0.1))
        one.step()
        pacs.held.clear()
        one.drain()
        assert set(pacs.held) == set(uids)
    assert one.notes() == {"found by C-FIND"}


def test_only_peers_that_are_enabled_are_promised_anything(node):
    one = node(requesters={"ROUTER"})
    request = Request("1.2.3", (Reference(MRImageStorage, "1.2.3.1"),))
    for calling, status in (("MODALITY", 0x0124), ("ROUTER", 0x0000), ("ROUTER", 0x0000)):
        with report_association(one.port, calling, role=False) as association:
            assert send_request(association, request) == status
    with one.database.read() as tx:
        assert [open_.calling_ae for open_ in promises.open_reports(tx)] == ["ROUTER"]
    assert one.audited() == ["commitment_request_taken", "commitment_request_repeated"]
