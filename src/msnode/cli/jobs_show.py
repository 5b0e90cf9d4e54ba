"""`msnode jobs show`: everything recorded about one job."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table

from msnode.cli.console import console
from msnode.cli.output import ConfigOption, JobId, JsonOption, print_json
from msnode.errors import InvalidTransition
from msnode.record import administration
from msnode.record.database import Database
from msnode.record.job import Priority
from msnode.settings import load_settings

if TYPE_CHECKING:
    from msnode.record.administration import JobDetails


def show(job_id: JobId, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show a job: series, results, deliveries and every change of state."""
    with Database.open_existing(load_settings(config).database_url).read() as tx:
        details = administration.show(tx, job_id)
    if details is None:
        raise InvalidTransition(f"there is no job {job_id}")
    if as_json:
        print_json(asdict(details))
        return
    _print_details(details)


def _print_details(details: JobDetails) -> None:
    job = details.job
    _lines(
        f"job {job.id}, revision {job.revision}: {job.state}",
        {
            "reason": job.reason,
            "study": job.study_instance_uid,
            "series": job.series_instance_uid,
            "lesions": job.lesion_count,
            "lesion volume (mm3)": job.lesion_volume_mm3,
            "model": f"{job.model_name} {job.model_version} {job.model_sha256}" if job.model_name else None,
            "runtime": job.runtime,
            "timings (s)": ", ".join(f"{k} {v:.2f}" for k, v in (job.timings_s or {}).items()) or None,
            "rule": job.rule,
            "bundle": job.bundle,
            "preset": job.preset,
            "destinations": ", ".join(job.destinations) if job.destinations else None,
            "priority": "stat" if job.priority == Priority.STAT else None,
            "next attempt not before": f"{job.not_before:%Y-%m-%d %H:%M:%S} UTC" if job.not_before else None,
            "interrupted": f"{job.interruptions} times" if job.interruptions else None,
            "in this state for": f"{(datetime.now(UTC) - job.state_since).total_seconds():.0f} s",
        },
    )
    series = Table("series", "modality", "instances", "not chosen because", box=None)
    reasons = {p.series_instance_uid: p.reason for p in details.passed_over}
    for each in details.series:
        series.add_row(
            each.series_instance_uid, each.modality, str(each.instance_count),
            reasons.get(each.series_instance_uid, ""),
        )  # fmt: skip
    console.print(series)
    console.print(_deliveries(details))
    steps = Table("at (UTC)", "state", "reason", box=None)
    for step in details.transitions:
        steps.add_row(f"{step.at:%Y-%m-%d %H:%M:%S.%f}"[:-3], step.state, step.reason)
    console.print(steps)


def _deliveries(details: JobDetails) -> Table:
    """One row for all objects of one kind in the same state at a destination: an overlay has many images."""
    table = Table(
        "destination", "objects", "state", "attempts", "status", "next attempt (UTC)", "note", box=None
    )
    alike = Counter(
        (
            owed.destination, owed.result.kind, owed.state.value, str(owed.attempts),
            "" if owed.status is None else f"0x{owed.status:04X}",
            f"{owed.next_try_at:%H:%M:%S}" if owed.next_try_at else "", owed.note,
        )
        for owed in details.deliveries
    )  # fmt: skip
    for (destination, kind, *rest), count in alike.items():
        table.add_row(destination, f"{count} {kind}", *rest)
    return table


def _lines(title: str, values: dict[str, Any]) -> None:
    console.print(title, style="bold")
    for name, value in values.items():
        if value is not None:
            console.print(f"  {name}: {value}", soft_wrap=True)
