"""The report of two bundles on the same scans: one HTML page with figures, and one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msnode
from msnode.evaluate import page, plots
from msnode.evaluate.compare import LOWER_IS_BETTER, figure_of
from msnode.evaluate.report import on_intervals, opening
from msnode.evaluate.report_sections import SHOWN, show, size_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from msnode.evaluate.compare import Comparison, Difference

HTML, JSON = "comparison.html", "comparison.json"


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write `comparison.html` and `comparison.json` into `out`, which is made where it is missing.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    html = page.document("Comparison of two bundles", _parts(comparison))
    out.mkdir(parents=True, exist_ok=True)
    (out / HTML).write_text(html, encoding="utf-8")
    text = json.dumps(comparison.to_json(), indent=1, allow_nan=False)
    (out / JSON).write_text(text, encoding="utf-8")


def verdict(name: str, difference: Difference) -> str:
    """Which bundle does better, where the interval of the difference leaves out 0; else nothing."""
    if not difference.certain or difference.difference.value is None:
        return ""
    b_higher = difference.difference.value > 0
    return "B better" if b_higher != (name in LOWER_IS_BETTER) else "A better"


def _parts(comparison: Comparison) -> Iterator[str]:
    yield page.heading("Comparison of two bundles", 1)
    for letter, evaluation in (("A", comparison.a), ("B", comparison.b)):
        yield page.heading(f"{letter}: {evaluation.about.bundle}", 3)
        yield from opening(evaluation)
    yield on_intervals(comparison.a.about)
    yield page.heading("Figures")
    yield page.table(_head("scans"), (_row(SHOWN[n].label, n, d) for n, d in comparison.figures.items()))
    yield page.paragraph(
        "Over the scans where both bundles define the figure. The interval of B - A is paired: both bundles "
        "are drawn with the same patients. A verdict stands only where that interval leaves out 0; many "
        "figures are compared at once, so one verdict alone may still be chance.",
        "note",
    )
    yield page.heading("Sensitivity by size of the expert's lesions")
    sizes = zip(comparison.a.by_size, comparison.by_size, strict=True)
    yield page.table(_head("lesions"), (_row(size_name(s), "sensitivity", d) for s, d in sizes))
    yield page.heading("Scan by scan")
    yield page.beside(
        page.figure(plot, "One line a scan; blue: B as good or better, orange: A better.")
        for plot in _paired_plots(comparison)
    )
    yield page.table(
        ("case", "patient", "Dice A", "Dice B", "lesion F1 A", "lesion F1 B", "false A", "false B"),
        (
            (
                a.case,
                a.patient,
                *(
                    _number(figure_of(case, name), SHOWN[name].digits if name != "false_positives" else 0)
                    for name in ("dice", "lesion_f1", "false_positives")
                    for case in (a, b)
                ),
            )
            for a, b in zip(comparison.a.scored, comparison.b.scored, strict=True)
        ),
    )
    yield page.paragraph(f"Made by msnode {msnode.__version__}. Not a medical device.", "note")


def _head(counted: str) -> tuple[str, ...]:
    return ("", counted, "A", "B", "B - A", "")


def _row(label: str, name: str, one: Difference) -> tuple[str, ...]:
    digits = SHOWN[name].digits
    return (
        label,
        str(one.scans),
        show(one.a, digits),
        show(one.b, digits),
        show(one.difference, digits),
        verdict(name, one),
    )


def _paired_plots(comparison: Comparison) -> Iterator[bytes]:
    for name, title in (("dice", "Dice"), ("lesion_f1", "Lesion F1")):
        pairs = [
            (x, y)
            for a, b in zip(comparison.a.scored, comparison.b.scored, strict=True)
            if (x := figure_of(a, name)) is not None and (y := figure_of(b, name)) is not None
        ]
        yield plots.paired([x for x, _ in pairs], [y for _, y in pairs], title, ("A", "B"))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
