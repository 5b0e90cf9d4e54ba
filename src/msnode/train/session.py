"""One training from data to bundle, resumable: prepare, train, promote, evaluate what was held out."""

from __future__ import annotations

import os
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from msnode.domain import Volume
from msnode.errors import ConfigurationError
from msnode.evaluate import metrics
from msnode.lesions import find_lesions
from msnode.preprocess import recipes
from msnode.segment.bundle import load_bundle
from msnode.segment.predict import Predictor
from msnode.train import dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from msnode.train.recipe import TrainingRecipe


@dataclass(frozen=True)
class Progress:
    """Where a training stands; the numbers are None outside training itself.

    Attributes:
        stage: "preparing", "planning", "training", "promoting" or "evaluating".
        detail: what is being worked on.
        epoch: epochs done.
        epochs: epochs in all.
        loss: training loss of the last epoch.
        pseudo_dice: Dice over the validation batches of the last epoch (not of whole scans).
        seconds_left: by the pace of the epochs of this run.
    """

    stage: str
    detail: str = ""
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    pseudo_dice: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Plan:
    """What to train, and where.

    Attributes:
        recipe: the training recipe.
        data: folder of cases.
        out: folder that the bundle is written to.
        work: folder for nnU-Net's files and checkpoints; a training found there is resumed.
        fold: which fold to hold out.
        command: what the operator typed, recorded beside the figures.
    """

    recipe: TrainingRecipe
    data: Path
    out: Path
    work: Path
    fold: int
    command: str


def train_bundle(plan: Plan, report: Callable[[Progress], None]) -> Path:
    """Train, promote and evaluate.

    Args:
        plan: what and where.
        report: told of every step.

    Returns:
        The bundle's folder.

    Raises:
        ConfigurationError: the data do not fit the recipe, the fold does not exist, or the work folder
            belongs to a training with another recipe.
        RecipeMismatch: the preprocessing recipe is unknown.
    """
    recipe = plan.recipe
    recipes.get(recipe.preprocess)
    cases = dataset.find_cases(plan.data, recipe.dataset.same_patient)
    folds = dataset.choose_folds(cases, recipe.dataset.folds, plan.data)
    if not 0 <= plan.fold < len(folds):
        raise ConfigurationError(f"fold {plan.fold} does not exist; there are {len(folds)}, from 0")
    prepare_environment(plan.work)
    with (
        (plan.work / "nnunet.log").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        checkpoint = _train(plan, cases, folds, report)
        report(Progress("promoting", str(checkpoint)))
        from msnode.train.promote import promote, record_evaluation  # noqa: PLC0415 - torch and OpenVINO

        bundle = promote(checkpoint, recipe, plan.out)
        held_out = [case for case in cases if case.name in folds[plan.fold].val]
        evaluation = evaluate_held_out(bundle, held_out, report)
        evaluation |= {"protocol": _protocol(plan, cases, held_out), "command": plan.command}
        record_evaluation(bundle, recipe, f"fold_{plan.fold}", evaluation)
    return bundle


def prepare_environment(work: Path) -> None:
    """Tell nnU-Net where its folders are and how many processes it may start; it reads this on import."""
    for part in ("raw", "preprocessed", "results"):
        folder = work / f"nnUNet_{part}"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{part}"] = str(folder)
    os.environ["nnUNet_def_n_proc"] = "1"  # noqa: SIM112 - nnU-Net's spelling


def evaluate_held_out(
    bundle: Path, cases: Sequence[dataset.Case], report: Callable[[Progress], None]
) -> dict[str, Any]:
    """Figures of the shipped path (recipe, OpenVINO, source grid, lesions) on each case, and their mean."""
    loaded = load_bundle(bundle, recipes.names())
    predictor = Predictor(loaded, "cpu")
    recipe, manifest = recipes.get(loaded.manifest.recipe), loaded.manifest
    scores = {}
    for case in cases:
        report(Progress("evaluating", case.name))
        prepared = recipe.apply(dataset.read_nifti(case.image))
        probability = recipes.restore(predictor.predict(prepared)[1], prepared)
        lesions = find_lesions(
            probability, threshold=manifest.threshold, min_volume_mm3=manifest.min_volume_mm3
        )
        truth = Volume(dataset.read_nifti(case.mask).data, probability.grid)
        scores[case.name] = metrics.score(truth, lesions, min_volume_mm3=manifest.min_volume_mm3)
    rounded = {name: _rounded(asdict(value)) for name, value in scores.items()}
    return {"cases": rounded, "mean": _rounded(metrics.mean(list(scores.values())))}


def _train(
    plan: Plan,
    cases: Sequence[dataset.Case],
    folds: Sequence[dataset.Fold],
    report: Callable[[Progress], None],
) -> Path:
    recipe, prepared = plan.recipe, plan.work / "prepared.json"
    wanted = recipe.model_dump_json(exclude={"bundle"})
    if prepared.exists() and prepared.read_text(encoding="utf-8") != wanted:
        raise ConfigurationError(f"{plan.work} holds a training with another recipe; choose another folder")
    try:
        from msnode.train import trainer  # noqa: PLC0415 - 4 s, 900 MB, and it reads the environment
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"training needs {error.name}: install msnode[train]") from error
    if not prepared.exists():
        dataset.write_dataset(
            cases, folds, plan.work, recipe, lambda name: report(Progress("preparing", name))
        )
        report(Progress("planning"))
        trainer.plan(recipe, plan.work)
        prepared.write_text(wanted, encoding="utf-8")
    pace: list[float] = [time.monotonic()]

    def epoch_done(current: trainer.CompactTrainer) -> None:
        pace.append(time.monotonic())
        each = (pace[-1] - pace[0]) / (len(pace) - 1)
        report(
            Progress(
                "training",
                epoch=current.current_epoch,
                epochs=current.num_epochs,
                loss=float(current.logger.get_value("train_losses", step=-1)),
                pseudo_dice=float(current.logger.get_value("mean_fg_dice", step=-1)),
                seconds_left=each * (current.num_epochs - current.current_epoch),
            )
        )

    folder = trainer.run(recipe, plan.work, plan.fold, epoch_done)
    return folder / f"fold_{plan.fold}" / "checkpoint_final.pth"


def _protocol(plan: Plan, cases: Sequence[dataset.Case], held_out: Sequence[dataset.Case]) -> str:
    patients = {case.patient for case in cases}
    unseen = {case.patient for case in held_out}
    return (
        f"Fold {plan.fold} of {plan.recipe.dataset.folds}, folds disjoint by patient: "
        f"{len(patients - unseen)} patients trained, {len(unseen)} held out, of {len(cases)} scans. "
        "Computed on the source grid through the shipped path (recipe, OpenVINO, lesion definition)."
    )


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
