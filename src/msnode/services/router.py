"""Applies the routing rules to a study in the record, and keeps the decision with its job."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from msnode.domain.imaging import FLAIR
from msnode.errors import NotReadable, StoredBytesChanged
from msnode.record import jobs
from msnode.record.arrivals import Arrivals
from msnode.record.job import JobState, Priority
from msnode.record.studies import calling_aes, one_digest_a_series
from msnode.routing.rules import Decision, Geometry, StudyFacts, decide
from msnode.series.describe import describe
from msnode.series.select import select
from msnode.series.volume import group_series, read_instance
from msnode.store import check_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from msnode.domain.imaging import Instance, Selection
    from msnode.record.database import Database, Transaction
    from msnode.record.job import Job
    from msnode.routing.rules import Rule
    from msnode.series.select import SelectionRules
    from msnode.store import Store

_OBLIQUE_DEG = 30.0
"""Axial slices of a head follow the corpus callosum and are tilted by up to some 25 degrees: still axial."""


class Router:
    """Decides what becomes of a study that is complete; of what cannot be read in it the reading says why.

    Args:
        rules: tried in order.
        selection: limits of the rules that pick the FLAIR.
        database: the record.
        store: where the instances lie.
    """

    def __init__(
        self, rules: Sequence[Rule], selection: SelectionRules, database: Database, store: Store
    ) -> None:
        self._rules = rules
        self._selection = selection
        self._database = database
        self._store = store

    def decide(self, study_instance_uid: str, at: datetime) -> Decision:
        """The rule that decides, on what there is of the study.

        Args:
            study_instance_uid: a study in the record.
            at: when it was complete.

        Raises:
            OutOfResources: record or store cannot be used now.
        """
        if not self._rules:
            return Decision()
        with self._database.read() as tx:
            callers = calling_aes(tx, study_instance_uid)
            one_each = one_digest_a_series(tx, study_instance_uid)
        facts = StudyFacts(
            callers,
            at.astimezone(),
            headers=cache(lambda: [i.header for i in self._instances(one_each)]),
            geometry=cache(lambda: self._geometry(study_instance_uid)),
        )
        return decide(self._rules, facts)

    def _geometry(self, study_instance_uid: str) -> Geometry | None:
        stored = Arrivals(self._database).study_instances(study_instance_uid)
        study = group_series(self._instances(each.digest for each in stored))
        # copies have one geometry: here no pixel is decoded
        return geometry_of(select(study, self._selection, same_volume=lambda *_: True))

    def _instances(self, digests: Iterable[str]) -> list[Instance]:
        there = []
        for digest in digests:
            if not self._store.has_blob(digest):
                continue
            path = self._store.blob_path(digest)
            with suppress(NotReadable, StoredBytesChanged):  # the reading says so
                check_digest(path, digest)
                there.append(read_instance(path, digest))
        return there


def queue(tx: Transaction, job: Job, decision: Decision, *, at: datetime, why: str) -> Job:
    """Move a job that is complete to the queue, or past it where its rule says that it is not to be read.

    Raises:
        InvalidTransition: see `jobs.move`.
    """
    rule, to = decision.rule, JobState.QUEUED
    if rule is not None and rule.read is False:
        to, why = JobState.PASSED_OVER, f"the rule {rule.name!r} says that it is not to be read"
    return jobs.move(tx, job, to, at=at, why=why, **routed(job, decision))


def routed(job: Job, decision: Decision) -> Mapping[str, Any]:
    """The columns that keep the decision with its job: another rule, later, does not change it."""
    rule = decision.rule
    if rule is None:
        return {}
    return {
        "rule": rule.name,
        "asked_for": rule.read,
        "bundle": rule.bundle,
        "preset": rule.preset,
        "destinations": rule.destinations,
        "priority": min(job.priority, Priority.STAT if rule.urgent else Priority.ROUTINE),
    }


def geometry_of(selection: Selection) -> Geometry | None:
    """The geometry of the chosen series; None where none is."""
    chosen = selection.series.get(FLAIR)
    if chosen is None:
        return None
    found = describe(chosen)
    return Geometry(
        plane="oblique" if found.tilt_deg > _OBLIQUE_DEG else found.plane,
        acquisition="3d" if found.is_3d else "2d",
        slice_count=found.slice_count,
        slice_distance_mm=found.slice_distance_mm,
    )
