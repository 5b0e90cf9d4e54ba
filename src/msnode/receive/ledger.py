"""The ledger of arrivals: what the receiver needs of the record, and an implementation for tests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from msnode.domain.arrivals import Arrival, AssociationFacts


class Ledger(Protocol):
    """Records associations and arrivals. Its methods are called from several threads.

    Raises:
        OutOfResources: from every method, if the record cannot be written.
    """

    def association_opened(self, facts: AssociationFacts) -> None:
        """Record an association that a peer opened."""

    def association_closed(self, association_id: str, *, released: bool, at: datetime) -> None:
        """Record its end: by release, or by abort or a lost connection."""

    def add(self, *arrivals: Arrival, keep_bytes: Callable[[Arrival], None]) -> Mapping[str, str]:
        """Record instances whose bytes are durable, all or none; each is of another SOP instance.

        Every instance that is answered 0x0000 and kept is recorded, also one that is sent again with the same
        bytes: it shows that the series was sent again after an interruption.

        Args:
            arrivals: what came.
            keep_bytes: called for each arrival of a known instance before it is recorded, when retention can
                no longer remove its bytes.

        Returns:
            SOP Instance UID → digest of the latest version, for each arrival that was not recorded: that
            version has other bytes than the arrival and than `Arrival.replaces`.
        """

    def add_lost(self, *arrivals: Arrival) -> int:
        """Record those arrivals whose bytes are not recorded; returns how many."""

    def unrecorded(self, digests: Sequence[str]) -> frozenset[str]:
        """Those of a few hundred digests that are not recorded for any version of any instance."""

    def last_received_at(self) -> datetime | None:
        """When the last recorded instance came, UTC; None if there is none."""

    def refuse(self, arrival: Arrival, known: str, *, drop_bytes: Callable[[], None]) -> None:
        """Audit that an instance was refused, because version `known` shows another image.

        `drop_bytes` is called if no version has these bytes, while no version can get them.
        """

    def drop_unrecorded(self, arrival: Arrival, *, drop_bytes: Callable[[], None]) -> None:
        """Call `drop_bytes` if no version has the arrival's bytes, while no version can get them."""

    def set_aside(self, digest: str, *, move: Callable[[], None]) -> None:
        """Audit that stored bytes cannot be recorded, and `move` them out of the way."""


class MemoryLedger:
    """A ledger for tests, which keeps everything in order."""

    def __init__(self) -> None:
        self.opened: list[AssociationFacts] = []
        self.closed: dict[str, bool] = {}
        self.arrivals: list[Arrival] = []
        self.audited: list[tuple[str, dict[str, str]]] = []
        self.changed = threading.Condition()

    def association_opened(self, facts: AssociationFacts) -> None:
        """Keep it."""
        self.opened.append(facts)

    def association_closed(self, association_id: str, *, released: bool, at: datetime) -> None:  # noqa: ARG002 - the protocol's signature
        """Keep it, and notify `changed`."""
        with self.changed:
            self.closed[association_id] = released
            self.changed.notify_all()

    def add(self, *arrivals: Arrival, keep_bytes: Callable[[Arrival], None]) -> Mapping[str, str]:
        """Keep those that may be recorded, and notify `changed`."""
        others = {}
        with self.changed:
            for arrival in arrivals:
                versions = [a.digest for a in self.arrivals if a.sop_instance_uid == arrival.sop_instance_uid]
                known = versions[-1] if versions else None
                if known is not None and known not in {arrival.digest, arrival.replaces}:
                    others[arrival.sop_instance_uid] = known
                    continue
                if known is not None:
                    keep_bytes(arrival)
                self.arrivals.append(arrival)
                if known == arrival.replaces is not None:
                    self.audited.append(("instance_new_version", {"new_digest": arrival.digest}))
            self.changed.notify_all()
        return others

    def add_lost(self, *arrivals: Arrival) -> int:
        """Keep those that are new."""
        missing = self.unrecorded([a.digest for a in arrivals])
        self.arrivals += [a for a in arrivals if a.digest in missing]
        return len(missing)

    def unrecorded(self, digests: Sequence[str]) -> frozenset[str]:
        """Those that were not added."""
        return frozenset(digests).difference(a.digest for a in self.arrivals)

    def last_received_at(self) -> datetime | None:
        """Of the last one added."""
        return self.arrivals[-1].received_at if self.arrivals else None

    def refuse(self, arrival: Arrival, known: str, *, drop_bytes: Callable[[], None]) -> None:
        """Keep that."""
        self.audited.append(
            ("instance_refused_other_pixels", {"known_digest": known, "new_digest": arrival.digest})
        )
        self.drop_unrecorded(arrival, drop_bytes=drop_bytes)

    def drop_unrecorded(self, arrival: Arrival, *, drop_bytes: Callable[[], None]) -> None:
        """Drop them if they were not added."""
        if self.unrecorded([arrival.digest]):
            drop_bytes()

    def set_aside(self, digest: str, *, move: Callable[[], None]) -> None:
        """Keep that."""
        self.audited.append(("stored_instance_set_aside", {"digest": digest}))
        move()
