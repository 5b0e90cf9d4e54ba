"""Group commit: instances of several associations are recorded in one transaction."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msnode.errors import OutOfResources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from msnode.domain.arrivals import Arrival
    from msnode.receive.ledger import Ledger

_BATCH = 64


@dataclass(eq=False)
class _Entry:
    """One thread's instance. The thread waits until another has recorded it, or until it is the leader."""

    arrival: Arrival
    keep_bytes: Callable[[], None]
    go_on: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    is_done: bool = False
    known: str | None = None
    error: OutOfResources | None = None


class GroupCommit:
    """Adds the instances of several threads to a ledger.

    The first thread records its own instance at once. Threads that come meanwhile wait; then one of them
    leads and records for all. With one sender, nothing waits.

    Args:
        ledger: records the batches.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._is_led = False

    def add(self, arrival: Arrival, keep_bytes: Callable[[], None]) -> str | None:
        """Record one instance; see `Ledger.add`.

        Returns:
            None if it is recorded, else the digest of the version to compare it with.

        Raises:
            OutOfResources: nothing was recorded.
        """
        mine = _Entry(arrival, keep_bytes)
        with self._lock:
            self._waiting.append(mine)
            mine.leads = not self._is_led
            self._is_led = True
        if not mine.leads:
            mine.go_on.wait()
        if mine.leads:
            self._lead(mine)
        elif mine.error is not None:
            raise OutOfResources(str(mine.error))
        elif not mine.is_done:  # the leader failed on another instance of the batch
            self._record([mine])
        return mine.known

    def _lead(self, mine: _Entry) -> None:
        batch = self._take(mine)
        try:
            self._record(batch)
        except OutOfResources as error:
            for entry in batch:
                entry.error = error
            raise
        finally:
            self._hand_over()
            for entry in batch:
                entry.go_on.set()

    def _take(self, mine: _Entry) -> list[_Entry]:
        """The leader's instance and others that wait. Two versions of one instance never share a batch."""
        with self._lock:
            batch = {mine.arrival.sop_instance_uid: mine}
            for entry in self._waiting:
                if len(batch) == _BATCH:
                    break
                batch.setdefault(entry.arrival.sop_instance_uid, entry)
            taken = list(batch.values())
            self._waiting = [entry for entry in self._waiting if entry not in taken]
        return taken

    def _hand_over(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].go_on.set()
            else:
                self._is_led = False

    def _record(self, batch: Sequence[_Entry]) -> None:
        entries = {entry.arrival.sop_instance_uid: entry for entry in batch}
        others = self._ledger.add(
            *(entry.arrival for entry in batch), keep_bytes=lambda a: entries[a.sop_instance_uid].keep_bytes()
        )
        for uid, entry in entries.items():
            entry.known = others.get(uid)
            entry.is_done = True
