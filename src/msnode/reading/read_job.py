"""From the instances of a study, in the store or in a folder, to its result set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msnode import crash_points
from msnode.errors import AmbiguousSelection, InvalidTransition, NotReadable
from msnode.reading.result_set import RESULT_FILE, describe, read_result, sha256_of, write_result_set
from msnode.reading.revisions import former_reading, past_of, replaced_revisions, stored_study
from msnode.reading.summary import ReadingSummary
from msnode.record import jobs
from msnode.series.folder import instances_below
from msnode.series.volume import group_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from msnode.reading.outcome import Reading
    from msnode.reading.reader import Reader
    from msnode.record.arrivals import Arrivals
    from msnode.record.database import Database
    from msnode.record.job import Job
    from msnode.store import Store


def read_job(
    readers: Callable[[str | None, str | None], Reader],
    database: Database,
    arrivals: Arrivals,
    store: Store,
    job_id: int,
) -> ReadingSummary:
    """Read the study of a job and commit its result set, unless an earlier attempt did.

    Args:
        readers: bundle and preset that the job was routed to → what reads it; see `Readers`.
        database: the record.
        arrivals: what there is of the study.
        store: holds its bytes, and the result sets.
        job_id: a job that was started.

    Returns:
        The reading in short. Where there is nothing to deliver (passed over, unchanged) no set is committed.

    Raises:
        MsnodeError: see `Readers` and `Reader.read`; Rejected too, where not even a report can be made.
    """
    with database.read() as tx:
        job = jobs.find(tx, job_id)
    if job is None:
        raise InvalidTransition(f"there is no job {job_id}")
    key = f"job-{job.id}-{job.revision}"
    if not store.has_set(key):
        crash_points.reach("reading-began", job.study_instance_uid)
        reading = _read(readers(job.bundle, job.preset), database, arrivals, store, job)
        if not reading.outputs:
            return ReadingSummary.of(describe(reading, ()))
        with store.new_set(key) as folder:
            write_result_set(reading, folder)
            crash_points.reach("result-written", job.study_instance_uid)
        crash_points.reach("result-committed", job.study_instance_uid)
    folder = store.set_path(key)
    result = read_result(folder, job.result_sha256)
    return ReadingSummary.of(result, result_set=key, result_sha256=sha256_of(folder / RESULT_FILE))


def _read(reader: Reader, database: Database, arrivals: Arrivals, store: Store, job: Job) -> Reading:
    if job.started_at is None:
        raise InvalidTransition(f"job {job.id} was never started")
    with database.read() as tx:
        past = past_of(tx, job)
    study, removed = stored_study(arrivals.study_instances(job.study_instance_uid), store)
    if not study:
        raise NotReadable("; ".join(removed.values()) or "nothing is stored of this study")
    return reader.read(
        study,
        started_at=job.started_at,
        revision=job.revision,
        replaced_reports=past.reports,
        former=former_reading(past, store, removed),
        replaced=replaced_revisions(past, store),
        asked_for=bool(job.asked_for),
    )


def read_folder(path: Path, out: Path, open_reader: Callable[[], Reader]) -> dict[str, Any]:
    """Read the one study in the files below `path`; write its result set to `out`.

    Args:
        path: a folder, or one file.
        out: an existing folder.
        open_reader: gives what reads it; called once the files are known to hold one study.

    Returns:
        What `result.json` holds.

    Raises:
        NotReadable: see `instances_below`.
        AmbiguousSelection: files of several studies.
    """
    instances, left_out = instances_below(path)
    study = group_series(instances)
    studies = {s.study_instance_uid for s in study}
    if len(studies) > 1:
        raise AmbiguousSelection(f"{path} holds {len(studies)} studies; give the folder of one")
    newest = max(i.path.stat().st_mtime for i in instances)
    started_at = datetime.fromtimestamp(int(newest), UTC)
    reading = open_reader().read(study, started_at=started_at, asked_for=True, remarks=left_out)
    return write_result_set(reading, out)
