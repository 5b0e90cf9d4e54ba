"""Decides the state of a job from its deliveries.

A job has ended when no delivery is pending and none waits to be confirmed. A refused object leaves it
`completed`, with the refusal in its reason. A dead delivery makes it `failed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msnode.record.delivery import DeliveryState, Verify
from msnode.record.job import BEING_DELIVERED, JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.record.delivery import Delivery
    from msnode.record.job import Job


class Settlement(NamedTuple):
    """The state that a job changes into, and the reason."""

    state: JobState
    reason: str


def settlement_of(job: Job, deliveries: Sequence[Delivery]) -> Settlement | None:
    """The state that a job's deliveries ask for; None where the job keeps its state.

    Args:
        job: the job; one that is not being delivered keeps its state.
        deliveries: every delivery of the job.
    """
    if job.state not in BEING_DELIVERED:
        return None
    if any(d.state == DeliveryState.PENDING for d in deliveries):
        if job.state == JobState.DELIVERING:
            return None
        return Settlement(JobState.DELIVERING, "objects are being sent again")
    waiting = sorted({d.destination for d in deliveries if d.unconfirmed})
    if waiting:
        if job.state == JobState.DELIVERED:
            return None
        return Settlement(JobState.DELIVERED, f"waiting for {', '.join(waiting)} to confirm storage")
    return _end(job, deliveries)


def _end(job: Job, deliveries: Sequence[Delivery]) -> Settlement:
    missing = [d for d in deliveries if d.state in {DeliveryState.REFUSED, DeliveryState.DEAD}]
    problems = [
        f"{d.destination} {'refused' if d.state == DeliveryState.REFUSED else 'did not get'} "
        f"{d.result.kind} {d.result.sop_instance_uid}: {d.note}"
        for d in missing
    ]
    doubtful = {d.destination: d.note for d in deliveries if d.verify == Verify.UNAVAILABLE}
    problems += [f"{name} cannot confirm what it has: {note}" for name, note in sorted(doubtful.items())]
    text = "; ".join(problems)
    if any(d.state == DeliveryState.DEAD for d in missing):
        return Settlement(JobState.FAILED, text)
    end, why = JobState.COMPLETED, "every destination has all objects that it takes"
    if job.rejection is not None:
        end, why = JobState.REJECTED, job.rejection
    return Settlement(end, f"{why}; but {text}" if text else why)
