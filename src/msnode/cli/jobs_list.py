"""`msnode jobs list`: the newest jobs, one line each."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from msnode.cli.console import console
from msnode.cli.output import ConfigOption, JsonOption, print_json
from msnode.record import jobs
from msnode.record.database import Database
from msnode.record.job import JobState
from msnode.settings import load_settings

if TYPE_CHECKING:
    from msnode.record.job import Job


def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="List only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of jobs to list, newest first.", min=1)] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first; a job is one reading of one study."""
    with Database.open_existing(load_settings(config).database_url).read() as tx:
        found = jobs.recent(tx, state=state, limit=limit)
    if as_json:
        print_json([asdict(job) for job in found])
        return
    table = Table("job", "rev", "state", "since (UTC)", "lesions", "volume (ml)", "study", "reason", box=None)
    for job in found:
        table.add_row(*_row(job))
    console.print(table)


def _row(job: Job) -> tuple[str, ...]:
    volume = "" if job.lesion_volume_mm3 is None else f"{job.lesion_volume_mm3 / 1000:.2f}"
    count = "" if job.lesion_count is None else str(job.lesion_count)
    since = f"{job.state_since:%Y-%m-%d %H:%M:%S}"
    study = job.study_instance_uid
    return str(job.id), str(job.revision), job.state, since, count, volume, study, job.reason
