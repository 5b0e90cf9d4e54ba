"""`msnode demo`: everything once on loopback, with a made-up patient or a study of your own."""

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
            help="Folder with the DICOM files of one study of your own; without it a patient is made up.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for picture, result objects and logs.")] = Path(
        "demo-output"
    ),
    seed: Annotated[int, typer.Option(help="Which patient is made up.", min=0)] = _SEED,
) -> None:
    """Run the whole loop once on this machine and show the result.

    Site configuration and database are not touched. Exit 1: less than 80 % of the planted lesions over
    5 mm were found, or the study was not read.
    """
    signal.signal(signal.SIGTERM, _end)  # as Ctrl-C: what was started is ended first
    with progress() as bar:
        task = bar.add_task("starting", total=None)

        def announce(step: str) -> None:
            bar.update(task, description=step)
            if bar.disable:  # no terminal: a log shows each step as a line
                errors.print(step, highlight=False)

        outcome = run_demo(study, out, seed, announce)
    console.print(report.time_line(outcome))
    console.print(report.selection(outcome))
    job = outcome.job["job"]
    if job["state"] != "completed":
        raise typer.Exit(fail(f"the job ended {job['state']}: {job['reason']}", code=1))
    if outcome.comparison is None:
        console.print(report.found_alone(outcome.found))
    else:
        console.print(report.planted_and_found(outcome.comparison))
        console.print(report.verdict(outcome.comparison), highlight=False)
    _tell_where(outcome)
    if outcome.comparison is not None and outcome.comparison.share_found < ENOUGH:
        raise typer.Exit(1)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)


def _tell_where(outcome: Outcome) -> None:
    if outcome.objects:
        console.print(
            f"{len(outcome.objects)} objects came back from {outcome.pacs}: {outcome.objects[0].parent}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if outcome.picture:
        console.print(f"overlay: {outcome.picture}", highlight=False, soft_wrap=True)
