"""What a destination is to the rest of the node: a name, the kinds it takes, and `send`."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pydicom
from pydicom.errors import InvalidDicomError

from msnode.dicom.contexts import Context
from msnode.errors import DeliveryRefused, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Outcome(enum.StrEnum):
    """What became of one object at one destination."""

    STORED = "stored"
    STORED_WITH_WARNING = "stored_with_warning"
    ALREADY_THERE = "already_there"
    TRY_LATER = "try_later"
    UNCLEAR = "unclear"
    """A failure that may pass or not: worth another try a few times."""
    REFUSED = "refused"

    @property
    def is_delivered(self) -> bool:
        """The destination has the object."""
        return self in {Outcome.STORED, Outcome.STORED_WITH_WARNING, Outcome.ALREADY_THERE}

    @property
    def is_final(self) -> bool:
        """Another try would change nothing."""
        return self not in {Outcome.TRY_LATER, Outcome.UNCLEAR}


@dataclass(frozen=True)
class ResultObject:
    """One file of a committed result set.

    Attributes:
        kind: of result object: "seg", "sr", …
        path: the DICOM file; it is sent as it lies there.
    """

    kind: str
    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str

    @classmethod
    def from_file(cls, kind: str, path: Path) -> ResultObject:
        """The object in `path`, described by its file meta information (PS3.10 7.1).

        Raises:
            DeliveryRefused: it is no DICOM file.
            OutOfResources: the file is not there, or cannot be read now.
        """
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
            return cls(
                kind,
                path,
                str(meta.MediaStorageSOPClassUID),
                str(meta.MediaStorageSOPInstanceUID),
                str(meta.TransferSyntaxUID),
            )
        except OSError as error:
            raise OutOfResources(f"{path.name} cannot be read: {error.strerror}") from None
        except (InvalidDicomError, AttributeError, EOFError) as error:
            raise DeliveryRefused(f"{path.name} cannot be sent: {type(error).__name__}") from None

    @property
    def context(self) -> Context:
        """What a peer must accept to be given this object."""
        return Context(self.sop_class_uid, self.transfer_syntax_uid)


@dataclass(frozen=True)
class SendResult:
    """What a destination did with one object.

    Attributes:
        status: the DIMSE or HTTP status; None where none was received.
        text: what the status or the refusal means, in our words.
        comment: what the destination itself said. It may hold anything, names too: for the record
            and the screen of an administrator, never for a log.
    """

    sop_instance_uid: str
    outcome: Outcome
    status: int | None
    text: str
    comment: str = ""


class Destination(Protocol):
    """A place that results are sent to."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    def takes(self, kind: str) -> bool:
        """Whether it is to be given objects of this kind."""
        ...

    def send(self, objects: Sequence[ResultObject]) -> tuple[SendResult, ...]:
        """Send the objects, one result each in the same order; never one without a result.

        Args:
            objects: what is still to be sent; each of a kind that it takes.

        Raises:
            Transient: nothing could be sent (`PeerUnreachable`, `AssociationRejected`). A peer that goes
                away in the middle raises nothing: what it had not stored is `TRY_LATER`.
        """
        ...


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again: delays grow by `factor` from `first_s` to `max_s`, at most `limit` tries.

    The defaults go on for about a day and a quarter: a peer that is down over night is not given up.

    Attributes:
        answers: how often a destination may itself answer what is unclear, or no, before that is final.
    """

    first_s: float = 5.0
    factor: float = 2.0
    max_s: float = 900.0
    limit: int = 120
    answers: int = 3

    def delay(self, attempt: int, key: str) -> float | None:
        """Seconds to wait after try number `attempt` (from 1) failed; None where that was the last.

        Args:
            attempt: the try that failed.
            key: what is tried. It moves the delay by up to a tenth, always equally for one key and
                attempt, so that what failed together does not come back together.
        """
        if attempt >= self.limit:
            return None
        grown = self.first_s
        for _ in range(attempt - 1):
            grown *= self.factor
            if grown >= self.max_s:
                break
        digest = hashlib.sha256(f"{key}/{attempt}".encode()).digest()
        shift = int.from_bytes(digest[:4]) / 2**32 * 0.2 - 0.1
        return min(grown, self.max_s) * (1 + shift)


@dataclass
class FakeDestination:
    """A destination that answers what a test wants, and remembers what it was sent.

    Attributes:
        objects: the kinds it takes.
        outcomes: SOP Instance UID → outcome; others are stored.
        failure: raised by `send` where set.
        sent: the UIDs of each call.
    """

    name: str = "fake"
    objects: frozenset[str] = frozenset({"seg", "sr", "overlay"})
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failure: Exception | None = None
    sent: list[tuple[str, ...]] = field(default_factory=list)

    def takes(self, kind: str) -> bool:
        """Whether `kind` is among `objects`."""
        return kind in self.objects

    def send(self, objects: Sequence[ResultObject]) -> tuple[SendResult, ...]:
        """Remember the objects and answer as told."""
        if self.failure is not None:
            raise self.failure
        self.sent.append(tuple(o.sop_instance_uid for o in objects))
        return tuple(
            SendResult(uid, self.outcomes.get(uid, Outcome.STORED), None, "fake") for uid in self.sent[-1]
        )
