"""The sections of an evaluation report: figures by voxel, lesion, slice, volume and case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msnode.evaluate import page, plots
from msnode.evaluate.evaluation import THICK_MM
from msnode.evaluate.metrics import LARGE_MM3, LESION_FIGURES, VOXEL_FIGURES
from msnode.evaluate.slices import FIGURES, READINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from msnode.evaluate.cases import CaseEvaluation
    from msnode.evaluate.evaluation import Evaluation, SizeBin
    from msnode.evaluate.intervals import Estimate


@dataclass(frozen=True)
class Shown:
    """How a figure is shown: its name and number of decimals."""

    label: str
    digits: int = 3


SHOWN = {
    "dice": Shown("Dice"),
    "iou": Shown("IoU"),
    "ppv": Shown("PPV"),
    "sensitivity": Shown("sensitivity"),
    "specificity": Shown("specificity", 5),
    "mcc": Shown("MCC"),
    "hd95_mm": Shown("HD95, mm", 1),
    "asd_mm": Shown("average surface distance, mm", 2),
    "lesion_f1": Shown("lesion F1, any overlap"),
    "lesion_sensitivity": Shown("lesion sensitivity, any overlap"),
    "lesion_ppv": Shown("lesion PPV, any overlap"),
    "large_f1": Shown(f"lesion F1, expert's lesions of {LARGE_MM3:g} mm3 and more"),
    "large_sensitivity": Shown(f"lesion sensitivity, {LARGE_MM3:g} mm3 and more"),
    "lesion10_f1": Shown("lesion F1, 10 % overlap"),
    "lesion10_sensitivity": Shown("lesion sensitivity, 10 % overlap"),
    "lesion10_ppv": Shown("lesion PPV, 10 % overlap"),
    "false_positives": Shown("false lesions a scan", 1),
    "volume_error_ml": Shown("absolute error of volume, ml", 2),
}


_PAPER = {  # s41598-025-14112-x: internal test, external test; other data, for orientation only
    "dice": ("0.703 (0.683 to 0.723)", "0.748 (0.706 to 0.789)"),
    "ppv": ("0.753", "0.889"),
    "iou": ("0.560", "0.605"),
    "sensitivity": ("0.711", "0.681"),
    "hd95_mm": ("28.3", "31.5"),
}


_READINGS = {
    "usual": "usual definitions",
    "paper": "paper's reading, too little overlap left out",
    "paper_any_voxel": "paper's reading, any predicted voxel is a find",
}


_CASE_HEAD = (
    "case", "patient", "read by", "Dice", "PPV", "sensitivity", "HD95 mm", "ASD mm", "lesion F1",
    "found / expert", "false / predicted", "ml predicted / expert",
)  # fmt: skip


def show(estimate: Estimate, digits: int = 3) -> str:
    """A figure with its interval, as text."""
    if estimate.value is None:
        return "not defined"
    value = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def size_name(one: SizeBin) -> str:
    """A size bin in words."""
    if one.high_mm3 is None:
        return f"{one.low_mm3:g} mm3 and more"
    return f"{one.low_mm3:g} to {one.high_mm3:g} mm3" if one.low_mm3 else f"below {one.high_mm3:g} mm3"


def _row(name: str, estimate: Estimate) -> tuple[str, str, str]:
    return SHOWN[name].label, show(estimate, SHOWN[name].digits), str(estimate.patients)


def cards(evaluation: Evaluation) -> str:
    """The main figures, large."""
    wanted = [
        (evaluation.voxel["dice"], "mean Dice", 3),
        (evaluation.lesion["lesion_f1"], "mean lesion F1", 3),
        (evaluation.lesion["false_positives"], "false lesions a scan", 1),
    ]
    if evaluation.volume:
        wanted.append((evaluation.volume.pearson_r, "volume, Pearson r", 3))
    entries = []
    for estimate, name, digits in wanted:
        value, _, interval = show(estimate, digits).partition(" (")
        undefined = estimate.value is None
        entries.append(
            ("-" if undefined else value, name, "not defined" if undefined else interval.rstrip(")"))
        )
    return page.cards(entries)


def voxel_level(evaluation: Evaluation) -> Iterator[str]:
    """Agreement of voxels, beside the figures of the paper."""
    yield page.heading("Voxel level")
    rows = [(*_row(name, evaluation.voxel[name]), *_PAPER.get(name, ("", ""))) for name in VOXEL_FIGURES]
    yield page.table(("mean over scans", "figure", "patients", "paper, internal", "paper, external"), rows)
    yield page.paragraph(
        "Specificity and MCC count every voxel of the scan, air included. HD95: larger of the two "
        "directed 95th percentiles between surfaces. Paper: Sci Rep 2025, s41598-025-14112-x, on its own "
        "data: for orientation.",
        "note",
    )


def lesion_level(evaluation: Evaluation) -> Iterator[str]:
    """Agreement of lesions, by size too."""
    yield page.heading("Lesion level")
    rows = [_row(name, evaluation.lesion[name]) for name in LESION_FIGURES]
    yield page.table(("mean over scans", "figure", "patients"), rows)
    yield page.table(
        ("expert's lesions", "found", "sensitivity, any overlap"),
        (
            (size_name(one), f"{one.found} of {one.count}", show(one.sensitivity))
            for one in evaluation.by_size
        ),
    )
    yield page.paragraph(
        "A lesion is a 26-connected component. 10 % overlap: the other side marked a tenth of the lesion's "
        "own voxels. A false lesion shares no voxel with the expert's mask.",
        "note",
    )


def ceilings(evaluation: Evaluation) -> Iterator[str]:
    """What a faultless network would reach."""
    if not evaluation.ceilings:
        return
    yield page.heading("Ceiling")
    rows = (
        (
            f"slices of {THICK_MM:g} mm and more" if one.thick else f"slices under {THICK_MM:g} mm",
            str(one.scans),
            *(show(figure) for figure in (one.dice, one.lesion_f1, one.large_f1)),
        )
        for one in evaluation.ceilings
    )
    large = f"lesion F1, {LARGE_MM3:g} mm3 and more"
    yield page.table(("", "scans", "Dice", "lesion F1", large), rows)
    yield page.paragraph(
        "What a faultless network would reach: the expert's own mask, brought to the prepared grid and back, "
        "cut at the threshold, and without what is smaller than the smallest lesion.",
        "note",
    )


def slice_level(evaluation: Evaluation) -> Iterator[str]:
    """Agreement of slices."""
    level = evaluation.slices
    if level is None:
        return
    yield page.heading("Slice level")
    rows = [
        (_READINGS[reading], *(show(level.readings[reading][name], 2) for name in FIGURES))
        for reading in READINGS
    ]
    rows.append(
        ("paper's figures, internal / external", "0.83 / 0.76", "1.00 / 1.00", "0.75 / 0.68", "0.99 / 1.00")
    )
    yield page.table(("", "accuracy", "sensitivity", "PPV", "NPV"), rows)
    counts = level.counts
    yield page.paragraph(
        f"{level.positive} positive slices and {level.normal} normal slices, drawn at random from "
        f"{level.normal_available}. Positive: {counts['tp']} found (at least {level.threshold:.0%} of the "
        f"expert's voxels), {counts['partial']} with less overlap, {counts['fn']} with nothing predicted. "
        f"Normal: {counts['tn']} without a predicted voxel, {counts['fp']} with one. The paper does not say "
        "what a positive slice with less overlap is: its sensitivity of 100 % with 146 of 218 positive "
        "slices found needs such slices left out, or counted as found.",
        "note",
    )
    yield page.figure(
        plots.threshold_curves(level),
        "The overlap that makes a true positive is moved; bands: 95 % confidence interval; dotted: 10 %.",
    )


def volume(evaluation: Evaluation, scored: Sequence[CaseEvaluation]) -> Iterator[str]:
    """Agreement of volumes."""
    agreement = evaluation.volume
    if agreement is None:
        return
    yield page.heading("Lesion volume")
    rows = (
        ("Pearson r", show(agreement.pearson_r)),
        ("bias (predicted - expert), ml", show(agreement.bias_ml, 2)),
        ("lower limit of agreement, ml", show(agreement.lower_ml, 2)),
        ("upper limit of agreement, ml", show(agreement.upper_ml, 2)),
    )
    yield page.table(("over scans", "figure"), rows)
    pairs = [(case.scores.truth_ml, case.scores.predicted_ml) for case in scored if case.scores]
    yield page.figure(
        plots.volumes(pairs, agreement), "One dot a scan. Limits: bias and 1.96 standard deviations."
    )


def calibration(evaluation: Evaluation) -> Iterator[str]:
    """Confidence against what experts marked."""
    yield page.heading("Confidence")
    result = evaluation.calibration
    if result is None:
        yield page.paragraph("The bundle gives its lesions no calibrated confidence, or none was found.")
        return
    yield page.paragraph(
        f"Expected calibration error {show(result.expected_error)} over {result.count} predicted lesions. "
        "True: the lesion shares a voxel with the expert's mask."
    )
    yield page.figure(
        plots.reliability_diagram(result), "Reliability: a calibrated confidence lies on the dotted line."
    )


def cases(evaluation: Evaluation) -> Iterator[str]:
    """Every case in a row."""
    yield page.heading("Scans")
    if evaluation.scored:
        yield page.table(_CASE_HEAD, (_case_row(case) for case in evaluation.scored))
    without = [case for case in evaluation.cases if case.scores is None]
    if without:
        yield page.heading("Without an expert's mask", 3)
        yield page.table(
            ("case", "patient", "read by", "lesions", "ml"),
            (
                (case.case, case.patient, _reader(case), str(case.lesion_count), f"{case.lesion_ml:.2f}")
                for case in without
            ),
        )


def _case_row(case: CaseEvaluation) -> tuple[str, ...]:
    scores = case.scores
    if scores is None:
        raise ValueError(f"{case.case} has no expert's mask")
    figures = [
        "-" if value is None else f"{value:.{digits}f}"
        for value, digits in (
            (scores.dice, 3), (scores.ppv, 3), (scores.sensitivity, 3),
            (scores.hd95_mm, 1), (scores.asd_mm, 2), (scores.lesion_f1, 3),
        )
    ]  # fmt: skip
    found = sum(one.matched() for one in case.match.truth) if case.match else 0
    return (
        case.case,
        case.patient,
        _reader(case),
        *figures,
        f"{found} / {scores.truth_count}",
        f"{scores.false_positives} / {scores.predicted_count}",
        f"{scores.predicted_ml:.2f} / {scores.truth_ml:.2f}",
    )


def _reader(case: CaseEvaluation) -> str:
    reader = case.fold.replace("_", " ") if case.fold else "ensemble"
    return reader if case.held_out else f"{reader}, seen in training"


def pictures(evaluation: Evaluation) -> Iterator[str]:
    """Slices with truth and prediction."""
    ranked = sorted(
        (case for case in evaluation.scored if case.scores and case.scores.dice is not None),
        key=lambda case: -(case.scores.dice or 0) if case.scores else 0,
    )
    without = [case for case in evaluation.cases if case.scores is None]
    if not ranked and not without:
        return
    yield page.heading("Pictures")
    yield page.legend(((plots.TRUTH, "expert"), (plots.PREDICTED, "predicted")))
    chosen = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    shown: set[int] = set()
    for name, at in chosen.items():
        if ranked and at not in shown:
            shown.add(at)
            case = ranked[at]
            dice = case.scores.dice if case.scores else None
            yield page.heading(f"{name}: {case.case}, Dice {dice:.3f}", 3)
            yield page.figure(
                plots.slices(case.pictures), "The slices with most lesion, plain and outlined.", "slices"
            )
    for case in without:
        yield page.heading(f"{case.case}: no expert's mask, {case.lesion_count} lesions found", 3)
        yield page.figure(
            plots.slices(case.pictures), "Slices spread over the stack, plain and with what was found."
        )
