"""`msnode config`: check a configuration file, show what is in force."""

from __future__ import annotations

import re

import typer

from msnode.cli.output import ConfigOption, JsonOption, console, print_json
from msnode.settings import load_settings

app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True)


@app.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say whether the configuration is right; exit 2 and the wrong key if it is not."""
    settings = load_settings(config)
    if as_json:
        print_json({"valid": True, "destinations": [d.name for d in settings.destinations]})
    else:
        names = ", ".join(d.name for d in settings.destinations) or "none: results stay in data_dir"
        console.print(f"configuration is valid; destinations: {names}", highlight=False, soft_wrap=True)


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every setting in force: file, environment and defaults together; a database password is masked."""
    values = load_settings(config).model_dump(mode="json")
    values["node"]["database_url"] = _without_password(values["node"]["database_url"])
    if as_json:
        print_json(values)
        return
    for section, content in values.items():
        console.print(f"[{section}]", markup=False, style="bold")
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            console.print(f"  {key} = {value}", markup=False, highlight=False, soft_wrap=True)


def _without_password(url: str | None) -> str | None:
    return url and re.sub(r"(?<=//)([^:@/]*):[^@]*@", r"\1:***@", url)
