"""What every command has in common: options, JSON for programs, one line for an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file; else $MSNODE_CONFIG, /etc/msnode/msnode.toml, built-in defaults.",
        show_default=False,
    ),
]
JobId = Annotated[int, typer.Argument(help="Number of the job, as `msnode jobs list` shows it.", min=1)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def fail(message: str, *, code: int) -> int:
    """One clear line on stderr; returns the exit code."""
    typer.echo(f"msnode: {' '.join(message.split())}", err=True)
    return code
