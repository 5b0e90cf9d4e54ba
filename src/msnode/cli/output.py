"""What commands print: JSON for programs, tables for people, one line for an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file; else $MSNODE_CONFIG, /etc/msnode/msnode.toml, built-in defaults.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

console = Console()
errors = Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def fail(message: str, *, code: int) -> int:
    """One clear line on stderr; returns the exit code."""
    typer.echo(f"msnode: {' '.join(message.split())}", err=True)
    return code


def progress() -> Progress:
    """A spinner with elapsed time on stderr; silent where stderr is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def spinner(description: str) -> AbstractContextManager[Any]:
    """Show that something runs, for anything that may last over 2 s."""
    bar = progress()
    bar.add_task(description, total=None)
    return bar
