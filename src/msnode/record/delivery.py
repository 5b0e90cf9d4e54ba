"""A delivery, one object on its way to one destination, as a value: its states and how it is confirmed.

pending ─ delivered ─ committed (the destination confirmed that it keeps the object)
        └ refused (the destination does not accept it) | dead (retried too often) | cancelled
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class DeliveryState(StrEnum):
    """State of one object at one destination."""

    PENDING = "pending"
    DELIVERED = "delivered"
    COMMITTED = "committed"
    REFUSED = "refused"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Verify(StrEnum):
    """How a destination confirms that it keeps what it received."""

    COMMITMENT = "commitment"
    """Storage commitment (PS3.4 Annex J)."""
    FIND = "find"
    """A query for the object: C-FIND (PS3.4 Annex C) or QIDO-RS (PS3.18 10.6)."""
    NONE = "none"
    """The site requests no confirmation."""
    UNAVAILABLE = "unavailable"
    """The destination was asked and cannot confirm."""


@dataclass(frozen=True)
class Recipient:
    """A destination as the record sees it: what it receives, and how it confirms that.

    Attributes:
        kinds: kinds of object.
        verify: how it confirms them.
    """

    kinds: frozenset[str]
    verify: Verify = Verify.NONE


@dataclass(frozen=True)
class Result:
    """One object of a committed result set; `path` is relative to the set's folder."""

    kind: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Delivery:
    """A snapshot of one row of the delivery table, with its object. Times are UTC.

    Attributes:
        attempts: number of times it was tried and postponed.
        answers: number of times the destination itself answered with a failure, or denied that it has the
            object, since the delivery became pending or delivered.
        verify: how the destination confirms it.
        verifications: number of times the destination was asked to confirm it.
        denials: number of storage commitment reports by which it does not have what it answered to have.
        status: the last DIMSE or HTTP status; None where there was no answer.
        note: the last answer of the destination, or the last network error, for people.
        next_try_at: earliest time of the next attempt, or of the next request for confirmation.
        result_set: key of the result set that holds the object.
    """

    id: int
    job_id: int
    destination: str
    state: DeliveryState
    attempts: int
    answers: int
    verify: Verify
    verifications: int
    denials: int
    status: int | None
    note: str
    next_try_at: datetime | None
    updated_at: datetime
    result_set: str | None
    result: Result

    @property
    def unconfirmed(self) -> bool:
        """Whether the destination has received it and has still to confirm that it keeps it."""
        return self.state == DeliveryState.DELIVERED and self.verify in {Verify.COMMITMENT, Verify.FIND}
