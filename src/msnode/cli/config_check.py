"""`msnode config check` and `test-route`: validates the configuration and explains its routing rules."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msnode.cli.console import console
from msnode.cli.output import ConfigOption, JsonOption, print_json
from msnode.errors import ConfigurationError
from msnode.receive.accepted import sop_class_uids
from msnode.services.explain_routing import explain_folder
from msnode.settings import load_settings
from msnode.wiring.model import check_model
from msnode.wiring.routing import check_routing, routing_defaults, selection_rules

if TYPE_CHECKING:
    from msnode.services.explain_routing import Explanation

_NO_DESTINATIONS = "none (results stay in data_dir)"


def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check the configuration, its routing rules, model and device.

    Exit 2: the configuration is not valid; stderr names every error.
    """
    settings = load_settings(config)
    rules = [rule.name for rule in check_routing(settings)]
    check_model(settings)
    sop_class_uids(settings.receive.also_accept)
    if as_json:
        names = [d.name for d in settings.destinations]
        print_json({"valid": True, "destinations": names, "routing": settings.node.routing, "rules": rules})
        return
    listed = ", ".join(d.name for d in settings.destinations) or _NO_DESTINATIONS
    _say(f"configuration is valid; destinations: {listed}")
    _say(f"routing: {settings.node.routing or 'no file'}; rules: {', '.join(rules) or 'none'}")


def explain_route(
    path: Annotated[
        Path, typer.Argument(help="Folder with the DICOM files of one or more studies.", exists=True)
    ],
    calling_ae: Annotated[
        list[str] | None, typer.Option("--calling-ae", help="Calling AE title of the sender; repeatable.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="Local time of completion, such as 2026-11-21T23:10.", show_default="now"),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which routing rule applies to each study, which series is chosen, and why.

    Only headers are read. Nothing is sent or recorded, and the output names no patient.
    """
    settings = load_settings(config)
    moment = _moment(at)
    explained = explain_folder(
        path, check_routing(settings), selection_rules(settings), routing_defaults(settings),
        calling_aes=frozenset(calling_ae or ()), at=moment,
    )  # fmt: skip
    if as_json:
        print_json([asdict(each) for each in explained])
        return
    sender = ", ".join(calling_ae or ()) or "an unknown AE title"
    _say(f"sent by {sender}, complete at {moment:%Y-%m-%d %H:%M} ({moment:%A})")
    for each in explained:
        _print_explanation(each)


def _moment(text: str | None) -> datetime:
    try:
        found = datetime.fromisoformat(text) if text else datetime.now(UTC)
    except ValueError:
        raise ConfigurationError(f"--at {text}: give a local time such as 2026-11-21T23:10") from None
    return found.astimezone()


def _print_explanation(each: Explanation) -> None:
    console.print(f"study {each.study_instance_uid}", style="bold", soft_wrap=True)
    for missed in each.missed:
        _say(f"  rule {missed.rule!r} does not match: {missed.why}")
    _say(f"  rule {each.rule!r} matches" if each.rule else "  no rule matches: msnode.toml applies")
    _say(f"  {each.outcome}")
    if each.series is not None:
        _say(f"  series {each.series.series_instance_uid}: chosen: {each.series.reason}")
    for other in each.passed_over:
        _say(f"  series {other.series_instance_uid}: not chosen: {other.reason}")
    for remark in each.remarks:
        _say(f"  remark: {remark}")
    if each.reads:
        _say(f"  bundle {each.bundle}, preset {each.preset}, priority {each.priority}")
        _say(f"  destinations: {', '.join(each.destinations) or _NO_DESTINATIONS}")


def _say(line: str) -> None:
    console.print(line, soft_wrap=True)
