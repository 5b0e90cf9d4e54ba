from msnode.record import deliveries
from msnode.record.delivery import DeliveryState, Recipient, Verify
from msnode.record.job import JobState


def pending(record, destination):
    with record.database.read() as tx:
        return deliveries.pending(tx, 1, destination)


def deliver_all(record, *destinations):
    for destination in destinations:
        for delivery in pending(record, destination):
            with record.database.write() as tx:
                deliveries.delivered(tx, delivery, at=record.at(300), status=0)


def states(record):
    with record.database.read() as tx:
        return [(d.destination, d.result.kind, d.state) for d in deliveries.of_job(tx, 1)]


def test_job_is_completed_with_its_last_delivery(record):
    record.delivering()
    deliver_all(record, "pacs")
    assert record.job().state == JobState.DELIVERING
    deliver_all(record, "archive")
    assert record.job().state == JobState.COMPLETED


def test_rejected_reading_ends_rejected_with_its_reason(record):
    record.delivering(rejection="slices overlap")
    deliver_all(record, "pacs", "archive")
    assert (record.job().state, record.job().reason) == (JobState.REJECTED, "slices overlap")


def test_refused_object_leaves_the_rest_and_the_job_completed_with_the_problem(record):
    record.delivering()
    seg, _ = pending(record, "pacs")
    with record.database.write() as tx:
        deliveries.refused(tx, seg, at=record.at(300), note="no presentation context", status=0x0122)
    deliver_all(record, "pacs", "archive")
    assert record.job().state == JobState.COMPLETED
    assert "pacs refused seg 2.25.1: no presentation context" in record.job().reason
    assert ("pacs", "seg", DeliveryState.REFUSED) in states(record)


def test_delivery_tried_too_often_makes_the_job_failed(record):
    record.delivering()
    deliver_all(record, "archive")
    for delivery in pending(record, "pacs"):
        with record.database.write() as tx:
            deliveries.gave_up(tx, delivery, at=record.at(300), note="connection refused")
    assert record.job().state == JobState.FAILED
    assert "pacs did not get sr 2.25.2: connection refused" in record.job().reason


def test_postponed_delivery_stays_pending_and_says_why(record):
    record.delivering()
    for _ in range(2):
        (delivery,) = pending(record, "archive")
        with record.database.write() as tx:
            deliveries.postpone(tx, delivery, at=record.at(300), note="no route", next_try_at=record.at(305))
    (delivery,) = pending(record, "archive")
    assert (delivery.attempts, delivery.note, delivery.next_try_at) == (2, "no route", record.at(305))


def test_delivered_is_a_fact_whatever_was_decided_meanwhile(record):
    record.delivering()
    (delivery,) = pending(record, "archive")
    with record.database.write() as tx:
        deliveries.gave_up(tx, delivery, at=record.at(300), note="no route")
        deliveries.delivered(tx, delivery, at=record.at(301))
        deliveries.refused(tx, delivery, at=record.at(302), note="late")
        deliveries.postpone(tx, delivery, at=record.at(303), note="late", next_try_at=record.at(400))
    assert ("archive", "sr", DeliveryState.DELIVERED) in states(record)


BY_COMMITMENT = {
    "pacs": Recipient(frozenset({"seg", "sr"}), Verify.COMMITMENT),
    "archive": Recipient(frozenset({"sr"})),
}


def unconfirmed(record, destination="pacs"):
    with record.database.read() as tx:
        return deliveries.unconfirmed(tx, 1, destination)


def test_delivered_and_committed_are_two_states(record):
    record.delivering(recipients=BY_COMMITMENT)
    deliver_all(record, "pacs", "archive")
    assert record.job().state == JobState.DELIVERED
    assert "pacs" in record.job().reason
    assert "archive" not in record.job().reason
    for delivery in unconfirmed(record):
        assert record.job().state == JobState.DELIVERED
        with record.database.write() as tx:
            deliveries.committed(tx, delivery, at=record.at(400), note="committed")
    assert record.job().state == JobState.COMPLETED
    assert [state for name, _, state in states(record) if name == "pacs"] == [DeliveryState.COMMITTED] * 2


def test_what_a_destination_did_not_keep_is_sent_again(record):
    record.delivering(recipients=BY_COMMITMENT)
    deliver_all(record, "pacs", "archive")
    seg, sr = unconfirmed(record)
    with record.database.write() as tx:
        deliveries.committed(tx, sr, at=record.at(400), note="committed")
        deliveries.send_again(tx, seg, at=record.at(400), note="no such object", next_try_at=record.at(405))
    assert record.job().state == JobState.DELIVERING
    (again,) = pending(record, "pacs")
    assert (again.result.kind, again.attempts, again.next_try_at) == ("seg", 1, record.at(405))
    assert again.answers == seg.answers


def test_a_confirmed_object_is_not_unconfirmed_by_a_late_word(record):
    record.delivering(recipients=BY_COMMITMENT)
    deliver_all(record, "pacs", "archive")
    seg, _ = unconfirmed(record)
    with record.database.write() as tx:
        deliveries.committed(tx, seg, at=record.at(400), note="committed")
        deliveries.send_again(tx, seg, at=record.at(401), note="late", next_try_at=record.at(405))
        deliveries.ask_later(tx, seg, at=record.at(402), note="late", next_try_at=record.at(405))
        deliveries.delivered(tx, seg, at=record.at(403))
    assert ("pacs", "seg", DeliveryState.COMMITTED) in states(record)


def test_a_destination_that_can_confirm_nothing_ends_the_job_and_says_so(record):
    record.delivering(recipients={"pacs": Recipient(frozenset({"sr"}), Verify.FIND)})
    deliver_all(record, "pacs")
    (sr,) = unconfirmed(record)
    with record.database.write() as tx:
        deliveries.cannot_confirm(tx, sr, at=record.at(400), note="it offers no C-FIND")
    assert record.job().state == JobState.COMPLETED
    assert "pacs cannot confirm what it has: it offers no C-FIND" in record.job().reason


def test_only_answers_of_the_destination_itself_are_counted_as_such(record):
    record.delivering()
    (delivery,) = pending(record, "archive")
    with record.database.write() as tx:
        deliveries.postpone(tx, delivery, at=record.at(), note="no route", next_try_at=record.at(5))
        deliveries.postpone(
            tx, delivery, at=record.at(), note="cannot understand", status=0xC000, next_try_at=record.at(5)
        )
    (delivery,) = pending(record, "archive")
    assert (delivery.attempts, delivery.answers) == (2, 1)
