"""`msnode model list` and `show`: the available bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.table import Table

from msnode.cli.console import console
from msnode.cli.output import ConfigOption, JsonOption, print_json
from msnode.preprocess import recipes
from msnode.segment.bundle import find_bundle, list_bundles, load_bundle
from msnode.settings import load_settings
from msnode.wiring.model import bundle_folders


def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the available bundles: built-in ones and those in the configured folder."""
    rows = [
        {
            "name": manifest.name,
            "version": manifest.version,
            "recipe": manifest.recipe,
            "dice": (manifest.evaluation.get("mean") or {}).get("dice"),
            "path": str(path),
        }
        for path, manifest in list_bundles(_folders(config))
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "version", "recipe", "Dice on held-out patients", "path")
    for row in rows:
        dice = "-" if row["dice"] is None else f"{row['dice']:.3f}"
        table.add_row(row["name"], row["version"], row["recipe"], dice, row["path"])
    console.print(table)


def show(
    bundle: Annotated[
        str | None,
        typer.Argument(help="NAME, NAME@VERSION or a bundle folder. Default: the configured bundle."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle and show its model card, or its manifest with --json."""
    reference = bundle or load_settings(config).model.bundle
    loaded = load_bundle(find_bundle(reference, _folders(config)), recipes.names())
    if as_json:
        shown = loaded.manifest.model_dump(mode="json") | {
            "sha256": loaded.identity.sha256,
            "path": str(loaded.path),
        }
        print_json(shown)
        return
    console.print(Markdown((loaded.path / "model_card.md").read_text(encoding="utf-8")))
    typer.echo(f"sha256 {loaded.identity.sha256}\npath   {loaded.path}")


def _folders(config: Path | None) -> list[Path]:
    return bundle_folders(load_settings(config))
