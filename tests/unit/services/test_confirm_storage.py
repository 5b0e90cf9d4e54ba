"""How the verifier gets objects confirmed, on a record and over a prepared line."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from msnode import crash_points
from msnode.deliver.fakes import FakeVerifiableDestination, FakeVerificationSession
from msnode.deliver.retry import RetryPolicy
from msnode.dicom.commitment import Report
from msnode.errors import AssociationRejected, OutOfResources, PeerUnreachable
from msnode.record import commitments, deliveries, schema, work
from msnode.record.commitments import State
from msnode.record.delivery import DeliveryState, Recipient, Verify
from msnode.record.job import JobState
from msnode.services.confirm_storage import Reports, Verifier

# what differs between databases is tested with the functions of the record themselves
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)

RETRY = RetryPolicy(first_s=10, factor=2, max_s=100, limit=5)
SEG, SR = "2.25.1", "2.25.2"


class Confirming:
    """A job whose SEG and SR have reached the destination; `ids` is what the engine was given to run."""

    def __init__(self, record, verify):
        self.record, self.ids = record, []
        record.delivering(recipients={"pacs": Recipient(frozenset({"seg", "sr"}), verify)})
        self.deliver()

    def deliver(self):
        """What the sender does when all goes well; returns what was sent."""
        with self.record.database.write() as tx:
            pending = deliveries.pending(tx, 1, "pacs")
            for delivery in pending:
                deliveries.delivered(tx, delivery, at=datetime.now(UTC), status=0)
        return [d.result.kind for d in pending]

    def enqueue(self, tx, job):
        self.ids += [each.workflow_id for each in work.of_job(tx, job)]

    def run(self, line=None, *, failure=None):
        there = {} if line is None else {"pacs": FakeVerifiableDestination(line, failure)}
        Verifier(self.record.database, there, RETRY, self.enqueue).run(1, "pacs")

    def report(self, report, senders=("pacs",)):
        return Reports(self.record.database, RETRY, self.enqueue).take(report, senders)

    def now(self):
        with self.record.database.read() as tx:
            return {d.result.kind: d for d in deliveries.of_job(tx, 1)}

    def states(self):
        return {kind: delivery.state for kind, delivery in self.now().items()}

    def transactions(self):
        c = schema.commitment
        with self.record.database.read() as tx:
            return [
                (row.transaction_uid, row.state) for row in tx.execute(sa.select(c).order_by(c.c.prepared_at))
            ]

    def make_overdue(self):
        """The deadline of every open request, and of what waits for it, has passed."""
        past = datetime.now(UTC) - timedelta(seconds=1)
        with self.record.database.write() as tx:
            tx.execute(schema.commitment.update().values(deadline_at=past))
            tx.execute(schema.delivery.update().values(next_try_at=past))

    def make_due(self):
        with self.record.database.write() as tx:
            tx.execute(schema.delivery.update().values(next_try_at=None))


@pytest.fixture
def confirming(record):
    return Confirming(record, Verify.COMMITMENT)


@pytest.fixture
def finding(record):
    return Confirming(record, Verify.FIND)


def named(request):
    return sorted(each.sop_instance_uid for each in request.instances)


def test_a_request_is_stored_before_it_is_sent_and_then_nobody_waits(confirming):
    line = FakeVerificationSession()
    line.on_request = lambda request: seen.append((request.transaction_uid, confirming.transactions()))
    seen = []
    confirming.run(line)
    (request,) = line.requests
    assert named(request) == [SEG, SR]
    assert seen == [(request.transaction_uid, [(request.transaction_uid, State.PREPARED)])]
    assert request.transaction_uid.startswith("2.25.")
    assert confirming.transactions() == [(request.transaction_uid, State.REQUESTED)]
    assert confirming.record.job().state == JobState.DELIVERED
    due = confirming.now()["seg"].next_try_at - datetime.now(UTC)
    assert timedelta(hours=23) < due < timedelta(hours=25)
    assert confirming.ids == ["verify:1:0:pacs:3"]


def test_a_report_over_the_same_line_before_the_answer_is_noted_is_not_overwritten(confirming):
    line = FakeVerificationSession()
    line.on_request = lambda request: line.take_report(Report(request.transaction_uid, request.instances[:1]))
    confirming.run(line)
    assert confirming.states() == {"seg": DeliveryState.COMMITTED, "sr": DeliveryState.DELIVERED}
    assert confirming.transactions() == [(line.requests[0].transaction_uid, State.ANSWERED)]
    waits = confirming.now()["sr"].next_try_at - datetime.now(UTC)
    assert waits < timedelta(seconds=12)  # and not the deadline
    line.on_request = lambda request: line.take_report(Report(request.transaction_uid, request.instances))
    confirming.run(line)
    assert named(line.requests[1]) == [SR]
    assert confirming.record.job().state == JobState.COMPLETED


def test_a_report_makes_the_engine_send_what_failed(confirming):
    line = FakeVerificationSession()
    confirming.run(line)
    (request,) = line.requests
    seg, sr = sorted(request.instances, key=lambda each: each.sop_instance_uid)
    assert confirming.report(Report(request.transaction_uid, (sr,), {seg: 0x0112})) == 0x0000
    assert confirming.ids[-1] == "deliver:1:0:pacs:4"
    assert confirming.deliver() == ["seg"]
    confirming.run(line)
    assert named(line.requests[1]) == [SEG]
    assert line.requests[1].transaction_uid != request.transaction_uid


def test_a_report_that_cannot_be_noted_has_to_come_again(confirming, monkeypatch):
    line = FakeVerificationSession()
    confirming.run(line)
    report = Report(line.requests[0].transaction_uid, line.requests[0].instances)

    def gone(**_options):
        raise OutOfResources("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(confirming.record.database, "write", gone)
        assert confirming.report(report) == 0x0110
    assert set(confirming.states().values()) == {DeliveryState.DELIVERED}
    assert confirming.report(report) == 0x0000
    assert confirming.record.job().state == JobState.COMPLETED


class Killed(BaseException):
    """Stands for SIGKILL: what was committed stays, nothing else happens."""


@pytest.mark.parametrize("point", ["commitment-prepared", "commitment-requested", "commitment-noted"])
def test_a_run_that_was_killed_goes_on_under_the_same_transaction(confirming, monkeypatch, point):
    def reach(reached, key=""):
        if reached == point:
            raise Killed(key)

    line = FakeVerificationSession()
    with monkeypatch.context() as patch:
        patch.setattr(crash_points, "reach", reach)
        with pytest.raises(Killed):
            confirming.run(line)
    confirming.run(line)
    assert len({request.transaction_uid for request in line.requests}) == 1
    assert len(line.requests) == {"commitment-prepared": 1, "commitment-requested": 2}.get(point, 1)
    assert confirming.transactions() == [(line.requests[0].transaction_uid, State.REQUESTED)]


def test_a_request_that_was_not_answered_is_sent_again_under_the_same_transaction(confirming):
    lost = FakeVerificationSession(failure=PeerUnreachable("association lost"))
    confirming.run(lost)
    confirming.make_due()
    line = FakeVerificationSession()
    confirming.run(line)
    assert confirming.transactions() == [(line.requests[0].transaction_uid, State.REQUESTED)]


@pytest.mark.parametrize("failure", [PeerUnreachable("down"), AssociationRejected("busy")])
def test_a_destination_that_is_down_is_asked_later(confirming, failure):
    confirming.run(FakeVerificationSession(), failure=failure)
    seg = confirming.now()["seg"]
    assert (seg.note, seg.verifications, seg.answers) == (str(failure), 1, 0)
    assert confirming.transactions() == []
    assert confirming.ids == ["verify:1:0:pacs:3"]


def test_a_destination_that_stays_down_ends_in_doubt(confirming):
    for _ in range(5):
        confirming.run(FakeVerificationSession(), failure=PeerUnreachable("down"))
        confirming.make_due()
    assert confirming.record.job().state == JobState.COMPLETED
    assert "pacs cannot confirm what it has: asked 5 times: down" in confirming.record.job().reason


def test_a_stale_workflow_leaves_a_waiting_request_alone(confirming):
    line = FakeVerificationSession()
    confirming.run(line)
    before = confirming.now()
    confirming.run(line)
    assert len(line.requests) == 1
    assert confirming.now() == before


def test_a_workflow_of_a_clock_that_is_fast_comes_back_at_the_deadline(confirming):
    line = FakeVerificationSession(deadline_s=30)
    confirming.run(line)
    confirming.run(line)
    assert len(line.requests) == 1
    assert confirming.ids == ["verify:1:0:pacs:3", "verify:1:0:pacs:5"]


def test_past_the_deadline_it_is_asked_by_find_and_what_is_missing_is_sent_again(confirming):
    line = FakeVerificationSession(has={SR, "2.25.99"})
    confirming.run(line)
    confirming.make_overdue()
    confirming.run(line)
    assert confirming.states() == {"seg": DeliveryState.PENDING, "sr": DeliveryState.COMMITTED}
    assert confirming.now()["sr"].note == "found by C-FIND"
    assert [state for _, state in confirming.transactions()] == [State.OVERDUE]
    assert confirming.deliver() == ["seg"]
    confirming.run(line)
    assert named(line.requests[1]) == [SEG]


def test_past_the_deadline_without_find_it_is_requested_anew_three_times_at_most(confirming):
    line = FakeVerificationSession(finds=False)
    for _ in range(3):
        confirming.run(line)
        confirming.make_overdue()
    assert len({request.transaction_uid for request in line.requests}) == 3
    confirming.run(line)
    assert confirming.record.job().state == JobState.COMPLETED
    assert "never reported on 3 commitment requests" in confirming.record.job().reason
    # a word that comes after all still counts
    assert confirming.report(Report(line.requests[0].transaction_uid, line.requests[0].instances)) == 0
    assert set(confirming.states().values()) == {DeliveryState.COMMITTED}


def test_past_the_deadline_a_find_that_fails_is_repeated(confirming):
    line = FakeVerificationSession(find_failure="C-FIND answered with status 0xA700")
    confirming.run(line)
    confirming.make_overdue()
    confirming.run(line)
    assert [state for _, state in confirming.transactions()] == [State.REQUESTED]
    assert confirming.now()["seg"].note == "C-FIND answered with status 0xA700"


def test_a_destination_without_commitment_is_asked_by_find(confirming):
    confirming.run(FakeVerificationSession(commits=False, has={SEG, SR}))
    assert confirming.record.job().state == JobState.COMPLETED
    assert {d.note for d in confirming.now().values()} == {"found by C-FIND"}


def test_a_destination_with_neither_says_what_would_be_right(confirming):
    confirming.run(FakeVerificationSession(commits=False, finds=False))
    assert confirming.record.job().state == JobState.COMPLETED
    assert confirming.record.job().reason.endswith(
        "pacs cannot confirm what it has: it offers no storage commitment, and no C-FIND: "
        'enable storage commitment or C-FIND there, or set verify = "none"'
    )


def test_a_destination_that_is_configured_no_more_confirms_nothing(confirming):
    confirming.run(None)
    assert confirming.record.job().state == JobState.COMPLETED
    assert {d.verify for d in confirming.now().values()} == {Verify.UNAVAILABLE}


def test_a_refused_request_is_repeated_under_another_transaction_and_then_find_is_asked(confirming):
    line = FakeVerificationSession(statuses=[0x0213, 0x0110, 0x0213], has={SEG, SR})
    for _ in range(3):
        confirming.run(line)
        assert confirming.now()["seg"].note.startswith("commitment request answered with status 0x0")
    assert len({request.transaction_uid for request in line.requests}) == 3
    assert {state for _, state in confirming.transactions()} == {State.REFUSED}
    confirming.run(line)
    assert len(line.requests) == 3
    assert confirming.record.job().state == JobState.COMPLETED


def test_find_is_believed_at_the_third_no(finding):
    line = FakeVerificationSession(commits=False, has={SR})
    for _ in range(2):
        finding.run(line)
        assert finding.states() == {"seg": DeliveryState.DELIVERED, "sr": DeliveryState.COMMITTED}
    finding.run(line)
    assert finding.states() == {"seg": DeliveryState.PENDING, "sr": DeliveryState.COMMITTED}
    assert finding.now()["seg"].note == "not found by C-FIND"
    assert finding.ids == ["verify:1:0:pacs:2", "verify:1:0:pacs:3", "deliver:1:0:pacs:4"]
    finding.deliver()
    line.has.add(SEG)
    finding.run(line)
    assert finding.record.job().state == JobState.COMPLETED


def test_a_find_that_fails_is_no_answer(finding):
    line = FakeVerificationSession(find_failure="C-FIND answered with status 0xC001")
    for _ in range(4):
        finding.run(line)
    assert {(d.state, d.answers) for d in finding.now().values()} == {(DeliveryState.DELIVERED, 0)}


def test_a_destination_that_loses_an_object_again_and_again_is_given_up(finding):
    line = FakeVerificationSession(has={SR})
    while finding.record.job().state != JobState.FAILED:
        finding.run(line)
        finding.deliver()
    assert finding.states() == {"seg": DeliveryState.DEAD, "sr": DeliveryState.COMMITTED}
    assert "given up after 5 tries: not found by C-FIND" in finding.record.job().reason


def test_nothing_is_asked_of_a_job_that_ended_or_has_something_to_send(confirming):
    line = FakeVerificationSession()
    with confirming.record.database.write() as tx:
        (seg, _) = deliveries.unconfirmed(tx, 1, "pacs")
        later = datetime.now(UTC)
        deliveries.send_again(tx, seg, at=later, note="lost", next_try_at=later)
    confirming.run(line)
    confirming.record.move(JobState.CANCELLED)
    confirming.run(line)
    assert line.requests == []


def test_the_right_request_is_waited_for(confirming):
    line = FakeVerificationSession()
    line.linger = lambda answered: seen.append((answered(), say(), answered()))

    def say():
        with confirming.record.database.write() as tx:
            report = Report(line.requests[0].transaction_uid, line.requests[0].instances)
            commitments.note_report(tx, report, senders={"pacs"}, at=datetime.now(UTC), delay=lambda *_: 1.0)

    seen = []
    confirming.run(line)
    assert seen == [(False, None, True)]


@pytest.mark.parametrize("point", ["report-received", "report-noted"])
def test_a_report_whose_answer_was_lost_with_the_process_comes_again(confirming, monkeypatch, point):
    def reach(reached, _key=""):
        if reached == point:
            raise Killed

    line = FakeVerificationSession()
    confirming.run(line)
    report = Report(line.requests[0].transaction_uid, line.requests[0].instances)
    with monkeypatch.context() as patch:
        patch.setattr(crash_points, "reach", reach)
        with pytest.raises(Killed):
            confirming.report(report)
    assert confirming.report(report) == 0x0000
    assert confirming.record.job().state == JobState.COMPLETED


def deny(confirming, line, *kinds):
    """Request storage commitment; the report does not know the objects of these kinds."""
    confirming.make_due()
    confirming.run(line)
    asked = line.requests[-1]
    wanted = {"seg": SEG, "sr": SR}
    denied = {r: 0x0112 for r in asked.instances if r.sop_instance_uid in {wanted[k] for k in kinds}}
    kept = tuple(r for r in asked.instances if r not in denied)
    assert confirming.report(Report(asked.transaction_uid, kept, denied)) == 0x0000


def test_what_two_reports_deny_is_looked_for_and_found_means_kept(confirming):
    """An archive that holds an object in two series denies it for ever."""
    line = FakeVerificationSession(has={SEG})
    deny(confirming, line, "seg")
    assert confirming.deliver() == ["seg"]
    deny(confirming, line, "seg")
    assert confirming.deliver() == [], "it is not sent a third time"
    assert confirming.ids[-1].startswith("verify:1:0:pacs:")
    assert len(set(confirming.ids)) == len(confirming.ids), "the engine runs each id once"
    confirming.run(line)
    assert confirming.record.job().state == JobState.COMPLETED
    assert confirming.now()["seg"].note == "found by C-FIND, though 2 commitment reports denied it"
    assert confirming.now()["sr"].note == "committed by the destination"


def test_what_two_reports_deny_and_no_query_finds_is_sent_again(confirming):
    line = FakeVerificationSession()
    deny(confirming, line, "seg", "sr")
    confirming.deliver()
    deny(confirming, line, "seg", "sr")
    for _ in range(RETRY.answers):
        assert confirming.deliver() == []
        confirming.make_due()
        confirming.run(line)
    assert confirming.deliver() == ["seg", "sr"]


def test_where_no_query_is_possible_the_reports_are_believed(confirming):
    line = FakeVerificationSession(finds=False)
    for _ in range(RETRY.limit):
        if confirming.record.job().state == JobState.FAILED:
            break
        deny(confirming, line, "seg")
        confirming.make_due()
        confirming.run(line)
        confirming.deliver()
    assert confirming.states() == {"seg": DeliveryState.DEAD, "sr": DeliveryState.COMMITTED}


def test_another_reason_is_no_denial(confirming):
    line = FakeVerificationSession(has={SEG, SR})
    for _ in range(3):
        confirming.make_due()
        confirming.run(line)
        asked = line.requests[-1]
        confirming.report(Report(asked.transaction_uid, (), dict.fromkeys(asked.instances, 0x0110)))
        assert confirming.deliver() == ["seg", "sr"]
