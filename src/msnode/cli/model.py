"""`msnode model`: train a bundle, list and show the bundles there are."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from msnode.preprocess import recipes
from msnode.segment.bundle import builtin_folder, find_bundle, list_bundles, load_bundle
from msnode.settings import load_settings

if TYPE_CHECKING:
    from msnode.train.session import Progress as Step

app = typer.Typer(help="Train, list and inspect model bundles.", no_args_is_help=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file; default as for serve.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def train(
    recipe: Annotated[Path, typer.Option(help="Training recipe, such as config/recipes/nnunet2d.toml.")],
    data: Annotated[
        Path, typer.Option(help="Folder of cases: case*/FLAIR.nii.gz with case*/lesion_mask.nii.gz.")
    ],
    out: Annotated[Path, typer.Option(help="Folder that the bundle is written to.")],
    fold: Annotated[int, typer.Option(help="Which fold of patients to hold out, from 0.")] = 0,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints; a training found there is resumed. Default: OUT/work."),
    ] = None,
) -> None:
    """Train a 2D nnU-Net and write a bundle, with figures on the patients it did not see."""
    from msnode.train.recipe import load_recipe  # noqa: PLC0415 - only training needs it
    from msnode.train.session import Plan, train_bundle  # noqa: PLC0415 - loads the data set's readers

    plan = Plan(
        recipe=load_recipe(recipe),
        data=data,
        out=out,
        work=(work or out / "work").resolve(),
        fold=fold,
        command=shlex.join(["msnode", *sys.argv[1:]]),
    )
    console = Console(file=sys.stderr)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("starting", total=None, figures="")

        def report(step: Step) -> None:
            if step.epoch is None:
                bar.update(task, description=step.stage, figures=step.detail)
                return
            minutes = (step.seconds_left or 0) / 60
            figures = (
                f"loss {step.loss:.3f}  pseudo-Dice {step.pseudo_dice:.3f}  about {minutes:.0f} min left"
            )
            bar.update(
                task,
                description=f"epoch {step.epoch} of {step.epochs}",
                completed=step.epoch,
                total=step.epochs,
                figures=figures,
            )

        bundle = train_bundle(plan, report)
    typer.echo(str(bundle))


@app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the bundles at hand: the built-in ones and those in the configured folder."""
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
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "version", "recipe", "Dice on held-out patients", "path")
    for row in rows:
        dice = "-" if row["dice"] is None else f"{row['dice']:.3f}"
        table.add_row(row["name"], row["version"], row["recipe"], dice, row["path"])
    Console().print(table)


@app.command()
def show(
    bundle: Annotated[
        str | None,
        typer.Argument(
            help="name, name@version or the path of a bundle's folder; default: the configured one."
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle and show its model card (its manifest with --json)."""
    reference = bundle or load_settings(config).model.bundle
    loaded = load_bundle(find_bundle(reference, _folders(config)), recipes.names())
    if as_json:
        shown = loaded.manifest.model_dump(mode="json") | {
            "sha256": loaded.identity.sha256,
            "path": str(loaded.path),
        }
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    Console().print(Markdown((loaded.path / "model_card.md").read_text(encoding="utf-8")))
    typer.echo(f"sha256 {loaded.identity.sha256}\npath   {loaded.path}")


def _folders(config: Path | None) -> list[Path]:
    configured = load_settings(config).model.bundles_dir
    return [builtin_folder()] if configured is None else [builtin_folder(), configured]
