"""The audit trail: append-only, each line chained to the one before by its digest.

A changed, inserted or removed line breaks the chain from there on. Lines removed from the end leave a valid
chain; to detect that, keep the last digest elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC
from typing import TYPE_CHECKING

import sqlalchemy as sa

from msnode.dicom.character_sets import storable
from msnode.record.database import lock
from msnode.record.schema import audit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from msnode.errors import StoredBytesChanged
    from msnode.record.database import Transaction

Fact = str | int | float | bool | None

_GENESIS = "0" * 64
_AT_ONCE = 1000


def append(tx: Transaction, event: str, *, at: datetime, facts: Mapping[str, Fact]) -> None:
    """Add one line. Takes the audit lock, the last in the order of `database.lock`: lines are chained.

    Args:
        tx: the caller's transaction.
        event: name of the event, snake_case.
        at: UTC.
        facts: UIDs, numbers and machine-made words; never names or birth dates.
    """
    lock(tx, "audit")
    latest = sa.select(audit.c.sha256).order_by(audit.c.id.desc()).limit(1)
    previous = tx.execute(latest).scalar() or _GENESIS
    text = storable(json.dumps(dict(facts), sort_keys=True, ensure_ascii=False))
    digest = _chain(previous, at, event, text)
    tx.execute(audit.insert().values(at=at, event=event, facts=text, sha256=digest))


def stored_bytes_changed(tx: Transaction, error: StoredBytesChanged, *, at: datetime, **facts: Fact) -> None:
    """Add the line for bytes in the store that are not those that were recorded."""
    append(tx, "stored_bytes_changed", at=at, facts={"error": str(error), **facts})


def verify(tx: Transaction) -> int | None:
    """Check the chain; returns the id of the first line that does not follow from the one before, or None."""
    previous = _GENESIS
    trail = sa.select(audit).order_by(audit.c.id).execution_options(yield_per=_AT_ONCE)
    with tx.execute(trail) as lines:
        for line in lines:
            if line.sha256 != _chain(previous, line.at, line.event, line.facts):
                return int(line.id)
            previous = line.sha256
    return None


def _chain(previous: str, at: datetime, event: str, facts: str) -> str:
    # A JSON array keeps the fields apart whatever characters they hold.
    content = json.dumps([previous, at.astimezone(UTC).isoformat(), event, facts])
    return hashlib.sha256(content.encode()).hexdigest()
