"""The state of a job that is being delivered follows from its deliveries alone."""

from datetime import UTC, datetime

import pytest

from msnode.record.delivery import Delivery, DeliveryState, Result, Verify
from msnode.record.job import BEING_DELIVERED, Job, JobState
from msnode.record.settlement import settlement_of

AT = datetime(2025, 3, 1, tzinfo=UTC)
PENDING, DELIVERED = DeliveryState.PENDING, DeliveryState.DELIVERED
REFUSED, DEAD = DeliveryState.REFUSED, DeliveryState.DEAD
COMMITTED, CANCELLED = DeliveryState.COMMITTED, DeliveryState.CANCELLED
ENDS_WELL = "every destination has all objects that it takes"


def job(state=JobState.DELIVERING, rejection=None):
    return Job(1, "1.1", 0, state, "test", AT, AT, rejection=rejection)


def delivery(state, destination="pacs", *, verify=Verify.NONE, note="no route"):
    result = Result("sr", "2.25.2", "1.2.840", "2.25.9", "sr.dcm", "ab" * 32)
    return Delivery(1, 1, destination, state, 0, 0, verify, 0, 0, None, note, None, AT, "set-1", result)


@pytest.mark.parametrize("state", set(JobState) - BEING_DELIVERED)
def test_job_that_is_not_being_delivered_keeps_its_state(state):
    assert settlement_of(job(state), [delivery(DEAD)]) is None


@pytest.mark.parametrize(
    ("deliveries", "state", "reason"),
    [
        ([], JobState.COMPLETED, ENDS_WELL),
        ([delivery(DELIVERED)], JobState.COMPLETED, ENDS_WELL),
        ([delivery(COMMITTED, verify=Verify.FIND)], JobState.COMPLETED, ENDS_WELL),
        ([delivery(CANCELLED)], JobState.COMPLETED, ENDS_WELL),
        (
            [delivery(REFUSED), delivery(DELIVERED, "archive")],
            JobState.COMPLETED,
            f"{ENDS_WELL}; but pacs refused sr 2.25.2: no route",
        ),
        (
            [delivery(DEAD), delivery(DELIVERED, "archive")],
            JobState.FAILED,
            "pacs did not get sr 2.25.2: no route",
        ),
        (
            [delivery(DELIVERED, verify=Verify.UNAVAILABLE, note="no C-FIND")],
            JobState.COMPLETED,
            f"{ENDS_WELL}; but pacs cannot confirm what it has: no C-FIND",
        ),
        (
            [
                delivery(DELIVERED, verify=Verify.COMMITMENT),
                delivery(DELIVERED, "archive", verify=Verify.FIND),
            ],
            JobState.DELIVERED,
            "waiting for archive, pacs to confirm storage",
        ),
    ],
)
def test_job_with_nothing_pending_moves_on(deliveries, state, reason):
    assert settlement_of(job(), deliveries) == (state, reason)


def test_nothing_is_decided_while_an_object_is_pending():
    assert settlement_of(job(), [delivery(PENDING), delivery(DEAD, "archive")]) is None


def test_delivered_job_waits_for_its_confirmations():
    waiting = [delivery(DELIVERED, verify=Verify.COMMITMENT)]
    assert settlement_of(job(JobState.DELIVERED), waiting) is None


def test_delivered_job_with_an_object_to_send_again_is_delivering():
    assert settlement_of(job(JobState.DELIVERED), [delivery(PENDING)]) == (
        JobState.DELIVERING,
        "objects are being sent again",
    )


def test_rejected_reading_ends_rejected_and_its_problems_are_added():
    rejected = job(rejection="slices overlap")
    assert settlement_of(rejected, [delivery(DELIVERED)]) == (JobState.REJECTED, "slices overlap")
    assert settlement_of(rejected, [delivery(REFUSED)]) == (
        JobState.REJECTED,
        "slices overlap; but pacs refused sr 2.25.2: no route",
    )
