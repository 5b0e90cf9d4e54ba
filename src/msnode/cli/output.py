"""What commands share: options, JSON output and error messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from msnode.domain.text import printable

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file. Default: $MSNODE_CONFIG, else /etc/msnode/msnode.toml, else built-in.",
        show_default=False,
    ),
]
JobId = Annotated[int, typer.Argument(help="Job number, as shown by `msnode jobs list`.", min=1)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, in ASCII: a terminal obeys no part of it."""
    typer.echo(json.dumps(value, indent=2, default=str))


def fail(message: str, *, code: int) -> int:
    """Print an error as one line on stderr and return the exit code."""
    typer.echo(printable(f"msnode: {' '.join(message.split())}"), err=True)
    return code
