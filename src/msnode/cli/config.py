"""`msnode config`: check a configuration file, show what is in force."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msnode.cli.output import ConfigOption, JsonOption, console, print_json
from msnode.errors import ConfigurationError
from msnode.settings import load_settings

if TYPE_CHECKING:
    from msnode.services.explain_routing import Explanation

app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True)


@app.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say whether the configuration and its routing rules are right; exit 2 and what is wrong if not."""
    from msnode.wiring.routing import check_routing  # noqa: PLC0415 - bundles are not needed for --help

    settings = load_settings(config)
    rules = [rule.name for rule in check_routing(settings)]
    if as_json:
        names = [d.name for d in settings.destinations]
        print_json({"valid": True, "destinations": names, "routing": settings.node.routing, "rules": rules})
        return
    listed = ", ".join(d.name for d in settings.destinations) or "none: results stay in data_dir"
    _say(f"configuration is valid; destinations: {listed}")
    _say(f"routing: {settings.node.routing or 'no file'}; rules: {', '.join(rules) or 'none'}")


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


@app.command("test-route")
def explain_route(
    path: Annotated[
        Path, typer.Argument(help="Folder of DICOM files, of one study or several.", exists=True)
    ],
    calling_ae: Annotated[
        list[str] | None, typer.Option("--calling-ae", help="AE title that sends it; may be repeated.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help='When the study is complete, "2026-11-21T23:10", local time.', show_default="now"),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would become of each study in PATH, and why: which rule, which series, what, and for whom.

    Only headers are looked at: nothing is sent or recorded, and no patient is named.
    """
    settings = load_settings(config)
    moment = _moment(at)
    from msnode.wiring.routing import explain_studies  # noqa: PLC0415 - headers are not needed for --help

    explained = explain_studies(path, settings, frozenset(calling_ae or ()), moment)
    if as_json:
        print_json([asdict(each) for each in explained])
        return
    sender = ", ".join(calling_ae or ()) or "an AE title that is not known"
    _say(f"sent by {sender}, complete at {moment:%Y-%m-%d %H:%M} ({moment:%A})")
    for each in explained:
        _print_explanation(each)


def _moment(text: str | None) -> datetime:
    try:
        found = datetime.fromisoformat(text) if text else datetime.now(UTC)
    except ValueError:
        raise ConfigurationError(f"--at {text}: a moment such as 2026-11-21T23:10 is needed") from None
    return found.astimezone()


def _print_explanation(each: Explanation) -> None:
    console.print(f"study {each.study_instance_uid}", style="bold", highlight=False, soft_wrap=True)
    for missed in each.missed:
        _say(f"  rule {missed.rule!r} does not match: {missed.why}")
    _say(f"  rule {each.rule!r} matches" if each.rule else "  no rule matches: as the configuration says")
    _say(f"  {each.outcome}")
    if each.series is not None:
        _say(f"  series {each.series.series_instance_uid}: would be read: {each.series.reason}")
    for other in each.passed_over:
        _say(f"  series {other.series_instance_uid}: not read: {other.reason}")
    if each.reads:
        _say(f"  bundle {each.bundle}, preset {each.preset}, priority {each.priority}")
        _say(f"  destinations: {', '.join(each.destinations) or 'none: results stay in data_dir'}")


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _without_password(url: str | None) -> str | None:
    return url and re.sub(r"(?<=//)([^:@/]*):[^@]*@", r"\1:***@", url)
