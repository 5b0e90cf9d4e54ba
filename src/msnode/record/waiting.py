"""Studies that are being received: which of them may be complete now, and what has arrived of each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.domain.arrivals import SeriesArrivals, StudyArrivals
from msnode.record import schema
from msnode.record.job import JobState

if TYPE_CHECKING:
    from msnode.record.database import Database, Transaction

_I = schema.instance
_SERIES = schema.series
_STUDY = schema.study
_J = schema.job
_A = schema.association
_LINK = schema.association_series

# An association whose row was lost in a power cut was interrupted as well.
_interrupted = _A.c.association_id.is_(None) | (_A.c.closed_at.is_not(None) & _A.c.released.is_(False))

_OUTLINES = (
    sa.select(
        _J.c.id.label("job_id"),
        _J.c.revision,
        _J.c.study_key,
        sa.func.max(_SERIES.c.last_at).label("last_at"),
        sa.func.count().label("series"),
        sa.func.sum(sa.case((_interrupted, 1), else_=0)).label("interrupted"),
    )
    .join_from(_J, _SERIES, _SERIES.c.study_key == _J.c.study_key)
    .outerjoin(_A, _A.c.association_id == _SERIES.c.last_association_id)
    .where(_J.c.state == JobState.RECEIVING)
    .group_by(_J.c.id)
    .order_by(_J.c.id)
)
_OPEN = (
    sa.select(_SERIES.c.study_key, sa.func.count(_A.c.association_id.distinct()))
    .join_from(_A, _LINK, _LINK.c.association_id == _A.c.association_id)
    .join(_SERIES, _SERIES.c.id == _LINK.c.series_key)
    .where(_A.c.closed_at.is_(None))
    .group_by(_SERIES.c.study_key)
)
_SERIES_OF = (
    sa.select(
        _SERIES.c.id, _SERIES.c.series_instance_uid, _SERIES.c.last_at, _STUDY.c.study_instance_uid,
        _interrupted.label("interrupted"), _A.c.closed_at,
    )
    .join_from(_SERIES, _STUDY)
    .outerjoin(_A, _A.c.association_id == _SERIES.c.last_association_id)
    .where(_STUDY.c.id == sa.bindparam("study"))
    .order_by(_SERIES.c.id)
)  # fmt: skip
_POSITIONS = (
    sa.select(_I.c.slice_position_mm)
    .where(_I.c.series_key == sa.bindparam("series"))
    .where(_I.c.superseded.is_(False), _I.c.own.is_(False))
    .order_by(_I.c.id)
)

_Begun = Callable[[datetime], datetime]
_Outline = tuple[Any, ...]
"""What changes when a study changes: last arrival, number of series, interruptions, open associations."""


class WaitingStudies:
    """The studies whose job is in `receiving`.

    The arrivals of a study are read only where it may be complete and has changed, or where its next check is
    due. A check of a thousand waiting studies therefore costs about as much as one of a few.

    Args:
        database: the record.
        quiet_s: minimum time since the last instance of a study that may be complete, in seconds.

    Raises:
        OutOfResources: from every method, where the database cannot be used.
    """

    def __init__(self, database: Database, *, quiet_s: float = 0) -> None:
        self._database = database
        self._quiet = timedelta(seconds=quiet_s)
        self._seen: dict[int, _Outline] = {}
        self._next: dict[int, tuple[_Outline, datetime | None]] = {}
        self._anew = datetime.min.replace(tzinfo=UTC)
        self._ahead: dict[datetime, datetime] = {}

    def due(self, now: datetime) -> tuple[StudyArrivals, ...]:
        """The studies to check at `now` (UTC), oldest job first; see `check_again_at`."""
        with self._database.read() as tx:
            open_now = {key: int(count) for key, count in tx.execute(_OPEN)}
            rows = tx.execute(_OUTLINES).all()
            self._seen = {
                r.job_id: (r.last_at, r.series, r.interrupted, open_now.get(r.study_key)) for r in rows
            }
            self._next = {job: look for job, look in self._next.items() if job in self._seen}
            self._ahead = {moment: seen for moment, seen in self._ahead.items() if moment > now}
            begun = partial(self._begun, now)
            studies = (
                _study(tx, r, open_now.get(r.study_key, 0), begun) for r in rows if self._is_due(r, now)
            )
            return tuple(study for study in studies if study is not None)

    def check_again_at(self, study: StudyArrivals, at: datetime | None) -> None:
        """Leave out a study until a time (UTC), or for ever where it is None, unless the study changes."""
        self._next[study.job_id] = (self._seen[study.job_id], at)

    def restart_timers(self, at: datetime) -> None:
        """Let the timers of everything that came before begin anew, because the clock was set.

        Args:
            at: UTC, by the clock as it is set now.
        """
        self._anew = at
        self._next = {}

    def _begun(self, now: datetime, moment: datetime) -> datetime:
        """When the timer of something began that came at `moment`.

        A moment ahead of the clock was before the clock was set back: its timer begins when it is seen.
        """
        if moment > now:
            return self._ahead.setdefault(moment, now)
        return max(moment, self._anew)

    def _is_due(self, row: sa.Row[Any], now: datetime) -> bool:
        if now < self._begun(now, row.last_at) + self._quiet:
            return False
        outline, at = self._next.get(row.job_id, (None, now))
        return outline != self._seen[row.job_id] or (at is not None and at <= now)


def _study(tx: Transaction, row: sa.Row[Any], open_associations: int, begun: _Begun) -> StudyArrivals | None:
    """What has arrived of a study, with the times at which timers began; None where a node made all of it."""
    found = tx.execute(_SERIES_OF, {"study": row.study_key}).all()
    series = tuple(s for s in (_series(tx, each, begun) for each in found) if s is not None)
    if not series:
        return None
    return StudyArrivals(found[0].study_instance_uid, row.job_id, row.revision, series, open_associations)


def _series(tx: Transaction, row: sa.Row[Any], begun: _Begun) -> SeriesArrivals | None:
    """What has arrived of one series; None where a node made all of it."""
    positions = tx.execute(_POSITIONS, {"series": row.id}).scalars().all()
    if not positions:
        return None
    return SeriesArrivals(
        series_instance_uid=row.series_instance_uid,
        slice_positions_mm=tuple(p for p in positions if p is not None),
        instance_count=len(positions),
        last_at=begun(row.last_at),
        interrupted=bool(row.interrupted),
        interrupted_at=begun(row.closed_at) if row.interrupted and row.closed_at else None,
    )
