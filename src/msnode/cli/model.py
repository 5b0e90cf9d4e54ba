"""`msnode model`: train a bundle, list and show the bundles there are."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from msnode.cli.output import ConfigOption, JsonOption, console, print_json, spinner
from msnode.errors import ConfigurationError
from msnode.preprocess import recipes
from msnode.segment.bundle import find_bundle, list_bundles, load_bundle
from msnode.settings import load_settings
from msnode.wiring.model import bundle_folders

if TYPE_CHECKING:
    from msnode.train.session import Progress as Step

app = typer.Typer(help="Train, list and inspect model bundles.", no_args_is_help=True)


@app.command()
def train(
    recipe: Annotated[Path, typer.Option(help="Training recipe, such as config/recipes/nnunet2d.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of cases: */FLAIR.nii.gz with */lesion_mask.nii.gz.")],
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


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of cases: */FLAIR.nii.gz with */lesion_mask.nii.gz.")],
    bundle: Annotated[
        str | None,
        typer.Argument(help="name, name@version or a bundle's folder; default: the configured one."),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Only this case; repeatable. Default: those the bundle names as held out."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a bundle on cases with expert masks, through the path that the node takes."""
    from msnode.train.card import score_cells  # noqa: PLC0415 - with the next two
    from msnode.train.dataset import find_cases  # noqa: PLC0415 - SimpleITK takes half a second
    from msnode.train.session import evaluate_held_out  # noqa: PLC0415 - as above

    path = find_bundle(bundle or load_settings(config).model.bundle, _folders(config))
    loaded = load_bundle(path, recipes.names())
    wanted = set(case or loaded.manifest.evaluation.get("cases", ()))
    cases = [c for c in find_cases(data) if c.name in wanted]
    if missing := wanted - {c.name for c in cases}:
        raise ConfigurationError(f"no case {', '.join(sorted(missing))} in {data}")
    with spinner("evaluating"):
        evaluation = evaluate_held_out(path, cases, lambda _: None)
    if as_json:
        print_json(evaluation)
        return
    table = Table(
        "case", "Dice", "PPV", "sensitivity", "lesion F1", "lesions / expert", "ml / expert", box=None
    )
    for name, scores in {**evaluation["cases"], "mean": evaluation["mean"]}.items():
        table.add_row(*score_cells(name, scores, ("dice", "ppv", "sensitivity", "lesion_f1")))
    console.print(table)


def _folders(config: Path | None) -> list[Path]:
    return bundle_folders(load_settings(config))
