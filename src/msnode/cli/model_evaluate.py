"""`msnode model evaluate` and `compare`: scores a bundle, or two bundles on the same cases."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from msnode.cli.console import console, progress
from msnode.cli.output import ConfigOption, JsonOption, print_json
from msnode.errors import ConfigurationError
from msnode.evaluate import compare as comparing
from msnode.evaluate.evaluation import About, evaluate_cases
from msnode.evaluate.report import write_report
from msnode.evaluate.report_comparison import verdict, write_comparison
from msnode.evaluate.report_sections import SHOWN, show
from msnode.preprocess import recipes
from msnode.segment.bundle import find_bundle, load_bundle
from msnode.settings import load_settings
from msnode.train import reading
from msnode.train.cases import find_cases
from msnode.wiring.model import bundle_folders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msnode.evaluate.compare import Comparison
    from msnode.evaluate.evaluation import Evaluation
    from msnode.segment.bundle import Bundle
    from msnode.train.cases import Case

Preset = Literal["fast", "standard", "best"]

DataOption = Annotated[
    Path,
    typer.Option(help="Folder of cases: */FLAIR.nii.gz and, if available, */lesion_mask.nii.gz."),
]
CaseOption = Annotated[list[str] | None, typer.Option(help="Use only this case; repeatable. Default: all.")]
HeldOutOption = Annotated[
    bool,
    typer.Option(
        "--cross-validation/--ensemble",
        help="Read each case with the folds not trained on its patient, or with all folds.",
    ),
]
PresetOption = Annotated[
    Preset, typer.Option(help="fast: one fold; standard: all folds; best: all folds and mirrored images.")
]


def evaluate(
    bundle: Annotated[
        str | None,
        typer.Argument(help="NAME, NAME@VERSION or a bundle folder. Default: the configured bundle."),
    ] = None,
    *,
    data: DataOption,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html and report.json. Default: table only."),
    ] = None,
    case: CaseOption = None,
    held_out: HeldOutOption = True,
    preset: PresetOption = "standard",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a bundle on cases with expert masks.

    Cases are processed exactly as in the node. Those without a mask are read too and shown in the report
    for visual review.
    """
    loaded = _load(bundle, config)
    cases = _cases(data, case, [loaded])
    evaluation = _run(loaded, cases, data, held_out=held_out, preset=preset)
    if report:
        write_report(evaluation, report)
    if as_json:
        print_json(evaluation.to_json())
        return
    console.print(_table(evaluation))
    if report:
        typer.echo(str(report / "report.html"))


def compare(
    bundle_a: Annotated[str, typer.Argument(help="NAME, NAME@VERSION or a bundle folder.")],
    bundle_b: Annotated[str, typer.Argument(help="The bundle to compare with it.")],
    *,
    data: DataOption,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder for comparison.html and comparison.json. Default: table only."),
    ] = None,
    case: CaseOption = None,
    held_out: HeldOutOption = True,
    preset: PresetOption = "standard",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two bundles on the same cases.

    Shows paired differences with confidence intervals.
    """
    a, b = _load(bundle_a, config), _load(bundle_b, config)
    cases = [one for one in _cases(data, case, [a, b]) if one.mask is not None]
    if not cases:
        raise ConfigurationError(f"no case in {data} has an expert mask: nothing to compare")
    runs = [_run(one, cases, data, held_out=held_out, preset=preset) for one in (a, b)]
    comparison = comparing.compare(*runs)
    if report:
        write_comparison(comparison, report)
    if as_json:
        print_json(comparison.to_json())
        return
    console.print(_comparison_table(comparison))
    if report:
        typer.echo(str(report / "comparison.html"))


def _load(reference: str | None, config: Path | None) -> Bundle:
    settings = load_settings(config)
    path = find_bundle(reference or settings.model.bundle, bundle_folders(settings))
    return load_bundle(path, recipes.names())


def _cases(data: Path, wanted: Sequence[str] | None, bundles: Sequence[Bundle]) -> list[Case]:
    """The requested cases; scans that a bundle lists under one patient stay together."""
    patients: dict[str, list[str]] = {}
    for bundle in bundles:
        for case, patient in bundle.manifest.training.get("patients", {}).items():
            patients.setdefault(patient, []).append(case)
    cases = [
        case
        for case in find_cases(data, list(patients.values()), masks_needed=False)
        if not wanted or case.name in wanted
    ]
    if missing := set(wanted or ()) - {case.name for case in cases}:
        raise ConfigurationError(f"no case {', '.join(sorted(missing))} in {data}")
    return cases


def _run(
    bundle: Bundle,
    cases: Sequence[Case],
    data: Path,
    *,
    held_out: bool,
    preset: Preset,
) -> Evaluation:

    manifest = bundle.manifest
    about = About(
        bundle=f"{manifest.name} {manifest.version}",
        bundle_sha256=bundle.identity.sha256,
        mode="held-out" if held_out else "ensemble",
        preset=preset,
        data=data.resolve().name,
        command=shlex.join(["msnode", *sys.argv[1:]]),
        min_volume_mm3=manifest.min_volume_mm3,
        threshold=manifest.threshold,
        loss=manifest.training.get("curves", {}),
    )
    with progress() as bar:
        task = bar.add_task("evaluating", total=None)

        def tell(name: str) -> None:
            bar.update(task, description=f"evaluating {name}")

        results = reading.predict_cases(bundle.path, cases, mode=about.mode, preset=preset, report=tell)
        return evaluate_cases(results, about)


def _table(evaluation: Evaluation) -> Table:
    table = Table(
        "case", "Dice", "PPV", "sensitivity", "HD95 (mm)", "lesion F1", "false lesions", "lesions / expert",
        "ml / expert", box=None,
    )  # fmt: skip
    for case in evaluation.cases:
        if (scores := case.scores) is None:
            table.add_row(case.case, *["-"] * 6, str(case.lesion_count), f"{case.lesion_ml:.1f}")
            continue
        table.add_row(
            case.case,
            *("-" if v is None else f"{v:.3f}" for v in (scores.dice, scores.ppv, scores.sensitivity)),
            "-" if scores.hd95_mm is None else f"{scores.hd95_mm:.1f}",
            "-" if scores.lesion_f1 is None else f"{scores.lesion_f1:.3f}",
            str(scores.false_positives),
            f"{scores.predicted_count} / {scores.truth_count}",
            f"{scores.predicted_ml:.1f} / {scores.truth_ml:.1f}",
        )
    voxel, lesion = evaluation.voxel, evaluation.lesion
    table.add_section()
    table.add_row(
        "mean (95 % CI)", show(voxel["dice"]), show(voxel["ppv"]), show(voxel["sensitivity"]),
        show(voxel["hd95_mm"], 1), show(lesion["lesion_f1"]), show(lesion["false_positives"], 1), "", "",
    )  # fmt: skip
    return table


def _comparison_table(comparison: Comparison) -> Table:

    a, b = comparison.a.about.bundle, comparison.b.about.bundle
    table = Table("mean over scans", f"A: {a}", f"B: {b}", "B - A (95 % CI)", "", box=None)
    for name, one in comparison.figures.items():
        digits = SHOWN[name].digits
        table.add_row(
            SHOWN[name].label,
            *(show(estimate, digits) for estimate in (one.a, one.b, one.difference)),
            verdict(name, one),
        )
    return table
