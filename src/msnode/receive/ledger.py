"""Where arrivals are recorded: what the receiver asks of the record, and a record for tests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from msnode.domain.arrivals import Arrival, AssociationFacts


class Ledger(Protocol):
    """Where arrivals are recorded; called from several threads.

    Raises:
        OutOfResources: from every method, where the record cannot be written.
    """

    def association_opened(self, facts: AssociationFacts) -> None:
        """A peer opened an association."""

    def association_closed(self, association_id: str, *, released: bool, at: datetime) -> None:
        """It ended, by release or otherwise (abort, lost connection)."""

    def add(self, *arrivals: Arrival, keep_bytes: Callable[[Arrival], None]) -> Mapping[str, str]:
        """Record instances whose bytes are durable, each of another SOP instance, together or not at all.

        It is called for every instance of a kept class that is answered 0x0000, a re-send of the same
        bytes included: it shows that the series was sent again after an interruption. `keep_bytes` is
        called for each of a known instance that is recorded, when nothing can remove its bytes any more.

        Returns:
            SOP Instance UID → digest of the latest version, for each that was not recorded because that
            version has other bytes than the arrival and than `Arrival.replaces`.
        """

    def add_lost(self, *arrivals: Arrival) -> int:
        """Record those of which nothing is recorded; returns how many."""

    def unrecorded(self, digests: Sequence[str]) -> frozenset[str]:
        """Those of a few hundred digests that no version of any instance has."""

    def last_received_at(self) -> datetime | None:
        """When the instance came that was recorded last, UTC; None where there is none."""

    def refuse(self, arrival: Arrival, known: str, *, drop_bytes: Callable[[], None]) -> None:
        """Write down that an instance was not taken, because version `known` shows another image.

        `drop_bytes` is called where no version has these bytes, when none can get them meanwhile.
        """


class MemoryLedger:
    """A ledger for tests: keeps what it was told, in order."""

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
        """Keep it, and wake up whoever waits on `changed`."""
        with self.changed:
            self.closed[association_id] = released
            self.changed.notify_all()

    def add(self, *arrivals: Arrival, keep_bytes: Callable[[Arrival], None]) -> Mapping[str, str]:
        """Keep those that may be kept, and wake up whoever waits on `changed`."""
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
        if self.unrecorded([arrival.digest]):
            drop_bytes()
