"""Tables that show the outcome of a run."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from msnode.demo.found import COUNTED_MM, ENOUGH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from msnode.demo.found import Comparison, FoundLesion
    from msnode.demo.run import Outcome

    Point = tuple[float, float, float]


def time_line(outcome: Outcome) -> Table:
    """Duration of each step of the demo and of the node's stages within it."""
    table = _table("Timeline")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for step, seconds in outcome.seconds.items():
        table.add_row(step, f"{seconds:.2f}")
        if step.startswith("waiting"):
            for name, duration in _inside_the_node(outcome.job):
                table.add_row(f"  {name}", f"{duration:.2f}", style="dim")
    return table


def _inside_the_node(details: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Time in each state, and within the reading the time in each stage."""
    for one, following in pairwise(details["transitions"]):
        spent = datetime.fromisoformat(following["at"]) - datetime.fromisoformat(one["at"])
        yield one["state"], spent.total_seconds()
        if one["state"] == "running":
            for stage, seconds in details["job"]["timings_s"].items():
                yield f"  {stage}", seconds


def selection(outcome: Outcome) -> Table:
    """Which series the node chose, and why it did not choose the others."""
    table = _table("Series of the study")
    table.add_column("series", overflow="fold")
    table.add_column("images", justify="right")
    table.add_column("result")
    reasons = {p["series_instance_uid"]: p["reason"] for p in outcome.job["passed_over"]}
    for series in outcome.job["series"]:
        uid = series["series_instance_uid"]
        read = uid == outcome.job["job"]["series_instance_uid"]
        why = "read" if read else f"not chosen: {reasons.get(uid, '')}"
        table.add_row(uid, str(series["instance_count"]), why)
    return table


def planted_and_found(comparison: Comparison) -> Table:
    """One row per planted lesion, then one per segment without a planted lesion."""
    table = _table("Planted and found (positions x, y, z: LPS, mm; diameters mm; volumes mm³)")
    table.add_column("planted", no_wrap=True)
    table.add_column("at", justify="right", no_wrap=True)
    table.add_column("diameter", justify="right")
    table.add_column("volume", justify="right")
    table.add_column("found as", no_wrap=True)
    table.add_column("volume", justify="right")
    for match in comparison.matches:
        planted = match.planted
        numbers = ", ".join(str(f.number) for f in match.found)
        table.add_row(
            planted.region,
            _at(planted.centroid_lps_mm),
            f"{planted.diameter_mm:.1f}",
            f"{planted.volume_mm3:.0f}",
            Text(f"lesion {numbers}", "green") if match.found else Text("missed", "red"),
            _volume(match.found) if match.found else "",
        )
    for one in comparison.extra:
        where = _at(one.centroid_lps_mm)
        table.add_row(Text("nothing", "yellow"), where, "", "", f"lesion {one.number}", _volume([one]))
    return table


def found_alone(found: Iterable[FoundLesion]) -> Table:
    """One row per lesion of a study without known lesions."""
    table = _table("Found")
    table.add_column("lesion", justify="right")
    table.add_column("at x, y, z (LPS mm)", justify="right")
    table.add_column("volume mm³", justify="right")
    for one in found:
        table.add_row(str(one.number), _at(one.centroid_lps_mm), _volume([one]))
    return table


def verdict(comparison: Comparison) -> str:
    """The result in one sentence."""
    counted = comparison.counted
    hits = sum(bool(m.found) for m in counted)
    return (
        f"{hits} of {len(counted)} planted lesions over {COUNTED_MM:.0f} mm found "
        f"({comparison.share_found:.0%}; at least {ENOUGH:.0%} required), {len(comparison.extra)} extra"
    )


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)


def _at(point: Point) -> str:
    return ", ".join(str(round(v)) for v in point)


def _volume(found: Iterable[FoundLesion]) -> str:
    return f"{sum(f.volume_mm3 for f in found):.0f}"
