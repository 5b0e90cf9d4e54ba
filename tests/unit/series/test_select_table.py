"""The rules on every row of the table: what is read, and the reason for what is not."""

import re

import pytest

from support.series_table import Row, rows

REASONS = {
    "post-contrast": "after contrast agent",
    "derived": "derived images",
    "localiser": "a localiser|not a FLAIR|derived images",
    "dwi": "diffusion|not a FLAIR|derived images",
    "spine": "not a head",
    "orbit": "not a head",
    "body": "not a head",
    "thin": "to show the whole head",
    "t1-flair": "another contrast",
    "dir": "another contrast",
    "stir": "another contrast|not a FLAIR",
    "psir": "another contrast",
    "phase": "not a magnitude image",
    "numbers": "named FLAIR, but",
    "fragment": "slice",
    "report": "not an MR image",
    "not-an-image": "not an MR image",
}
ANY_OTHER = "not a FLAIR|another contrast|derived images|named FLAIR, but"
"""Of contrasts that nobody asked for; a name that speaks of a FLAIR too is refused for its numbers."""


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_a_series_is_read_or_not(row: Row) -> None:
    selection = row.selection()
    assert (selection.refusal is None) == row.to_read, selection.reason or selection.passed_over
    if not row.to_read:
        (passed,) = selection.passed_over
        assert re.search(REASONS.get(row.values["reason"], ANY_OTHER), passed.reason), passed.reason


def test_the_table_is_what_it_says_it_is() -> None:
    """Its size, its share of hard rows, its vendors and its three parts."""
    table = rows()
    assert len(table) >= 300
    parts = {part: [row for row in table if row.part == part] for part in ("seen", "held out", "outside")}
    assert len(parts["held out"]) >= len(table) / 4
    assert len(parts["outside"]) >= 50
    written = parts["seen"] + parts["held out"]
    assert sum(row.values["hard"] == "hard" for row in written) >= 0.4 * len(written)
    vendors = {row.values["vendor"] for row in table}
    assert {"SIEMENS", "GE", "PHILIPS", "CANON", "TOSHIBA", "HITACHI", "UIH", "HYPERFINE"} == vendors
    assert all(row.values["source"] for row in table)
