"""One training from data to bundle, resumable: prepare, train every fold, promote, evaluate."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msnode
from msnode.errors import ConfigurationError, ProcessDied
from msnode.preprocess import recipes
from msnode.reading.networks import open_brain
from msnode.segment.predict import Predictor
from msnode.segment.runtime import choose_device
from msnode.train import cases as sources
from msnode.train import dataset
from msnode.train.progress import PlanFile, Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from msnode.preprocess.brain import Extractor
    from msnode.train.cases import Case
    from msnode.train.recipe import TrainingRecipe


_ATTEMPTS = 3
"""How often folds are begun whose processes were killed."""


@dataclass(frozen=True)
class Plan:
    """What to train, and where.

    Attributes:
        recipe: the training recipe.
        data: folder of cases.
        out: folder that the bundle is written to.
        work: folder for nnU-Net's files and checkpoints; a training found there is resumed.
        folds: which folds to train; the bundle is written once every one of them is there.
        brain: folder of the bundle that strips the skull; None where the recipe does not.
        processes: folds trained side by side, the cores shared among them.
        gpus: GPUs that train one fold together.
        device: "auto", "cpu" or "cuda".
        command: what the operator typed, recorded beside the figures.
    """

    recipe: TrainingRecipe
    data: Path
    out: Path
    work: Path
    folds: tuple[int, ...]
    brain: Path | None
    processes: int
    gpus: int
    device: str
    command: str


@dataclass(frozen=True)
class Material:
    """The cases of a training and how they are dealt to folds, the pretraining's last."""

    cases: tuple[Case, ...]
    folds: tuple[dataset.Fold, ...]

    def held_out(self, fold: int) -> tuple[Case, ...]:
        """Cases that a fold did not see, of patients it did not see."""
        return tuple(case for case in self.cases if case.name in self.folds[fold].val)


def train_bundle(plan: Plan, report: Callable[[Progress], None]) -> Path:
    """Train, promote and evaluate.

    Args:
        plan: what and where.
        report: told of every step.

    Returns:
        The bundle's folder.

    Raises:
        ConfigurationError: the data do not fit the recipe, a fold or the device does not exist, there is no
            brain bundle for a recipe that strips the skull, or the work folder belongs to a training with
            another recipe.
        ProcessDied: processes that trained folds were killed again and again.
        RecipeMismatch: the preprocessing recipe is unknown.
    """
    recipe = plan.recipe
    strips = recipes.get(recipe.preprocess).strips_skull
    if strips and plan.brain is None:
        raise ConfigurationError(
            f"recipe {recipe.preprocess} strips the skull: name a brain bundle with --brain"
        )
    wrong = [fold for fold in plan.folds if not 0 <= fold < recipe.dataset.folds]
    if wrong:
        raise ConfigurationError(f"fold {wrong[0]} does not exist; there are {recipe.dataset.folds}, from 0")
    plan = replace(plan, device=choose_device(plan.device))
    prepare_environment(plan.work)
    report = _noted(plan, report)
    with (
        (plan.work / "nnunet.log").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        report(Progress("preparing", "cases"))
        material = collect(recipe, plan.data, plan.work, plan.processes)
        _prepare(plan, material, report)
        checkpoints = _train(plan, report)
        report(Progress("promoting"))
        from msnode.train.promote import promote  # noqa: PLC0415 - torch

        training = describe(plan, material, checkpoints)
        bundle = promote(
            {f"fold_{fold}": path for fold, path in checkpoints.items() if fold < recipe.dataset.folds},
            recipe,
            plan.out,
            brain=plan.brain if strips else None,
            training=training,
        )
    from msnode.train.validation import validate  # noqa: PLC0415 - after the environment is set

    held_out = [case for fold in plan.folds for case in material.held_out(fold)]
    validate(bundle, recipe, held_out, plan.command, lambda name: report(Progress("evaluating", name)))
    report(Progress("done"))
    return bundle


def _noted(plan: Plan, report: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """`report`, after the plan file."""
    table, pretraining = plan.recipe.training, plan.recipe.dataset.folds
    epochs = {pretraining: table.pretraining_epochs} if table.pretraining_epochs else {}
    epochs |= dict.fromkeys(plan.folds, table.epochs)
    file = PlanFile(plan.work, plan.command, epochs, pretraining=pretraining, processes=plan.processes)

    def note(progress: Progress) -> None:
        file.note(progress)
        report(progress)

    return note


def prepare_environment(work: Path) -> None:
    """Tell nnU-Net where its folders are and how many processes it may start; it reads this on import."""
    for part in ("raw", "preprocessed", "results"):
        folder = work / f"nnUNet_{part}"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{part}"] = str(folder)
    os.environ["nnUNet_def_n_proc"] = "1"  # noqa: SIM112 - nnU-Net's spelling


def collect(recipe: TrainingRecipe, data: Path, work: Path, processes: int = 1) -> Material:
    """Every case that the recipe trains on, and the folds; `processes` make what synthetic scans are missing.

    Raises:
        ConfigurationError: see `cases.find_cases`, `dataset.choose_folds`.
    """
    table, synthetic = recipe.dataset, recipe.synthetic
    brain = table.target == "brain"
    real = sources.find_cases(data, table.same_patient, mask=sources.BRAIN if brain else sources.LESIONS)
    folder = data / synthetic.lesion_masks
    masks = {path.name.removesuffix(".nii.gz"): path for path in sorted(folder.glob("*.nii.gz"))}
    made = sources.synthetic_cases(
        {name: path for name, path in masks.items() if name not in synthetic.leave_out},
        synthetic.scans,
        synthetic.seed,
        work / "synthetic",
        processes,
    )
    more, test = (
        sources.longitudinal_brains(data / table.longitudinal, work / "longitudinal", names)
        for names in (table.longitudinal_train, table.longitudinal_held_out)
    )
    # patients without brain mask are dealt too, so that the folds of brain and lesions agree
    known = sources.patients_of(data, table.same_patient)
    patients = {known.get(p.parent.name, p.parent.name) for p in data.glob(f"*/{sources.IMAGE}")}
    folds = dataset.choose_folds((*real, *made), table.folds, data, patients)
    names, others = (tuple(case.name for case in group) for group in (more, test))
    folds = tuple(dataset.Fold((*f.train, *names), (*f.val, *others)) for f in folds)
    if recipe.training.pretraining_epochs:
        folds = (*folds, dataset.pretraining_fold(made))
    return Material((*real, *made, *more, *test), folds)


def describe(plan: Plan, material: Material, checkpoints: dict[int, Path]) -> dict[str, Any]:
    """What the manifest records of a training: who was seen by which fold, which bytes, how it went."""
    from msnode.train.trainer import curves  # noqa: PLC0415 - torch

    real = [case for case in material.cases if not case.synthetic]
    names = {case.name for case in real}
    folds = {
        f"fold_{fold}": {
            "train": [n for n in material.folds[fold].train if n in names],
            "val": list(material.folds[fold].val),
        }
        for fold in plan.folds
    }
    return {
        "command": plan.command,
        "code_version": msnode.__version__,
        "recipe": plan.recipe.name,
        "recipe_sha256": hashlib.sha256(_wanted(plan.recipe).encode()).hexdigest(),
        "seed": plan.recipe.training.seed,
        "patients": {case.name: case.patient for case in real},
        "data": dataset.data_digests(real),
        "folds": folds,
        "curves": {f"fold_{fold}": curves(path) for fold, path in checkpoints.items()},
    }


def _wanted(recipe: TrainingRecipe) -> str:
    """The recipe as far as it decides the weights."""
    return recipe.model_dump_json(exclude={"bundle"})


def _prepare(plan: Plan, material: Material, report: Callable[[Progress], None]) -> None:
    """Data set and plan in the work folder, unless they are there."""
    recipe, prepared = plan.recipe, plan.work / "prepared.json"
    if prepared.exists():
        if prepared.read_text(encoding="utf-8") != _wanted(recipe):
            raise ConfigurationError(
                f"{plan.work} holds a training with another recipe; choose another folder"
            )
        return
    _import_trainer()
    dataset.write_dataset(
        material.cases,
        material.folds,
        plan.work,
        recipe,
        _extractors(plan, material),
        lambda name: report(Progress("preparing", name)),
    )
    report(Progress("planning"))
    _import_trainer().plan(recipe, plan.work)
    prepared.write_text(_wanted(recipe), encoding="utf-8")


def _extractors(plan: Plan, material: Material) -> Callable[[Case], Extractor | None]:
    """How each case loses its skull in training: as in use, by networks that do not know the patient."""
    brain = plan.brain
    if brain is None or not recipes.get(plan.recipe.preprocess).strips_skull:
        return lambda _: None
    dealt = material.folds[: plan.recipe.dataset.folds]  # without the pretraining's
    fold_of = {name: f"fold_{n}" for n, fold in enumerate(dealt) for name in fold.val}
    learned = {
        fold: open_brain(brain, partial(Predictor, folds=(fold,))) for fold in sorted(set(fold_of.values()))
    }

    def extractor(case: Case) -> Extractor:
        if case.synthetic:
            return dataset.known_brain(case, case.brain())
        return learned[fold_of[case.name]]

    return extractor


def _import_trainer() -> Any:
    try:
        from msnode.train import trainer  # noqa: PLC0415 - 4 s, 900 MB, and it reads the environment
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"training needs {error.name}: install msnode[train]") from error
    return trainer


def _train(plan: Plan, report: Callable[[Progress], None]) -> dict[int, Path]:
    """Pretraining, then the folds, side by side where asked; fold → checkpoint."""
    checkpoints = {}
    pretraining = plan.recipe.dataset.folds
    if plan.recipe.training.pretraining_epochs:
        checkpoints[pretraining] = train_fold(plan, pretraining, report)
    if plan.processes == 1:
        return checkpoints | {fold: train_fold(plan, fold, report) for fold in plan.folds}
    for _ in range(_ATTEMPTS):
        try:
            return checkpoints | _side_by_side(plan, report)
        except BrokenProcessPool:  # a process was killed; what it had done lies in its checkpoint
            report(Progress("training", "a process was killed: its fold goes on from its last epoch"))
    raise ProcessDied(
        f"processes that train were killed {_ATTEMPTS} times; with less memory, start fewer side by side: "
        "the same command goes on from the last epochs"
    )


def _side_by_side(plan: Plan, report: Callable[[Progress], None]) -> dict[int, Path]:
    """Every fold in a process of its own, `plan.processes` at once; fold → checkpoint."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        queue = manager.Queue()
        told = threading.Thread(target=_pass_on, args=(queue, report))
        told.start()
        try:
            with ProcessPoolExecutor(plan.processes, context) as pool:
                jobs = {fold: pool.submit(_train_apart, plan, fold, queue) for fold in plan.folds}
                return {fold: job.result() for fold, job in jobs.items()}
        finally:
            queue.put(None)
            told.join()


def _pass_on(queue: Any, report: Callable[[Progress], None]) -> None:
    while (progress := queue.get()) is not None:
        report(progress)


def _train_apart(plan: Plan, fold: int, queue: Any) -> Path:
    """One fold in a process of its own, with its share of the cores; it ends with its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_environment(plan.work)
    import torch  # noqa: PLC0415 - after the environment is set

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // plan.processes))
    with (
        (plan.work / f"nnunet-{fold}.log").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        return train_fold(plan, fold, queue.put)


def _end_with_parent() -> None:
    """A fold whose parent was killed would go on, beside the one that the next command begins."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        for augmenting in multiprocessing.active_children():
            augmenting.kill()
        os._exit(1)


def train_fold(plan: Plan, fold: int, report: Callable[[Progress], None]) -> Path:
    """Train one fold, or the pretraining where `fold` is the number of folds; returns its checkpoint."""
    start, first = time.monotonic(), None

    def epoch_done(current: Any) -> None:
        nonlocal first
        first = current.current_epoch - 1 if first is None else first
        each = (time.monotonic() - start) / (current.current_epoch - first)
        done = Progress(
            "training",
            fold=fold,
            epoch=current.current_epoch,
            epochs=current.num_epochs,
            loss=float(current.logger.get_value("train_losses", step=-1)),
            pseudo_dice=float(current.logger.get_value("mean_fg_dice", step=-1)),
        )
        report(replace(done, seconds_left=each * (current.num_epochs - current.current_epoch)))

    # processes that augment, beside the one that keeps the GPU busy; on the CPU it augments itself
    workers = max(1, (os.cpu_count() or 1) // plan.processes - 1) if plan.device == "cuda" else 0
    checkpoint: Path = _import_trainer().run(
        plan.recipe, plan.work, fold, epoch_done, device=plan.device, gpus=plan.gpus, workers=workers
    )
    return checkpoint
