"""What is there of a study when it is read: its instances, and what earlier revisions left behind."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydicom import dcmread

from msnode.encode import REPORT_KINDS, Replaced, SentObject, normalise
from msnode.reading.result_set import read_former, read_result
from msnode.record import deliveries, jobs
from msnode.record.delivery import DeliveryState
from msnode.record.results import results_of
from msnode.series.volume import group_series, read_instance
from msnode.store import check_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from msnode.domain.imaging import Series
    from msnode.reading.outcome import Former
    from msnode.record.arrivals import StoredInstance
    from msnode.record.database import Transaction
    from msnode.record.delivery import Result
    from msnode.record.job import Job
    from msnode.store import Store

_ARRIVED = {DeliveryState.DELIVERED, DeliveryState.COMMITTED}
_NOTE = "ko"


@dataclass(frozen=True)
class Past:
    """What the record says of the earlier revisions of a job's study.

    Attributes:
        revisions: those that gave results, newest first.
        sent: each that a destination has something of and that no later one has rejected, with its objects,
            newest first.
        reports: kind of report → SOP Instance UID of the latest that a destination has.
    """

    revisions: tuple[Job, ...]
    sent: tuple[tuple[Job, tuple[Result, ...]], ...]
    reports: Mapping[str, str]


def past_of(tx: Transaction, job: Job) -> Past:
    """The earlier revisions of the job's study.

    What was still being sent counts as sent: it may have arrived without our knowing.
    """
    revisions: list[Job] = []
    while (each := jobs.former(tx, revisions[-1] if revisions else job)) is not None:
        revisions.append(each)
    sent: list[tuple[Job, tuple[Result, ...]]] = []
    reports: dict[str, str] = {}
    for each in revisions:
        owed = deliveries.of_job(tx, each.id)
        arrived = {d.result.sop_instance_uid: d.result for d in owed if d.state in _ARRIVED}
        maybe = {d.result.sop_instance_uid: d.result for d in owed if d.state == DeliveryState.PENDING}
        if any(r.kind != _NOTE for r in arrived.values()):
            sent.append((each, tuple(r for r in (arrived | maybe).values() if r.kind != _NOTE)))
        reports = {r.kind: uid for uid, r in arrived.items() if r.kind in REPORT_KINDS} | reports
        notes = {r.sop_instance_uid for r in results_of(tx, each.id) if r.kind == _NOTE}
        if notes and notes <= arrived.keys():
            break  # with these, all that is older was rejected
    return Past(tuple(revisions), tuple(sent), reports)


def stored_study(
    stored: Sequence[StoredInstance], store: Store
) -> tuple[tuple[Series, ...], Mapping[str, str]]:
    """The series of a study of which bytes are there, and those of which none are.

    Returns:
        Series, each with a reason in `missing` where instances of it were removed; and Series Instance UID →
        when all of it was removed, in words.

    Raises:
        NotReadable: bytes of an instance are damaged.
        StoredBytesChanged: they are not those that were received.
    """
    count = Counter(s.series_instance_uid for s in stored)
    here = [s for s in stored if store.blob_path(s.digest).exists()]
    lost: defaultdict[str, list[StoredInstance]] = defaultdict(list)
    for each in set(stored).difference(here):
        lost[each.series_instance_uid].append(each)
    removed = {u: f"{len(of)} of {count[u]} instances were removed {_when(of)}" for u, of in lost.items()}
    study = []
    for series in group_series(read_instance(store.checked_blob(s.digest), s.digest) for s in here):
        reason = removed.pop(series.series_instance_uid, "")
        study.append(replace(series, missing=f"{reason}: send the whole series again" if reason else ""))
    return tuple(study), removed


def _when(lost: Sequence[StoredInstance]) -> str:
    days = sorted(f"{each.removed_at:%Y-%m-%d}" for each in lost if each.removed_at is not None)
    return f"by retention on {days[-1]}" if days else "from the store"


def former_reading(past: Past, store: Store, removed: Mapping[str, str]) -> Former | None:
    """What the latest earlier revision read and found; None where there is none, or its set is lost.

    One that was rejected because bytes were missing read nothing: the one before it counts.

    Args:
        past: the earlier revisions.
        store: holds their result sets.
        removed: series of which no bytes are left, and when they were removed.

    Raises:
        StoredBytesChanged: a set is not what was recorded.
    """
    kept = [(job, _result_set(job, store)) for job in past.revisions]
    sets = [
        (job, folder, read_result(folder, job.result_sha256)) for job, folder in kept if folder is not None
    ]
    if not sets:
        return None
    job, folder, result = next((s for s in sets if not s[2].get("removed")), sets[0])
    latest = sets[0][2]
    since = None if latest is result else (latest["reason"], latest["identity_digest"])
    gone = removed.get(result["series_instance_uid"] or "", "")
    if gone:
        gone = f"of the series that revision {job.revision} read, {gone}: send the whole study again"
    return read_former(folder, job.revision, sha256=job.result_sha256, gone=gone, since=since)


def _result_set(job: Job, store: Store) -> Path | None:
    if job.result_set is None or not store.has_set(job.result_set):
        return None
    return store.set_path(job.result_set)


def replaced_revisions(past: Past, store: Store) -> tuple[Replaced, ...]:
    """What destinations have of earlier revisions, under the identity in which it was sent.

    Raises:
        StoredBytesChanged: a set is not what was recorded.
    """
    replaced = []
    for job, results in past.sent:
        folder = _result_set(job, store)
        if folder is None:
            continue
        outputs = read_result(folder, job.result_sha256)["outputs"]
        report = next(o for o in outputs if o["kind"] in REPORT_KINDS)
        check_digest(folder / report["path"], report["sha256"])
        header = normalise(dcmread(folder / report["path"]))
        objects = (SentObject(r.sop_class_uid, r.sop_instance_uid, r.series_instance_uid) for r in results)
        replaced.append(Replaced(job.revision, header, tuple(objects)))
    return tuple(replaced)
