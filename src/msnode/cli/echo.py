"""`msnode echo`: whether a destination answers and accepts the objects configured for it."""

from __future__ import annotations

from typing import Annotated

import typer

from msnode.cli.console import console, spinner
from msnode.cli.output import ConfigOption, JsonOption, fail, print_json
from msnode.deliver.dicom import DicomDestination
from msnode.errors import ConfigurationError
from msnode.settings import load_settings
from msnode.wiring.destinations import destinations


def echo(
    destination: Annotated[str, typer.Argument(help="Name of a destination of type dicom.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test a DICOM destination: C-ECHO, accepted result objects, storage confirmation.

    Exit 1: the destination does not answer, or does not accept an object that it is configured to receive.
    """
    settings = load_settings(config)
    found = destinations(settings).get(destination)
    if not isinstance(found, DicomDestination):
        names = [d.name for d in settings.destinations if d.type == "dicom"]
        raise ConfigurationError(
            f"no DICOM destination {destination!r}; configured: {', '.join(names) or 'none'}"
        )
    with spinner(f"contacting {destination}"):
        result = found.echo()
    refusals = {str(context): reason for context, reason in result.refusals.items()}
    well = result.status == 0 and not refusals
    if as_json:
        print_json(
            {
                "destination": destination,
                "address": str(result.address),
                "status": result.status,
                "refusals": refusals,
                "confirms_by": result.confirms_by,
                "advice": result.advice,
                "elapsed_s": round(result.elapsed_s, 4),
            }
        )
    else:
        console.print(f"{result.address}: answered in {result.elapsed_s * 1000:.0f} ms")
        console.print(f"storage confirmation: {result.confirms_by or 'not offered'}")
        if result.advice:
            console.print(result.advice, soft_wrap=True)
    if not well:
        problems = [f"{context}: {reason}" for context, reason in refusals.items()]
        if result.status != 0:
            problems.insert(0, f"C-ECHO status {result.status}")
        raise typer.Exit(fail("; ".join(problems), code=1))
