"""`msnode demo`: one run of the whole loop on this machine, with a simulated patient or your own study."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msnode.cli.console import console, errors, progress
from msnode.cli.output import fail
from msnode.demo import report
from msnode.demo.found import ENOUGH
from msnode.demo.run import run_demo

if TYPE_CHECKING:
    from types import FrameType

    from msnode.demo.run import Outcome

_SEED = 1


def demo(
    study: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the DICOM files of one study. Default: a simulated patient.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for picture, result objects and logs.")] = Path(
        "demo-output"
    ),
    seed: Annotated[int, typer.Option(help="Random seed of the simulated patient.", min=0)] = _SEED,
) -> None:
    """Run the whole loop once on this machine and show the result.

    Starts a PACS and a node on loopback, sends a study and shows the results that come back. The site's
    configuration and database are not touched. Exit 1: the study was not read, or fewer than 80 % of the
    simulated lesions larger than 5 mm were found.
    """
    signal.signal(signal.SIGTERM, _end)  # like Ctrl-C: started processes are stopped first
    with progress() as bar:
        task = bar.add_task("starting", total=None)

        def announce(step: str) -> None:
            bar.update(task, description=step)
            if bar.disable:  # not a terminal: print each step as a line
                errors.print(step)

        outcome = run_demo(study, out, seed, announce)
    console.print(report.time_line(outcome))
    console.print(report.selection(outcome))
    job = outcome.job["job"]
    if job["state"] != "completed":
        raise typer.Exit(fail(f"the job is {job['state']}: {job['reason']}", code=1))
    if outcome.comparison is None:
        console.print(report.found_alone(outcome.found))
    else:
        console.print(report.planted_and_found(outcome.comparison))
        console.print(report.verdict(outcome.comparison))
    _print_locations(outcome)
    if outcome.comparison is not None and outcome.comparison.share_found < ENOUGH:
        raise typer.Exit(1)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)


def _print_locations(outcome: Outcome) -> None:
    if outcome.objects:
        console.print(
            f"{len(outcome.objects)} objects retrieved from {outcome.pacs}: {outcome.objects[0].parent}",
            soft_wrap=True,
        )  # fmt: skip
    if outcome.picture:
        console.print(f"overlay: {outcome.picture}", soft_wrap=True)
