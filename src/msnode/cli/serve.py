"""`msnode serve`: runs the node."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from msnode import logs
from msnode.cli.output import ConfigOption
from msnode.dicom import decoders
from msnode.errors import ConfigurationError
from msnode.settings import load_settings


class Role(StrEnum):
    """The kinds of process that make up a node."""

    RECEIVER = "receiver"
    WORKER = "worker"
    SENDER = "sender"


def serve(
    config: ConfigOption = None,
    role: Annotated[
        Role | None,
        typer.Option(help="Run only this process, unsupervised.", show_default="all roles"),
    ] = None,
    instance: Annotated[
        int,
        typer.Option(
            help="With --role: number of this process within its role on this machine.",
            min=1,
            max=999,
        ),
    ] = 1,
) -> None:
    """Run the node: receive, read and deliver until stopped (SIGTERM or Ctrl-C).

    Without --role, this starts a receiver, `node.workers` workers and `node.senders` senders as separate
    processes and restarts any that dies. With --role, it runs one process of that role; any number of
    them, on any number of machines, share the work through one PostgreSQL database and one data_dir.
    Logs go to stderr.
    """
    decoders.keep_out()  # in these processes nothing is decoded; the children that do are started anew
    from msnode.wiring import node  # noqa: PLC0415 - it loads pydicom

    if role is None and instance != 1:
        raise ConfigurationError("--instance numbers one process: give --role too")
    settings = load_settings(config)
    logs.configure(json=settings.node.log_format == "json", level=settings.node.log_level)
    if role is None:
        node.run_all(settings, config)
    else:
        node.RUN[role.value](settings, instance)
