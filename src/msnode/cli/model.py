"""`msnode model`: train, export, list and show bundles; evaluation has a module of its own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from msnode.cli import model_evaluate
from msnode.cli.output import ConfigOption, JsonOption, console, print_json
from msnode.preprocess import recipes
from msnode.segment.bundle import BRAIN, builtin_folder, find_bundle, list_bundles, load_bundle
from msnode.settings import load_settings
from msnode.wiring.model import bundle_folders

if TYPE_CHECKING:
    from msnode.train.progress import Progress as Step

app = typer.Typer(help="Train, evaluate, list and inspect model bundles.", no_args_is_help=True)
app.command("evaluate")(model_evaluate.evaluate)
app.command("compare")(model_evaluate.compare)


@app.command()
def train(  # noqa: PLR0917 - Typer calls it by name
    recipe: Annotated[Path, typer.Option(help="Training recipe, such as config/recipes/nnunet2d.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of cases: */FLAIR.nii.gz with */lesion_mask.nii.gz.")],
    out: Annotated[Path, typer.Option(help="Folder that the bundle is written to.")],
    fold: Annotated[
        list[int] | None, typer.Option(help="Only this fold, from 0; repeatable. Default: all.")
    ] = None,
    brain: Annotated[
        Path | None,
        typer.Option(
            help="Bundle that finds the brain, for recipes that strip the skull. Default: the built-in."
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints; a training found there is resumed. Default: OUT/work."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Folds trained side by side on the CPU's cores, or on one GPU.")
    ] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that train one fold together.")] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto: CUDA where there is a GPU, else the CPU.")
    ] = "auto",
) -> None:
    """Train a 2D nnU-Net in folds disjoint by patient and write a bundle, with cross-validated figures.

    A training that was stopped, or killed, goes on from its last epoch when the command is given again.
    What is left: plan.json in the work folder. Loss curves: progress.png in each fold's folder below it,
    redrawn at every epoch.
    """
    from msnode.train.recipe import load_recipe  # noqa: PLC0415 - only training needs it
    from msnode.train.session import Plan, train_bundle  # noqa: PLC0415 - loads the data set's readers

    loaded = load_recipe(recipe)
    plan = Plan(
        recipe=loaded,
        data=data,
        out=out,
        work=(work or out / "work").resolve(),
        folds=tuple(sorted(set(fold))) if fold else tuple(range(loaded.dataset.folds)),
        brain=brain or (_built_in_brain() if recipes.get(loaded.preprocess).strips_skull else None),
        processes=processes,
        gpus=gpus,
        device=device,
        command=shlex.join(["msnode", *sys.argv[1:]]),
    )
    with _bars() as bars:
        tasks: dict[int | None, TaskID] = {None: bars.add_task("starting", total=None, figures="")}

        def report(step: Step) -> None:
            if step.epoch is None:
                bars.update(tasks[None], description=step.stage, figures=step.detail)
                return
            if step.fold not in tasks:
                tasks[step.fold] = bars.add_task("", total=step.epochs, figures="")
            name = "pretraining" if step.fold == loaded.dataset.folds else f"fold {step.fold}"
            left = f"about {(step.seconds_left or 0) / 60:.0f} min left"
            bars.update(
                tasks[step.fold],
                description=f"{name}, epoch {step.epoch} of {step.epochs}",
                completed=step.epoch,
                figures=f"loss {step.loss:.3f}  pseudo-Dice {step.pseudo_dice:.3f}  {left}",
            )

        bundle = train_bundle(plan, report)
    typer.echo(str(bundle))


def _bars() -> Progress:
    """Progress on stderr, one bar a fold."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
    )


def _built_in_brain() -> Path | None:
    """The brain network inside the newest built-in bundle that has one."""
    found = [path / BRAIN for path, _ in list_bundles([builtin_folder()]) if (path / BRAIN).is_dir()]
    return max(found) if found else None


@app.command()
def export(
    nnunet: Annotated[Path, typer.Option(help="Folder to write: a model that plain nnunetv2 loads.")],
    bundle: Annotated[
        str | None,
        typer.Argument(help="name, name@version or a bundle's folder; default: the configured one."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Write a bundle's networks as an nnU-Net model folder (nnUNetv2_predict_from_modelfolder reads it)."""
    from msnode.train.export import export_nnunet  # noqa: PLC0415 - torch

    settings = load_settings(config)
    loaded = load_bundle(find_bundle(bundle or settings.model.bundle, _folders(config)), recipes.names())
    typer.echo(str(export_nnunet(loaded.path, nnunet)))


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
        print_json(rows)
        return
    table = Table("name", "version", "recipe", "Dice on held-out patients", "path")
    for row in rows:
        dice = "-" if row["dice"] is None else f"{row['dice']:.3f}"
        table.add_row(row["name"], row["version"], row["recipe"], dice, row["path"])
    console.print(table)


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
        print_json(shown)
        return
    console.print(Markdown((loaded.path / "model_card.md").read_text(encoding="utf-8")))
    typer.echo(f"sha256 {loaded.identity.sha256}\npath   {loaded.path}")


def _folders(config: Path | None) -> list[Path]:
    return bundle_folders(load_settings(config))
