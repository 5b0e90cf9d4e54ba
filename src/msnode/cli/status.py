"""`msnode status`: the state of the node, for administrators and monitoring."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import typer
from rich.table import Table

from msnode.cli.console import console
from msnode.cli.output import ConfigOption, JsonOption, print_json
from msnode.record.database import Database
from msnode.record.overview import overview
from msnode.settings import load_settings
from msnode.store import quarantined


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the number of jobs in each state and the problems that need attention.

    Exit 0: no problems. Exit 1: there are problems, listed one per line, or the database does not answer.
    """
    settings = load_settings(config)
    with Database.open_existing(settings.database_url).read() as tx:
        found = overview(
            tx, now=datetime.now(UTC), alarm_after_s=settings.priority.alarm_after_s,
            set_aside=quarantined(settings.node.data_dir / "store"),
        )  # fmt: skip
    if as_json:
        print_json(asdict(found))
    else:
        table = Table("state", "jobs", box=None)
        for state, count in found.jobs.items():
            table.add_row(state, str(count))
        console.print(table)
        if found.oldest_waiting_s is not None:
            console.print(f"longest wait to be read: {found.oldest_waiting_s:.0f} s")
        for alarm in found.alarms:
            console.print(alarm, soft_wrap=True, style="bold")
    if found.alarms:
        raise typer.Exit(1)
