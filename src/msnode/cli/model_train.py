"""`msnode model train`: trains a bundle on cases with expert masks."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from msnode.preprocess import recipes
from msnode.segment.bundle import BRAIN, builtin_folder, list_bundles
from msnode.train.recipe import load_recipe
from msnode.train.session import Plan, train_bundle

if TYPE_CHECKING:
    from msnode.train.progress import Progress as Step


def train(  # noqa: PLR0917 - Typer calls it by name
    recipe: Annotated[Path, typer.Option(help="Training recipe, for example config/recipes/nnunet2d.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of cases: */FLAIR.nii.gz and */lesion_mask.nii.gz.")],
    out: Annotated[Path, typer.Option(help="Folder to write the bundle to.")],
    fold: Annotated[
        list[int] | None,
        typer.Option(help="Train only this fold, from 0; repeatable. Default: all."),
    ] = None,
    brain: Annotated[
        Path | None,
        typer.Option(help="Brain bundle, for recipes with skull stripping. Default: the built-in one."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints, from which training resumes. Default: OUT/work."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of folds to train in parallel, on the CPU or on one GPU.")
    ] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs to train each fold on.")] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto: CUDA if there is a GPU, else the CPU.")
    ] = "auto",
) -> None:
    """Train a 2D nnU-Net with cross-validation and write a bundle.

    Folds are disjoint by patient, and the bundle contains the cross-validation scores. If training is
    interrupted, the same command resumes it from the last epoch. What is left is in plan.json in the work
    folder; loss curves are in progress.png in each fold's folder below it, updated every epoch.
    """
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
    """Progress on stderr, one bar per fold."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
    )


def _built_in_brain() -> Path | None:
    """The brain bundle inside the newest built-in bundle that has one."""
    found = [path / BRAIN for path, _ in list_bundles([builtin_folder()]) if (path / BRAIN).is_dir()]
    return max(found) if found else None
