"""The summary page: one picture with what was read, key slices, the numbers, a plot, and what limits them.

It is drawn for archives that show only images. It names no patient and no date of acquisition.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msnode.dicom import header as dicom_header
from msnode.dicom.uids import EQUIPMENT
from msnode.encode import codes
from msnode.encode.key_slices import choose, draw_key_slices, plane_name
from msnode.encode.normalise import legal_value
from msnode.encode.overlay import NOTICE, instance_numbers
from msnode.encode.picture import BLACK, WHITE, grey_levels, showable
from msnode.encode.sheet import SIZE, TEXT, Page, Sheet, wrap
from msnode.measure.lesions import is_uncertain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from msnode.domain.findings import Finding, Findings, LesionMap
    from msnode.domain.imaging import SourceVolume
    from msnode.encode.provenance import ResultIdentity

_MARGIN = 50
_WIDTH = SIZE[0] - 2 * _MARGIN
_LINE = (84, 90, 100)
_DIM = (176, 182, 192)
_AMBER = (255, 191, 0)
_RED = (255, 120, 100)
_STEP = 30
"""From one line of text to the next."""
_GAP = 18
_TILES, _SLICES, _TABLE, _NOTES, _FOOT = 232, 368, 1150, 1488, 1676
"""Where each part of the page begins, pixels from the top."""
_TABLE_ROWS = 8
_REASON_LINES = 6
_LONGEST_NAME = 64
_WIDEST_BAR = 40
_LOG_ROOM = 0.05
"""Between the smallest bar's end and the axis, and above the largest, in powers of ten."""
_MM3_PER_ML = 1000


def reading_page(
    source: SourceVolume,
    lesion_map: LesionMap,
    findings: Findings,
    *,
    mark_below: float,
    identity: ResultIdentity,
    grey: NDArray[np.uint8] | None = None,
) -> Page:
    """Draw the page of a study that was read.

    Args:
        source: the volume that was read; its warnings are written down.
        lesion_map: labels on the grid of `source`, (slice, row, column).
        findings: one finding a label, and what limits them.
        mark_below: lesions of lower confidence are dashed and marked.
        identity: what the results of one reading share.
        grey: `picture.grey_levels` of the volume; computed where not given.
    """
    if grey is None:
        grey = grey_levels(source.volume.data)
    sheet = Sheet()
    _write_banner(sheet, "Multiple sclerosis lesions in FLAIR, for a second look by the radiologist")
    for number, line in enumerate(_what_was_read(source)):
        sheet.write((_MARGIN, 184 + number * _STEP), line, colour=_DIM)
    _draw_tiles(sheet, findings)
    dashed = {f.lesion.label: is_uncertain(f.lesion, mark_below) for f in findings.lesions}
    _paste_key_slices(sheet, lesion_map, dashed, instance_numbers(source), grey)
    if findings.lesions:
        _draw_table(sheet, findings.lesions, mark_below)
        _draw_plot(sheet, findings.lesions)
    _write_notes(sheet, _notes(source, findings, mark_below), stressed=len(findings.limitations))
    _write_foot(sheet, identity)
    return sheet.page()


def rejection_page(reason: str, *, identity: ResultIdentity) -> Page:
    """Draw the page of a study that was asked for and could not be read: not one number of lesions.

    Args:
        reason: why nothing was read, without patient data.
        identity: what the results of one refusal share.
    """
    sheet = Sheet()
    _write_banner(sheet, "Multiple sclerosis lesions in FLAIR: no result")
    below = 320
    for text, size, colour in (
        ("This study was not read.", 80, _RED),
        (f"Reason: {reason}", 40, WHITE),
        ("This is not a negative finding.", 60, _AMBER),
        ("Nothing is known about lesions. The images need to be read without this result.", 40, WHITE),
    ):
        for line in wrap(text, size, _WIDTH)[:_REASON_LINES]:
            sheet.write((_MARGIN, below), line, size, colour=colour, bold=colour != WHITE)
            below += round(1.3 * size)
        below += 60
    _write_foot(sheet, identity)
    return sheet.page()


def _write_banner(sheet: Sheet, title: str) -> None:
    sheet.pen.rectangle((0, 0, SIZE[0], 88), fill=_AMBER)
    sheet.write((_MARGIN, 64), NOTICE, 56, colour=BLACK, bold=True)
    sheet.write((_MARGIN, 140), title, 32)


def _what_was_read(source: SourceVolume) -> list[str]:
    """Two lines; a description in letters that the font cannot show is left out."""
    grid, header = source.volume.grid, source.frames[0].instance.header
    described = showable(dicom_header.text(header, "SeriesDescription"))
    number = legal_value(header, "SeriesNumber")
    name = " ".join(["Series", *([str(number)] if number is not None else [])])
    step, row, column = grid.spacing
    measures = f"{step:.1f} mm apart, pixels of {row:.2f} x {column:.2f} mm"
    return [
        f'{name}, "{described[:_LONGEST_NAME]}"' if described else name,
        f"{grid.shape[0]} slices, {plane_name(grid)}, {measures}",
    ]


def _draw_tiles(sheet: Sheet, findings: Findings) -> None:
    """The numbers in large type: count, total volume, brain volume; each with its share of the width."""
    brain = findings.brain_volume_ml
    tiles = [("No lesion was found.", "by the algorithm", 2)]
    if findings.lesions:
        tiles = [
            (str(findings.count), "lesion" if findings.count == 1 else "lesions", 1),
            (_millilitres(findings.total_volume_mm3), "total lesion volume", 1),
        ]
    tiles.append((f"{brain:.0f} ml" if brain is not None else "not measured", "brain with ventricles", 1))
    left, third = _MARGIN, (_WIDTH - 2 * _GAP) // 3
    for text, caption, share in tiles:
        right = left + share * third + (share - 1) * _GAP
        sheet.panel(left, _TILES, right, _TILES + 116)
        middle = (left + right) / 2
        sheet.write((middle, _TILES + 62), text, 50, anchor="ms", bold=True)
        sheet.write((middle, _TILES + 98), caption, TEXT, colour=_DIM, anchor="ms")
        left = right + _GAP


def _millilitres(mm3: float) -> str:
    """Three significant digits of what is small, whole numbers of what is large."""
    ml = mm3 / _MM3_PER_ML
    digits = 0 if ml <= 0 else min(3, max(0, 2 - math.floor(math.log10(ml))))
    return f"{ml:.{digits}f} ml"


def _paste_key_slices(
    sheet: Sheet,
    lesion_map: LesionMap,
    dashed: Mapping[int, bool],
    ranks: Sequence[int],
    grey: NDArray[np.uint8],
) -> None:
    """Rows of three at most; fewer slices are drawn larger, and without a table there is room for more."""
    most, bottom = (6, _TABLE) if dashed else (9, _NOTES)
    chosen = choose(lesion_map.labels, most)
    count = len(chosen)
    columns = min(count, 3 if count > 4 else 2)  # noqa: PLR2004 - four slices fill two rows of two
    rows = -(-count // columns)
    cell = (_WIDTH + _GAP) // columns, (bottom - _GAP - _SLICES) // rows
    room = cell[0] - _GAP, cell[1] - _STEP - 8
    shown = draw_key_slices(lesion_map, dashed, ranks, chosen=chosen, grey=grey, room=room)
    for place, one in enumerate(shown):
        left = _MARGIN + place % columns * cell[0] + (room[0] - one.picture.width) // 2
        top = _SLICES + place // columns * cell[1]
        sheet.picture.paste(one.picture, (left, top))
        lesions = {0: "no lesion", 1: "1 lesion"}.get(one.lesions, f"{one.lesions} lesions")
        middle = left + one.picture.width / 2
        caption = f"Slice {one.rank} of {len(ranks)}: {lesions}"
        sheet.write((middle, top + one.picture.height + 24), caption, 20, colour=_DIM, anchor="ms")


def _draw_table(sheet: Sheet, findings: Sequence[Finding], mark_below: float) -> None:
    """The largest lesions: number, volume, longest axial diameter, confidence."""
    left, right = _MARGIN, _MARGIN + (_WIDTH - _GAP) // 2
    sheet.panel(left, _TABLE, right, _NOTES - _GAP - 10)
    ends = [left + 84, left + 230, left + 390, right - 22]
    for end, title in zip(ends, ("No.", "Volume", "Longest axial", "Confidence"), strict=True):
        sheet.write((end, _TABLE + 32), title, 20, colour=_DIM, anchor="rs")
    shown = findings[:_TABLE_ROWS]
    for number, finding in enumerate(shown, start=1):
        lesion, level = finding.lesion, _TABLE + 34 + number * 29
        sure = "-" if lesion.confidence is None else f"{100 * lesion.confidence:.0f} %"
        low = is_uncertain(lesion, mark_below)
        cells = (
            str(lesion.label),
            f"{lesion.volume_mm3:.0f} mm3",
            f"{lesion.longest_axial_mm:.1f} mm",
            f"low: {sure}" if low else sure,
        )
        colour = codes.lesion_colour(lesion.label)
        sheet.pen.rectangle((left + 18, level - 16, left + 34, level), fill=colour)
        for end, cell in zip(ends, cells, strict=True):
            sheet.write((end, level), cell, TEXT, anchor="rs")
    if more := len(findings) - len(shown):
        level = _TABLE + 34 + (_TABLE_ROWS + 1) * 29
        sheet.write((left + 18, level), f"+ {more} more: see the report", 20, colour=_DIM)


def _draw_plot(sheet: Sheet, findings: Sequence[Finding]) -> None:
    """A bar a lesion, by falling volume, on a logarithmic axis."""
    left, right = _MARGIN + (_WIDTH + _GAP) // 2, _MARGIN + _WIDTH
    bottom = _NOTES - _GAP - 10
    sheet.panel(left, _TABLE, right, bottom)
    sheet.write((left + 22, _TABLE + 32), "Volume of each lesion, mm3 (logarithmic)", 20, colour=_DIM)
    axis, top, ground, end = left + 92, _TABLE + 60, bottom - 44, right - 24
    volumes = sorted((f.lesion.volume_mm3 for f in findings), reverse=True)
    lowest = math.floor(math.log10(volumes[-1]) - _LOG_ROOM)
    highest = max(math.ceil(math.log10(volumes[0]) + _LOG_ROOM), lowest + 1)

    def level(volume: float) -> float:
        return ground - (ground - top) * (math.log10(volume) - lowest) / (highest - lowest)

    for power in range(lowest, highest + 1):
        sheet.pen.line((axis, level(10.0**power), end, level(10.0**power)), fill=_LINE)
        sheet.write((axis - 8, level(10.0**power) + 7), f"{10.0**power:g}", 20, colour=_DIM, anchor="rs")
    width = min((end - axis) / len(volumes), _WIDEST_BAR)
    space = 1 if width >= 4 else 0  # noqa: PLR2004 - pixels: thinner bars stand side by side
    for number, finding in enumerate(sorted(findings, key=lambda f: -f.lesion.volume_mm3)):
        start = axis + number * width
        box = start + space, level(finding.lesion.volume_mm3), start + max(width - space, 1), ground
        sheet.pen.rectangle(box, fill=codes.lesion_colour(finding.lesion.label))
    sheet.write(
        ((axis + end) / 2, bottom - 14),
        "lesions by falling volume, as they are numbered",
        20,
        colour=_DIM,
        anchor="ms",
    )


def _notes(source: SourceVolume, findings: Findings, mark_below: float) -> list[str]:
    """What a reader should know, what limits the result first."""
    notes = [*findings.limitations, *source.warnings]
    if low := [f for f in findings.lesions if is_uncertain(f.lesion, mark_below)]:
        share = f"{len(low)} of {findings.count} lesions"
        notes.append(f"Dashed contour: confidence under {100 * mark_below:.0f} % ({share}).")
    return list(dict.fromkeys(notes))


def _write_notes(sheet: Sheet, notes: Sequence[str], *, stressed: int) -> None:
    """One below the other, the first `stressed` in colour; notes without room are counted."""
    room = (_FOOT - 20 - _NOTES) // _STEP
    below = _NOTES + TEXT
    for number, note in enumerate(notes):
        lines = wrap(note, TEXT, _WIDTH - 24)
        left = len(notes) - number
        if len(lines) + (left > 1) > room:
            sheet.write((_MARGIN, below), f"+ {left} more: see the report", colour=_AMBER)
            return
        sheet.pen.ellipse((_MARGIN + 2, below - 12, _MARGIN + 9, below - 5), fill=_AMBER)
        for line in lines:
            colour = _AMBER if number < stressed else WHITE
            sheet.write((_MARGIN + 24, below), line, colour=colour)
            below += _STEP
        room -= len(lines)


def _write_foot(sheet: Sheet, identity: ResultIdentity) -> None:
    """Who made this, and when."""
    provenance, model = identity.provenance, identity.provenance.model
    made_by = f"model {model.name} {model.version} (SHA-256 {model.sha256[:12]})" if model else "no model"
    when = identity.started_at.strftime("%Y-%m-%d %H:%M %Z").strip()
    revision = provenance.revision
    replaces = f", revision {revision}, replaces revision {revision - 1}" if revision else ""
    sheet.pen.line((_MARGIN, _FOOT, _MARGIN + _WIDTH, _FOOT), fill=_LINE)
    lines = (
        f"Made by {EQUIPMENT} {provenance.msnode_version}, {made_by}, on {when}{replaces}.",
        "A machine made this page; no physician has checked it. Compare it with the source images.",
    )
    for number, line in enumerate(lines):
        sheet.write((_MARGIN, _FOOT + 32 + number * 28), line, 20, colour=_DIM)
