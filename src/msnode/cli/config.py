"""`msnode config show`: the settings in force."""

from __future__ import annotations

import re

from msnode.cli.console import console
from msnode.cli.output import ConfigOption, JsonOption, print_json
from msnode.settings import load_settings


def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every setting in force, whether from file, environment or default.

    A database password is masked.
    """
    values = load_settings(config).model_dump(mode="json")
    values["node"]["database_url"] = _without_password(values["node"]["database_url"])
    if as_json:
        print_json(values)
        return
    for section, content in values.items():
        console.print(f"[{section}]", style="bold")
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            console.print(f"  {key} = {value}", soft_wrap=True)


def _without_password(url: str | None) -> str | None:
    return url and re.sub(r"(?<=//)([^:@/]*):[^@]*@", r"\1:***@", url)
