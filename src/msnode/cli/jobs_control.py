"""`msnode jobs retry`, `hurry` and `cancel`: how an administrator intervenes in a job."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from msnode.cli.console import console
from msnode.cli.output import ConfigOption, JobId, JsonOption, print_json
from msnode.errors import ConfigurationError
from msnode.settings import load_settings
from msnode.wiring.administering import administrator

if TYPE_CHECKING:
    from msnode.record.job import Job


def retry(
    job_id: Annotated[int | None, typer.Argument(help="Job number; leave out with --failed.", min=1)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Retry every failed job.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retry a job: read its study again, or send again what was not delivered.

    A study that waits because its association was interrupted is read with the instances received so far.
    """
    if failed == (job_id is not None):
        raise ConfigurationError("give either a job number or --failed")
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
    console.print(f"{len(tried)} jobs retried")


def hurry(job_id: JobId, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Raise a waiting job to priority stat, ahead of routine jobs."""
    with administrator(load_settings(config)) as admin:
        _say(admin.hurry(job_id), as_json=as_json)


def cancel(job_id: JobId, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Cancel a job and its pending deliveries; delivered results stay delivered."""
    with administrator(load_settings(config)) as admin:
        _say(admin.cancel(job_id), as_json=as_json)


def _say(job: Job, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(job))
    else:
        console.print(f"job {job.id} is {job.state}: {job.reason}", soft_wrap=True)
