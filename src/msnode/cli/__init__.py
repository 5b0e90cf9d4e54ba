"""The command line, one module per group of commands. Exit codes: 0 done, 1 refused, 2 misuse."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import msnode
from msnode.cli.lazy import LazyGroup
from msnode.cli.output import fail
from msnode.errors import ConfigurationError, MsnodeError
from msnode.process import forbid_core_dumps

app = typer.Typer(
    name="msnode",
    cls=LazyGroup,
    help="DICOM node: segments multiple sclerosis lesions in FLAIR and returns SEG, SR and images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"msnode {msnode.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Entry point: reports every expected error as one line on stderr and an exit code."""
    forbid_core_dumps()
    try:
        app()
    except ConfigurationError as error:
        sys.exit(fail(str(error), code=2))
    except MsnodeError as error:
        sys.exit(fail(str(error), code=1))
