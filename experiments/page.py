"""Skeleton of a page of results: one HTML file that opens anywhere.

The page holds its figures and its style, and asks nobody for anything. It follows the reader's
choice of light or dark and fits a telephone: tables scroll inside their box, figures shrink.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

#: What stands where a number is not known.
UNKNOWN = "–"
#: Follows what stands out in its table: a difference whose interval excludes zero, a best value.
SURE = " *"

# Figures are white paper: inverted and turned back in hue they are dark paper with the same
# colours. Inverting by 0.92 gives white paper the shade of the dark page, #141414.
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #262b36; --faint: #5c6370;
  --line: #d9dde5; --stripe: #f5f6f9; --accent: #0b62a0; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #141414; --ink: #e4e6ea; --faint: #a2a8b4; --line: #3a3d44;
    --stripe: #1d1e21; --accent: #74b8ee; }
  figure img { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0.6rem 0; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 0.6rem; padding-top: 0.5rem;
  border-top: 1px solid var(--line); }
h2 a { color: inherit; text-decoration: none; }
h2 a:hover::after, h2 a:focus::after { content: " #"; color: var(--faint); }
a { color: var(--accent); }
p, li { max-width: 46rem; }
code { font-size: 0.9em; overflow-wrap: anywhere; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.1rem; padding: 0; list-style: none; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.4rem; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0.2rem; }
thead th { color: var(--faint); font-weight: 600; white-space: normal; vertical-align: bottom; }
tbody th { font-weight: 400; }
tbody th, thead th:first-child { position: sticky; left: 0; background: var(--paper); }
tbody tr:nth-child(even), tbody tr:nth-child(even) th { background: var(--stripe); }
th.text, td.text { text-align: left; }
td.text { white-space: normal; min-width: 7.5rem; max-width: 44rem; }
.below { color: var(--faint); font-size: 0.87rem; margin: -0.5rem 0 1.2rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: flex-start; }
figure { margin: 0.5rem 0; max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--faint); font-size: 0.87rem; margin-top: 0.3rem; max-width: 100%; }
"""


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """Cells of one table; the first column is text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page, without its figures."""

    anchor: str
    title: str
    text: str = ""
    tables: Sequence[ReportTable] = ()
    lines: Sequence[str] = ()
    """items of a list"""


def _is_text(cells: Iterable[str]) -> bool:
    """Whether a column holds words, which are read from the left and may be broken."""
    return not any(cell[:1] in tuple(f"0123456789+-{UNKNOWN}") for cell in cells)


def table_html(table: ReportTable) -> str:
    """A table in a box that scrolls, with what is to be said of it below."""
    columns = [_is_text(row[i] for row in table.rows) for i in range(len(table.header))]
    kinds = [' class="text"' if is_text else "" for is_text in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(table.header, kinds, strict=True)
    )
    body = "\n".join(_row_html(row, kinds) for row in table.rows)
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(table.title)}">'
    below = f'\n<p class="below">{escape(table.caption)}</p>' if table.caption else ""
    return (
        f"{box}\n<table>\n<caption>{escape(table.title)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>{below}"
    )


def _row_html(row: Sequence[str], kinds: Sequence[str]) -> str:
    cells = [f'<th scope="row">{escape(row[0])}</th>']
    for cell, kind in zip(row[1:], kinds[1:], strict=True):
        text = f"<strong>{escape(cell)}</strong>" if cell.endswith(SURE) else escape(cell)
        cells.append(f"<td{kind}>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def figure_html(name: str, content: str, caption: str, width_px: int) -> str:
    """A figure of a width that a narrower page shrinks.

    Args:
        name: unique on the page.
        content: HTML of the picture.
    """
    return (
        f'<figure id="figure-{escape(name)}" style="width: {width_px}px">\n{content}\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def _section_html(section: Section, figures: Sequence[str]) -> str:
    heading = f'<a href="#{section.anchor}">{escape(section.title)}</a>'
    parts = [f'<section>\n<h2 id="{section.anchor}">{heading}</h2>']
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    parts += [table_html(table) for table in section.tables]
    if figures:
        parts.append('<div class="figures">\n' + "\n".join(figures) + "\n</div>")
    if section.lines:
        items = "\n".join(f"<li>{escape(line)}</li>" for line in section.lines)
        parts.append(f"<ul>\n{items}\n</ul>")
    return "\n".join([*parts, "</section>"])


def page_html(
    title: str,
    lead: str,
    sections: Sequence[tuple[Section, Sequence[str]]],
    *,
    style: str = "",
) -> str:
    """The whole page.

    Args:
        lead: HTML of the paragraph below the title.
        sections: each with the HTML of its figures.
        style: rules that the page needs beside `STYLE`.
    """
    links = "\n".join(
        f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>'
        for section, _ in sections
    )
    contents = f'<nav aria-label="Contents">\n<ul>\n{links}\n</ul>\n</nav>\n' if links else ""
    body = "\n".join(_section_html(section, figures) for section, figures in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n<p>{lead}</p>\n{contents}</header>\n"
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
