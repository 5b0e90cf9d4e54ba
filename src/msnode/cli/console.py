"""Terminal output of commands: text and tables on stdout, progress on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

console = Console()
errors = Console(stderr=True)


def progress() -> Progress:
    """A spinner with elapsed time on stderr; silent if stderr is not a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def spinner(description: str) -> AbstractContextManager[Any]:
    """Show that work is in progress; for anything that may take longer than 2 s."""
    bar = progress()
    bar.add_task(description, total=None)
    return bar
