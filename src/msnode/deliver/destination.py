"""What the rest of the node knows of a destination: its name, the kinds it takes, sending and verifying."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pydicom
from pydicom.errors import InvalidDicomError

from msnode.dicom.contexts import Context
from msnode.errors import DeliveryRefused, OutOfResources

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from msnode.dicom.association import Found, Response
    from msnode.dicom.commitment import Request, TakeReport


class Outcome(enum.StrEnum):
    """What became of one object at one destination."""

    STORED = "stored"
    STORED_WITH_WARNING = "stored_with_warning"
    ALREADY_THERE = "already_there"
    TRY_LATER = "try_later"
    UNCLEAR = "unclear"
    """The failure may be temporary: a few more tries are worthwhile."""
    REFUSED = "refused"

    @property
    def is_delivered(self) -> bool:
        """Whether the destination has the object."""
        return self in {Outcome.STORED, Outcome.STORED_WITH_WARNING, Outcome.ALREADY_THERE}

    @property
    def is_final(self) -> bool:
        """Whether another try is pointless."""
        return self not in {Outcome.TRY_LATER, Outcome.UNCLEAR}


@dataclass(frozen=True)
class ResultObject:
    """One file of a committed result set.

    Attributes:
        kind: of result object: "seg", "sr", …
        path: the DICOM file, which is sent byte for byte.
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
            DeliveryRefused: not a DICOM file.
            OutOfResources: the file is missing, or cannot be read now.
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
        """The presentation context that a peer must accept to receive this object."""
        return Context(self.sop_class_uid, self.transfer_syntax_uid)


@dataclass(frozen=True)
class SendResult:
    """What a destination did with one object.

    Attributes:
        status: the DIMSE or HTTP status; None if none was received.
        text: what the status or the refusal means, in our words.
        comment: the destination's own words. They may hold anything, names too: they belong in the record
            and on an administrator's screen, never in a log.
    """

    sop_instance_uid: str
    outcome: Outcome
    status: int | None
    text: str
    comment: str = ""


class Destination(Protocol):
    """Receives results."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    def takes(self, kind: str) -> bool:
        """Whether objects of this kind are to be sent to it."""
        ...

    def send(self, objects: Sequence[ResultObject]) -> tuple[SendResult, ...]:
        """Send the objects.

        Args:
            objects: what is still to be sent; each of a kind that the destination takes.

        Returns:
            One result for each object, in the same order.

        Raises:
            Transient: nothing could be sent (`PeerUnreachable`, `AssociationRejected`). If the connection is
                lost later, nothing is raised and the objects not yet stored are `TRY_LATER`.
        """
        ...


class VerificationSession(Protocol):
    """An open connection to a destination, to ask whether it keeps what it was sent.

    Raises:
        PeerUnreachable: from every question, if the connection was lost or no answer came.
    """

    @property
    def commits(self) -> bool:
        """Whether the destination takes commitment requests."""
        ...

    @property
    def finds(self) -> bool:
        """Whether the destination can be asked what it has."""
        ...

    @property
    def asks_by(self) -> str:
        """The name of the service that `find` uses, for people."""
        ...

    @property
    def deadline_s(self) -> float:
        """How long the destination may take to report on a commitment request, seconds."""
        ...

    def request(self, request: Request) -> Response:
        """Ask for safekeeping of objects (PS3.4 J.3.2).

        The report comes later, over this connection or over one that the destination opens.
        """
        ...

    def linger(self, answered: Callable[[], bool]) -> None:
        """Wait a moment for a report over this connection, at most until `answered` returns true."""
        ...

    def find(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uids: Collection[str]
    ) -> Found:
        """Which of the instances the destination has; the answer may name others too."""
        ...


class VerifiableDestination(Protocol):
    """A destination that can be asked whether it keeps what it was sent."""

    def open_session(self, take_report: TakeReport) -> AbstractContextManager[VerificationSession]:
        """A session with the destination.

        Args:
            take_report: called, in another thread, with each report that comes over this session.

        Raises:
            PeerUnreachable: there is no connection.
            AssociationRejected: the destination refused the association.
        """
        ...
