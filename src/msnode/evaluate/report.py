"""The report of an evaluation: one HTML page with figures, and one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msnode
from msnode.evaluate import page, plots
from msnode.evaluate import report_sections as sections

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from msnode.evaluate.evaluation import About, Evaluation

HTML, JSON = "report.html", "report.json"


def write_report(evaluation: Evaluation, out: Path) -> None:
    """Write `report.html` and `report.json` into `out`, which is made where it is missing.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    title = f"Evaluation of {evaluation.about.bundle}"
    html = page.document(title, _parts(title, evaluation))
    out.mkdir(parents=True, exist_ok=True)
    (out / HTML).write_text(html, encoding="utf-8")
    text = json.dumps(evaluation.to_json(), indent=1, allow_nan=False)
    (out / JSON).write_text(text, encoding="utf-8")


def _parts(title: str, evaluation: Evaluation) -> Iterator[str]:
    yield page.heading(title, 1)
    yield from opening(evaluation)
    yield on_intervals(evaluation.about)
    scored = evaluation.scored
    if scored:
        yield sections.cards(evaluation)
        yield from sections.voxel_level(evaluation)
        yield from sections.lesion_level(evaluation)
        yield from sections.ceilings(evaluation)
        yield from sections.slice_level(evaluation)
        yield from sections.volume(evaluation, scored)
        yield from sections.calibration(evaluation)
    yield from sections.cases(evaluation)
    yield from sections.pictures(evaluation)
    if evaluation.about.loss:
        yield page.heading("Training")
        yield page.figure(
            plots.loss_curves(evaluation.about.loss), "Loss of each fold: training solid, validation dashed."
        )
    yield page.paragraph(f"Made by msnode {msnode.__version__}. Not a medical device.", "note")


def opening(evaluation: Evaluation) -> Iterator[str]:
    """What was evaluated, and what must be known before a figure is read."""
    about = evaluation.about
    patients = len({case.patient for case in evaluation.cases})
    unscored = len(evaluation.cases) - len(evaluation.scored)
    extent = f"{len(evaluation.cases)}, of {patients} patients" + (
        f"; {unscored} without an expert's mask" if unscored else ""
    )
    yield page.facts(
        (
            ("Bundle", f"{about.bundle}, SHA-256 {about.bundle_sha256[:16]}"),
            ("Read by", f"{_mode(about)}; preset {about.preset}"),
            ("Data", about.data),
            ("Scans", extent),
            (
                "Lesion",
                f"probability at least {about.threshold:g}, volume at least {about.min_volume_mm3:g} mm3",
            ),
            ("Command", about.command),
        )
    )
    if evaluation.seen_in_training:
        names = ", ".join(evaluation.seen_in_training)
        yield page.paragraph(
            f"The networks were trained on these patients: {names}. The figures show how well they were "
            "learnt, not how well the bundle reads a patient it has never seen.",
            "warning",
        )


def on_intervals(about: About) -> str:
    """How the intervals were made."""
    return page.paragraph(
        f"In brackets: 95 % confidence interval, bootstrap over patients ({about.repeats} draws, seed "
        f"{about.seed}); scans, lesions and slices of one patient are always drawn together. A figure "
        "that is not defined for a scan (0 / 0, or a distance to nothing) is left out of its mean.",
        "note",
    )


def _mode(about: About) -> str:
    if about.mode == "held-out":
        return "only the folds that did not see the patient"
    return "the whole ensemble"
