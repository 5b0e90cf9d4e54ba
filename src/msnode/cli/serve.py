"""`msnode serve`: the node itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from msnode import logs
from msnode.cli.output import ConfigOption
from msnode.settings import load_settings
from msnode.wiring import node


class Role(StrEnum):
    """A process of the node."""

    RECEIVER = "receiver"
    WORKER = "worker"
    SENDER = "sender"


def serve(
    config: ConfigOption = None,
    role: Annotated[
        Role | None,
        typer.Option(help="Run this process alone, without supervision.", show_default="all of them"),
    ] = None,
    instance: Annotated[
        int,
        typer.Option(
            help="With --role: which of the processes of this role on this machine.", min=1, max=999
        ),
    ] = 1,
) -> None:
    """Run the node: receive, read and deliver until stopped (SIGTERM or Ctrl-C).

    Without --role, a receiver, `node.workers` workers and `node.senders` senders run as processes of
    their own and are restarted when one dies. With it, any number of them on any number of machines work
    together on one PostgreSQL database and one shared data_dir. Logs go to stderr.
    """
    settings = load_settings(config)
    logs.configure(json=settings.node.log_format == "json", level=settings.node.log_level)
    if role is None:
        node.run_all(settings, config)
    else:
        node.RUN[role.value](settings, instance)
