"""Lists commands without importing them, so that `msnode --help` is fast.

The help reads the table `COMMANDS` only. The module of a command is imported when that command runs or shows
its own help, so command modules can import everything they need at their top.
"""

from __future__ import annotations

from importlib import import_module
from inspect import getdoc
from typing import Any, NamedTuple

import typer.main
from typer.core import TyperCommand, TyperGroup

from msnode.errors import ConfigurationError

GROUPS = {
    "jobs": "List, show, retry, hurry and cancel jobs.",
    "config": "Check and show the configuration.",
    "study": "Segment a study without a running node.",
    "model": "List, show, evaluate, compare, train and export model bundles.",
}


class Entry(NamedTuple):
    """One command of the table.

    Attributes:
        module: its module in `msnode.cli`.
        function: the function that Typer turns into the command.
        help: the first paragraph of that function's docstring.
    """

    module: str
    function: str
    help: str


COMMANDS = {
    "serve": Entry(
        "serve", "serve", "Run the node: receive, read and deliver until stopped (SIGTERM or Ctrl-C)."
    ),
    "status": Entry(
        "status", "status", "Show the number of jobs in each state and the problems that need attention."
    ),
    "jobs list": Entry(
        "jobs_list", "list_jobs", "List jobs, newest first; a job is one reading of one study."
    ),
    "jobs show": Entry(
        "jobs_show", "show", "Show a job: series, results, deliveries and every change of state."
    ),
    "jobs retry": Entry(
        "jobs_control", "retry", "Retry a job: read its study again, or send again what was not delivered."
    ),
    "jobs hurry": Entry(
        "jobs_control", "hurry", "Raise a waiting job to priority stat, ahead of routine jobs."
    ),
    "jobs cancel": Entry(
        "jobs_control", "cancel", "Cancel a job and its pending deliveries; delivered results stay delivered."
    ),
    "echo": Entry(
        "echo", "echo", "Test a DICOM destination: C-ECHO, accepted result objects, storage confirmation."
    ),
    "config check": Entry(
        "config_check", "check", "Check the configuration, its routing rules, model and device."
    ),
    "config show": Entry(
        "config", "show", "Show every setting in force, whether from file, environment or default."
    ),
    "config test-route": Entry(
        "config_check",
        "explain_route",
        "Show which routing rule applies to each study, which series is chosen, and why.",
    ),
    "study segment": Entry(
        "study", "segment", "Segment the lesions of one study and write the result objects to a folder."
    ),
    "model list": Entry(
        "model", "list_", "List the available bundles: built-in ones and those in the configured folder."
    ),
    "model show": Entry(
        "model", "show", "Verify a bundle and show its model card, or its manifest with --json."
    ),
    "model evaluate": Entry("model_evaluate", "evaluate", "Score a bundle on cases with expert masks."),
    "model compare": Entry("model_evaluate", "compare", "Compare two bundles on the same cases."),
    "model train": Entry(
        "model_train", "train", "Train a 2D nnU-Net with cross-validation and write a bundle."
    ),
    "model export": Entry("model_export", "export", "Export a bundle's networks as an nnU-Net model folder."),
    "demo": Entry("demo", "demo", "Run the whole loop once on this machine and show the result."),
}
"""All commands in help order; where a name has two words, the first is the group."""


_EXTRA_OF = {"torch": "gpu", "dynamic_network_architectures": "gpu", "nilearn": "demo"} | dict.fromkeys(
    ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "nibabel", "matplotlib"), "train"
)
"""Optional package → the extra of msnode that installs it."""


def _remedy(error: ModuleNotFoundError) -> str:
    extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
    return (
        f"pip install 'msnode[{extra}]'" if extra else "the installation is incomplete, install msnode again"
    )


class LazyCommand(TyperCommand):
    """A placeholder for a command; it imports the command when arguments are parsed."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name=name, help=entry.help)
        self._entry = entry

    def load(self) -> Any:
        """Import the command.

        Raises:
            ConfigurationError: an optional package that the command needs is not installed.
        """
        try:
            module = import_module(f"msnode.cli.{self._entry.module}")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("msnode"):
                raise
            raise ConfigurationError(
                f"this command needs the Python package {error.name}: {_remedy(error)}"
            ) from error
        function = getattr(module, self._entry.function)
        paragraphs = (getdoc(function) or "").split("\n\n")
        single = typer.Typer(add_completion=False)
        # one line per paragraph: the help is wrapped to the width of the terminal
        single.command(self.name, help="\n\n".join(" ".join(p.split()) for p in paragraphs))(function)
        return typer.main.get_command(single)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments with the imported command, which then runs."""
        return self.load().make_context(info_name, args, parent, **extra)


class LazyGroup(TyperGroup):
    """The root of the command line, built from the table."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        groups: dict[str, TyperGroup] = {"": self}
        for path, entry in COMMANDS.items():
            group, _, name = path.rpartition(" ")
            if group not in groups:
                groups[group] = TyperGroup(name=group, help=GROUPS[group], no_args_is_help=True)
                self.add_command(groups[group])
            groups[group].add_command(LazyCommand(name, entry))
