"""Terminal output of commands: text and tables on stdout, progress on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from msnode.domain.text import printable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.text import Text


class SafeConsole(Console):
    """A console on which text is text: it holds no markup, and what a terminal would obey is escaped.

    Senders, peers and file names decide about much of what commands print.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """As its base does, which every string passes on its way to the screen, those in tables too."""
        return super().render_str(printable(text), **options)


console = SafeConsole()
errors = SafeConsole(stderr=True)


def progress() -> Progress:
    """A spinner with elapsed time on stderr; silent if stderr is not a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
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
