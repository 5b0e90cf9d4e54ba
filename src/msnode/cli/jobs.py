"""`msnode jobs`: what the node has done and is doing, and what an administrator may do about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from msnode.cli.output import ConfigOption, JsonOption, console, print_json
from msnode.errors import ConfigurationError, InvalidTransition
from msnode.record import administration, jobs
from msnode.record.job import JobState, Priority
from msnode.settings import load_settings
from msnode.wiring.existing import existing_record

if TYPE_CHECKING:
    from msnode.record.administration import JobDetails
    from msnode.record.job import Job

app = typer.Typer(help="List, show, hurry, retry and cancel jobs.", no_args_is_help=True)

JobId = Annotated[int, typer.Argument(help="Number of the job, as `msnode jobs list` shows it.", min=1)]


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.", min=1)] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest jobs: one job is one reading of one study."""
    with existing_record(load_settings(config)).read() as tx:
        found = jobs.recent(tx, state=state, limit=limit)
    if as_json:
        print_json([asdict(job) for job in found])
        return
    table = Table("job", "rev", "state", "since (UTC)", "lesions", "ml", "study", "why", box=None)
    for job in found:
        table.add_row(*map(Text, _row(job)))
    console.print(table)


@app.command()
def show(job_id: JobId, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one job: series, what was passed over and why, results, deliveries, every change of state."""
    with existing_record(load_settings(config)).read() as tx:
        details = administration.show(tx, job_id)
    if details is None:
        raise InvalidTransition(f"there is no job {job_id}")
    if as_json:
        print_json(asdict(details))
        return
    _print_details(details)


@app.command()
def retry(
    job_id: Annotated[int | None, typer.Argument(help="Number of the job.", min=1)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every job that failed.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a job again: read a failed or held study, or send what did not arrive."""
    from msnode.wiring.administering import administrator  # noqa: PLC0415 - the engine takes a second to import

    if failed == (job_id is not None):
        raise ConfigurationError("give the number of a job, or --failed for every job that failed")
    settings = load_settings(config)
    with administrator(settings) as admin:
        if job_id is not None:
            _say(admin.retry(job_id), as_json=as_json)
            return
        tried = admin.retry_failed()
    if as_json:
        print_json([asdict(job) for job in tried])
        return
    for job in tried:
        _say(job, as_json=False)
    console.print(f"{len(tried)} jobs tried again", highlight=False)


@app.command()
def hurry(job_id: JobId, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Have a waiting job read before the others."""
    from msnode.wiring.administering import administrator  # noqa: PLC0415 - as above

    with administrator(load_settings(config)) as admin:
        _say(admin.hurry(job_id), as_json=as_json)


@app.command()
def cancel(job_id: JobId, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """End a job and what it has still to deliver; what was delivered stays delivered."""
    from msnode.wiring.administering import administrator  # noqa: PLC0415 - as above

    with administrator(load_settings(config)) as admin:
        _say(admin.cancel(job_id), as_json=as_json)


def _say(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(job))
    else:
        console.print(f"job {job.id} is {job.state}: {job.reason}", highlight=False, soft_wrap=True)


def _row(job: Job) -> tuple[str, ...]:
    volume = "" if job.lesion_volume_mm3 is None else f"{job.lesion_volume_mm3 / 1000:.2f}"
    count = "" if job.lesion_count is None else str(job.lesion_count)
    since = f"{job.state_since:%Y-%m-%d %H:%M:%S}"
    study = job.study_instance_uid
    return str(job.id), str(job.revision), job.state, since, count, volume, study, job.reason


def _print_details(details: JobDetails) -> None:
    job = details.job
    _lines(
        f"job {job.id}, revision {job.revision}: {job.state}",
        {
            "why": job.reason,
            "study": job.study_instance_uid,
            "series": job.series_instance_uid,
            "lesions": job.lesion_count,
            "volume mm3": job.lesion_volume_mm3,
            "model": f"{job.model_name} {job.model_version} {job.model_sha256}" if job.model_name else None,
            "runtime": job.runtime,
            "seconds": ", ".join(f"{k} {v:.2f}" for k, v in (job.timings_s or {}).items()) or None,
            "rule": job.rule,
            "bundle": job.bundle,
            "preset": job.preset,
            "destinations": ", ".join(job.destinations) if job.destinations else None,
            "priority": "stat" if job.priority == Priority.STAT else None,
            "not before": f"{job.not_before:%Y-%m-%d %H:%M:%S} UTC" if job.not_before else None,
            "cut off": f"{job.interruptions} times" if job.interruptions else None,
            "age of state": f"{(datetime.now(UTC) - job.state_since).total_seconds():.0f} s",
        },
    )
    series = Table("series", "modality", "instances", "passed over because", box=None)
    reasons = {p.series_instance_uid: p.reason for p in details.passed_over}
    for each in details.series:
        series.add_row(
            each.series_instance_uid, each.modality, str(each.instance_count),
            Text(reasons.get(each.series_instance_uid, "")),
        )  # fmt: skip
    console.print(series)
    console.print(_deliveries(details))
    steps = Table("at (UTC)", "state", "why", box=None)
    for step in details.transitions:
        steps.add_row(f"{step.at:%Y-%m-%d %H:%M:%S.%f}"[:-3], step.state, Text(step.reason))
    console.print(steps)


def _deliveries(details: JobDetails) -> Table:
    """One line for all objects of a kind that stand alike at a destination: an overlay is many.

    Notes are `Text`: what a peer said may hold brackets, which a table takes for markup.
    """
    table = Table("destination", "objects", "state", "tries", "status", "next try (UTC)", "note", box=None)
    alike = Counter(
        (
            owed.destination, owed.result.kind, owed.state.value, str(owed.attempts),
            "" if owed.status is None else f"0x{owed.status:04X}",
            f"{owed.next_try_at:%H:%M:%S}" if owed.next_try_at else "", owed.note,
        )
        for owed in details.deliveries
    )  # fmt: skip
    for (destination, kind, *rest), count in alike.items():
        table.add_row(destination, f"{count} {kind}", *map(Text, rest))
    return table


def _lines(title: str, values: dict[str, Any]) -> None:
    console.print(title, style="bold", highlight=False)
    for name, value in values.items():
        if value is not None:
            console.print(f"  {name}: {value}", markup=False, highlight=False, soft_wrap=True)
