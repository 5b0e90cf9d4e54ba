"""Where a training stands: what it tells of every step, and the plan file that says what is left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Progress:
    """Where a training stands; the numbers are None outside training itself.

    Attributes:
        stage: "preparing", "planning", "training", "promoting", "evaluating" or "done".
        detail: what is being worked on.
        fold: the fold that is trained; the number of folds stands for the pretraining.
        epoch: epochs done.
        epochs: epochs in all.
        loss: training loss of the last epoch.
        pseudo_dice: Dice over the validation batches of the last epoch (not of whole scans).
        seconds_left: by the pace of the epochs of this run.
    """

    stage: str
    detail: str = ""
    fold: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    pseudo_dice: float | None = None
    seconds_left: float | None = None


class PlanFile:
    """`WORK/plan.json`, written anew at every step: what a training has done and what is left of it.

    It is for people, and survives the machine; how far a fold really is, its checkpoint says.

    Args:
        work: the training's folder.
        command: what goes on with the training when it is given again.
        epochs: fold → its epochs in all; the number of folds stands for the pretraining.
        pretraining: number of the pretraining.
        processes: folds trained side by side.
    """

    def __init__(
        self, work: Path, command: str, epochs: Mapping[int, int], *, pretraining: int, processes: int
    ) -> None:
        self._path, self._command, self._processes = work / PLAN_FILE, command, processes
        self._names = {fold: "pretraining" if fold == pretraining else f"fold {fold}" for fold in epochs}
        earlier = self._earlier()
        self._done = {name: earlier.get(name, 0) for name in self._names.values()}
        self._all = {self._names[fold]: count for fold, count in epochs.items()}

    def note(self, progress: Progress) -> None:
        """Write what is left after a step."""
        if progress.fold is not None and progress.epoch is not None:
            self._done[self._names[progress.fold]] = progress.epoch
        left = {name: count - self._done[name] for name, count in self._all.items()}
        steps = [f"{name}: {count} of {self._all[name]} epochs" for name, count in left.items() if count]
        content: dict[str, Any] = {
            "command": self._command,
            "stage": progress.stage,
            "detail": progress.detail,
            "epochs_done": self._done,
            "left": [] if progress.stage == "done" else [*steps, "bundle, evaluation"],
            "minutes_left": self._minutes(progress, sum(left.values())),
        }
        aside = self._path.with_suffix(".incomplete")
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        aside.replace(self._path)

    def _minutes(self, progress: Progress, epochs_left: int) -> int | None:
        """Of training, by the pace of the fold that has just ended an epoch; None where none has."""
        if progress.seconds_left is None or progress.epoch is None or progress.epochs is None:
            return None
        remaining = progress.epochs - progress.epoch
        if not remaining:
            return None
        return round(epochs_left * progress.seconds_left / remaining / self._processes / 60)

    def _earlier(self) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads(self._path.read_text(encoding="utf-8"))["epochs_done"]
        except (OSError, ValueError, KeyError):
            return {}
        return found
