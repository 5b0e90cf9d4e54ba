"""Precision and recall of the selection rules on a table of series."""

from collections.abc import Sequence

from support.series_table import Row, rows

_PARTS = {
    "seen": "known when the rules were written",
    "held out": "held out at that time",
    "outside": "from lists found afterwards",
}


def run() -> str:
    """A Markdown table: all rows, by part, hard rows, by vendor."""
    table = rows()
    taken = {row: row.selection().refusal is None for row in table}
    groups = {"all": table}
    groups |= {words: tuple(r for r in table if r.part == part) for part, words in _PARTS.items()}
    groups["hard"] = tuple(r for r in table if r.values["hard"] == "hard")
    for vendor in sorted({r.values["vendor"] for r in table}):
        groups[vendor] = tuple(r for r in table if r.values["vendor"] == vendor)
    lines = [
        (
            f"{len(table)} series, described by name and parameters. Recall: the share of readable FLAIR "
            "that were chosen. Precision: the share of chosen series that are readable FLAIR."
        ),
        "",
        "| rows | series | to read | precision | recall | errors |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(name, group, taken) for name, group in groups.items()]
    wrong = [row.name for row in table if taken[row] != row.to_read]
    return "\n".join([*lines, "", f"Wrong: {'; '.join(wrong) or 'none'}."])


def _line(name: str, group: Sequence[Row], taken: dict[Row, bool]) -> str:
    right = sum(taken[r] and r.to_read for r in group)
    read, wanted = sum(taken[r] for r in group), sum(r.to_read for r in group)
    errors = sum(taken[r] != r.to_read for r in group)
    precision = f"{right / read:.3f}" if read else "-"
    recall = f"{right / wanted:.3f}" if wanted else "-"
    return f"| {name} | {len(group)} | {wanted} | {precision} | {recall} | {errors} |"
