"""A self-contained HTML page from tables, notes and figures; it loads nothing from anywhere."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CSS = """
:root { --ink: #24292f; --soft: #59636e; --line: #d8dee4; --wash: #f6f8fa; --accent: #0072b2; }
* { box-sizing: border-box; }
body { font: 14px/1.5 "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; color: var(--ink);
  max-width: 980px; margin: 0 auto; padding: 32px 24px 64px; background: white; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 40px 0 8px; padding-bottom: 4px; border-bottom: 2px solid var(--accent); }
h3 { font-size: 15px; margin: 20px 0 6px; }
p { margin: 6px 0; max-width: 78ch; }
p.note, figcaption { color: var(--soft); font-size: 12.5px; }
p.warning { border-left: 5px solid #d55e00; background: #fff4ec; padding: 10px 14px; max-width: none; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 1px 16px; margin: 12px 0; font-size: 13px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin: 20px 0 8px; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; background: var(--wash); }
.card b { display: block; font-size: 25px; line-height: 1.2; color: var(--accent); }
.card span { font-size: 12.5px; }
.card small { display: block; color: var(--soft); font-size: 11.5px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
figure { margin: 14px 0 20px; }
figure img { max-width: 100%; display: block; }
.row { display: flex; flex-wrap: wrap; gap: 12px; }
.key { display: inline-block; width: 18px; height: 0; border-top: 3px solid; vertical-align: middle; }
@media (max-width: 640px) { .cards { grid-template-columns: repeat(2, 1fr); } }
@media print {
  @page { size: A4; margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 11px; }
  h2, h3 { break-after: avoid; }
  figure, .card, tr, dl { break-inside: avoid; }
  table { font-size: 10px; }
  th, td { padding: 2px 7px 2px 0; }
  figure.slices img { max-height: 118mm; }
  .wide { overflow: visible; }
}
"""


def document(title: str, parts: Iterable[str]) -> str:
    """The whole page; `parts` are pieces that this module made."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is "note", "warning" or nothing."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names with their values."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows) + "</dl>"


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """Few large figures: (figure, name, what stands below it)."""
    inside = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span>'
        f"<small>{escape(below)}</small></div>"
        for value, name, below in entries
    )
    return f'<div class="cards">{inside}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column names the row."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def figure(image: bytes, caption: str, kind: str = "") -> str:
    """A picture inside the page; PNG, or SVG held as an image so that it can load nothing.

    `kind` is "slices" for one that may be shown smaller on paper, or nothing.
    """
    encoding = "png" if image.startswith(b"\x89PNG") else "svg+xml"
    source = f"data:image/{encoding};base64,{base64.b64encode(image).decode('ascii')}"
    text = escape(caption)
    opened = f'<figure class="{kind}">' if kind else "<figure>"
    return f'{opened}<img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'


def beside(pieces: Iterable[str]) -> str:
    """Pieces in a row, where the page is wide enough."""
    return f'<div class="row">{"".join(pieces)}</div>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Coloured lines with their names: (colour, name)."""
    keys = " &nbsp; ".join(
        f'<span class="key" style="border-color: {escape(colour)}"></span> {escape(name)}'
        for colour, name in entries
    )
    return f'<p class="note">{keys}</p>'
