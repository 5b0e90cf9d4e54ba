"""What the sender makes of a destination's answers, on a record."""

import pytest
import sqlalchemy as sa

from msnode.deliver.destination import Outcome, SendResult
from msnode.deliver.fakes import FakeDestination
from msnode.deliver.retry import RetryPolicy
from msnode.errors import AssociationRejected, PeerUnreachable
from msnode.record import audit, deliveries, schema
from msnode.record.delivery import DeliveryState
from msnode.record.job import JobState
from msnode.services.send_results import Sender
from msnode.store import Blob, Store
from support.dicom_files import flair_series

# what differs between databases is tested with the functions of the record themselves
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)

RETRY = RetryPolicy(first_s=10, factor=2, max_s=100, limit=5)
SEG, SR = "2.25.1", "2.25.2"


class Answering(FakeDestination):
    """Answers with a status beside the outcome, as a real peer does."""

    def send(self, objects):
        return tuple(
            SendResult(r.sop_instance_uid, r.outcome, 0x0000 if r.outcome.is_delivered else 0xC000, "told")
            for r in super().send(objects)
        )


class Sending:
    """A job with a SEG and an SR to send; `asked` is what the engine was given."""

    def __init__(self, record, folder):
        self.record, self.asked = record, []
        record.delivering(recipients={"pacs": ["seg", "sr"]})
        self.store = Store(folder / "store", durable=False)
        with self.store.new_set("set-1") as files:
            for kind, uid in (("seg", SEG), ("sr", SR)):
                (path,) = flair_series(folder / kind, slices=1, SOPInstanceUID=uid)
                path.rename(files / f"{kind}.dcm")
                self._record(kind, files / f"{kind}.dcm")

    def _record(self, kind, path):
        """As the worker did when it was written."""
        change = schema.result.update().where(schema.result.c.kind == kind)
        with self.record.database.write() as tx:
            tx.execute(change.values(sha256=Blob(path.read_bytes()).digest))

    def run(self, destination):
        there = {} if destination is None else {"pacs": destination}
        Sender(self.record.database, self.store, there, RETRY, lambda _tx, job: self.asked.append(job)).run(
            1, "pacs"
        )

    def now(self):
        with self.record.database.read() as tx:
            return {d.result.kind: d for d in deliveries.of_job(tx, 1)}

    def states(self):
        return {kind: delivery.state for kind, delivery in self.now().items()}


@pytest.fixture
def sending(record, tmp_path):
    return Sending(record, tmp_path)


def test_a_refused_object_does_not_hold_the_other(sending):
    sending.run(Answering("pacs", outcomes={SEG: Outcome.REFUSED}))
    assert sending.states() == {"seg": DeliveryState.REFUSED, "sr": DeliveryState.DELIVERED}
    assert sending.record.job().state == JobState.COMPLETED


def test_only_what_was_put_off_is_sent_again(sending):
    pacs = Answering("pacs", outcomes={SEG: Outcome.TRY_LATER})
    sending.run(pacs)
    sending.run(pacs)
    assert pacs.sent == [(SEG, SR), (SEG,)]
    seg = sending.now()["seg"]
    assert (seg.state, seg.attempts, seg.answers) == (DeliveryState.PENDING, 2, 2)
    assert 17 < (seg.next_try_at - seg.updated_at).total_seconds() < 23
    assert [job.state for job in sending.asked] == [JobState.DELIVERING] * 2


def test_cannot_understand_is_believed_at_the_third_answer(sending):
    pacs = Answering("pacs", outcomes={SEG: Outcome.UNCLEAR})
    for _ in range(2):
        sending.run(pacs)
        assert sending.states()["seg"] == DeliveryState.PENDING
    sending.run(pacs)
    assert sending.states() == {"seg": DeliveryState.REFUSED, "sr": DeliveryState.DELIVERED}
    assert sending.now()["seg"].note == "told, 3 times"


@pytest.mark.parametrize("failure", [PeerUnreachable("down"), AssociationRejected("busy")])
def test_a_peer_that_is_down_does_not_use_up_the_three_answers(sending, failure):
    down = FakeDestination("pacs", failure=failure)
    for _ in range(3):
        sending.run(down)
    assert sending.now()["seg"].note == str(failure)
    sending.run(Answering("pacs", outcomes={SEG: Outcome.UNCLEAR}))
    assert sending.states() == {"seg": DeliveryState.PENDING, "sr": DeliveryState.DELIVERED}
    assert (sending.now()["seg"].attempts, sending.now()["seg"].answers) == (4, 1)


def test_a_delivery_is_dead_at_the_limit_and_its_job_needs_a_person(sending):
    for _ in range(5):
        sending.run(FakeDestination("pacs", failure=PeerUnreachable("down")))
    assert set(sending.states().values()) == {DeliveryState.DEAD}
    assert sending.record.job().state == JobState.FAILED
    assert "given up after 5 tries: down" in sending.record.job().reason


def test_a_file_that_cannot_be_read_now_is_tried_again_and_the_other_is_sent(sending):
    path = sending.store.set_path("set-1") / "seg.dcm"
    path.rename(path.with_suffix(".away"))
    sending.run(Answering("pacs"))
    assert sending.states() == {"seg": DeliveryState.PENDING, "sr": DeliveryState.DELIVERED}
    path.with_suffix(".away").rename(path)
    sending.run(Answering("pacs"))
    assert sending.record.job().state == JobState.COMPLETED


def test_what_the_configuration_no_longer_sends_there_is_refused(sending):
    sending.run(Answering("pacs", objects=frozenset({"sr"})))
    assert sending.states() == {"seg": DeliveryState.REFUSED, "sr": DeliveryState.DELIVERED}


def test_without_the_destination_nothing_is_sent(sending):
    sending.run(None)
    assert set(sending.states().values()) == {DeliveryState.REFUSED}
    assert "the configuration no longer sends this object there" in sending.record.job().reason


def test_a_run_after_the_end_sends_nothing(sending):
    pacs = Answering("pacs")
    sending.run(pacs)
    sending.run(pacs)
    assert len(pacs.sent) == len(sending.asked) == 1


def test_a_file_that_has_changed_is_never_sent_and_fails_its_job(sending, capsys):
    path = sending.store.set_path("set-1") / "sr.dcm"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"FLAIR", b"flair"))
    pacs = Answering("pacs")
    sending.run(pacs)
    assert pacs.sent == [(SEG,)]
    assert sending.states() == {"seg": DeliveryState.DELIVERED, "sr": DeliveryState.DEAD}
    assert sending.record.job().state == JobState.FAILED
    assert "it has changed in the store" in sending.record.job().reason
    assert "stored_bytes_changed" in capsys.readouterr().out
    with sending.record.database.read() as tx:
        lines = tx.execute(sa.select(schema.audit.c.event, schema.audit.c.facts)).all()
        assert [event for event, _ in lines] == ["stored_bytes_changed"]
        assert SR in lines[0].facts
        assert audit.verify(tx) is None
