"""A job, one reading of a study, as a value: its states and the transitions between them.

    receiving ─ queued ─ running ─ delivering ─ delivered ─ completed | rejected
                                 └ passed_over | unchanged

Every state that is not an end leads to `failed` and `cancelled`; an administrator may retry from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Priority(IntEnum):
    """Order of reading and delivery: the lower number comes first."""

    STAT = 1
    ROUTINE = 5


class JobState(StrEnum):
    """State of a job."""

    RECEIVING = "receiving"
    """Instances are coming in, or an interrupted association has left the study incomplete."""
    QUEUED = "queued"
    """The study is complete; the job waits for a worker."""
    RUNNING = "running"
    DELIVERING = "delivering"
    """The result set is written; objects are being sent to the destinations."""
    DELIVERED = "delivered"
    """Every object was sent; a destination has not confirmed yet that it keeps them."""
    COMPLETED = "completed"
    REJECTED = "rejected"
    """The study could not be read; a report that gives the reason was delivered."""
    PASSED_OVER = "passed_over"
    """The study held nothing to read; recorded, not reported."""
    UNCHANGED = "unchanged"
    """A revision that selects exactly the instances that the previous reading used."""
    FAILED = "failed"
    """Needs a person."""
    CANCELLED = "cancelled"


_S = JobState
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    _S.RECEIVING: frozenset({_S.QUEUED, _S.PASSED_OVER, _S.FAILED, _S.CANCELLED}),
    # queued → queued: with another priority
    _S.QUEUED: frozenset({_S.QUEUED, _S.RUNNING, _S.FAILED, _S.CANCELLED}),
    # running → running: started again after its worker died; running → queued: retried later
    _S.RUNNING: frozenset({
        _S.RUNNING, _S.QUEUED, _S.DELIVERING, _S.PASSED_OVER, _S.UNCHANGED, _S.FAILED, _S.CANCELLED,
    }),
    _S.DELIVERING: frozenset({_S.DELIVERED, _S.COMPLETED, _S.REJECTED, _S.FAILED, _S.CANCELLED}),
    # delivered → delivering: a destination lost an object, which is sent again
    _S.DELIVERED: frozenset({_S.DELIVERING, _S.COMPLETED, _S.REJECTED, _S.FAILED, _S.CANCELLED}),
    # completed or rejected → delivering: an administrator has refused objects sent again
    _S.COMPLETED: frozenset({_S.DELIVERING}),
    _S.REJECTED: frozenset({_S.DELIVERING}),
    _S.PASSED_OVER: frozenset({_S.QUEUED}),
    _S.UNCHANGED: frozenset(),
    _S.FAILED: frozenset({_S.QUEUED, _S.DELIVERING}),
    _S.CANCELLED: frozenset({_S.QUEUED, _S.DELIVERING}),
}  # fmt: skip
"""State → the states that may follow it."""

BEING_DELIVERED = frozenset({JobState.DELIVERING, JobState.DELIVERED})
"""The reading has ended, the delivery has not."""


@dataclass(frozen=True)
class Job:
    """A snapshot of one row of the job table. Times are UTC.

    Attributes:
        revision: 0 for the first reading of a study.
        reason: why the job is in this state, for people.
        rejection: why the study could not be read; None where it could, or is not read yet. With a rejection
            the job ends `rejected` instead of `completed`.
        started_at: when a worker first started the job. Set once and kept over every retry: it is the source
            of every date in the results.
        attempts: number of times a worker started it since it was first queued, or since an administrator
            retried it. An interrupted reading that is started again counts once.
        requeues: number of times it was queued again; part of its workflow ids.
        interruptions: number of times it was started again because the process that ran it had ended.
        priority: see `Priority`.
        rule: name of the routing rule that decided; None where none matched.
        asked_for: whether the rule requested a reading, so that the node must answer in any case.
        bundle: model bundle that reads it; None for the one in the settings.
        preset: preset that reads it; None for the one in the settings.
        destinations: names of the destinations that get the results; None for those in the settings.
        not_before: earliest time at which a worker may start it.
        series_instance_uid: the series that was read.
        selection_digest: SHA-256 over the selected instances.
        result_set: key of its result set in the store.
        result_sha256: SHA-256 of the set's `result.json`; None up to version 0.4.
        timings_s: stage → seconds.
    """

    id: int
    study_instance_uid: str
    revision: int
    state: JobState
    reason: str
    state_since: datetime
    created_at: datetime
    rejection: str | None = None
    started_at: datetime | None = None
    attempts: int = 0
    requeues: int = 0
    interruptions: int = 0
    priority: int = Priority.ROUTINE
    rule: str | None = None
    asked_for: bool | None = None
    bundle: str | None = None
    preset: str | None = None
    destinations: tuple[str, ...] | None = None
    not_before: datetime | None = None
    series_instance_uid: str | None = None
    selection_digest: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    model_sha256: str | None = None
    msnode_version: str | None = None
    runtime: str | None = None
    settings_digest: str | None = None
    result_set: str | None = None
    result_sha256: str | None = None
    lesion_count: int | None = None
    lesion_volume_mm3: float | None = None
    timings_s: Mapping[str, float] | None = None

    def evolve(self, **changes: Any) -> Job:
        """A copy with `changes`."""
        return replace(self, **changes)
