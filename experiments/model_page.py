"""The page of network models: one HTML file that opens anywhere, and the same tables in a terminal.

The page holds its figures and its style, and asks nobody for anything. It follows the reader's
choice of light or dark and fits a telephone: tables scroll inside their box, figures shrink.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from experiments.model_figures import Picture
from experiments.model_report import ModelReport
from experiments.model_sections import Section, report_sections
from experiments.model_tables import SURE, UNKNOWN, ReportTable
from experiments.run_directory import write_json
from experiments.tables import make_table, show

PAGE_FILE, JSON_FILE = "models.html", "models.json"
TITLE = "Network models"

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
tbody tr:nth-child(even) { background: var(--stripe); }
th.text, td.text { text-align: left; }
td.text { white-space: normal; min-width: 7.5rem; max-width: 44rem; }
.below { color: var(--faint); font-size: 0.87rem; margin: -0.5rem 0 1.2rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: flex-start; }
figure { margin: 0.5rem 0; max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--faint); font-size: 0.87rem; margin-top: 0.3rem; max-width: 100%; }
"""

#: CSS pixels per inch.
CSS_DPI = 96


# --- HTML -----------------------------------------------------------------------------------------


def _is_text(cells: Iterable[str]) -> bool:
    """Whether a column holds words, which are read from the left and may be broken."""
    return not any(cell[:1] in tuple(f"0123456789+-{UNKNOWN}") for cell in cells)


def _table_html(table: ReportTable) -> str:
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


def _figure_html(picture: Picture) -> str:
    """A figure with the picture inside."""
    encoded = base64.b64encode(picture.png).decode("ascii")
    width = round(picture.width_in * CSS_DPI)
    return (
        f'<figure id="figure-{escape(picture.name)}" style="width: {width}px">\n'
        f'<img src="data:image/png;base64,{encoded}" width="{width}" alt="{escape(picture.alt)}">\n'
        f"<figcaption>{escape(picture.caption)}</figcaption>\n</figure>"
    )


def _section_html(section: Section, pictures: Sequence[Picture]) -> str:
    heading = f'<a href="#{section.anchor}">{escape(section.title)}</a>'
    parts = [f'<section>\n<h2 id="{section.anchor}">{heading}</h2>']
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    parts += [_table_html(table) for table in section.tables]
    if pictures:
        figures = "\n".join(_figure_html(picture) for picture in pictures)
        parts.append(f'<div class="figures">\n{figures}\n</div>')
    if section.lines:
        items = "\n".join(f"<li>{escape(line)}</li>" for line in section.lines)
        parts.append(f"<ul>\n{items}\n</ul>")
    return "\n".join([*parts, "</section>"])


def page_html(report: ModelReport, sections: Sequence[tuple[Section, Sequence[Picture]]]) -> str:
    """The whole page."""
    links = "\n".join(
        f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>'
        for section, _ in sections
    )
    contents = f'<nav aria-label="Contents">\n<ul>\n{links}\n</ul>\n</nav>\n' if links else ""
    body = "\n".join(_section_html(section, pictures) for section, pictures in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{TITLE}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n"
        f"<h1>{TITLE}</h1>\n<p>Dataset <code>{escape(report.dataset)}</code>; written by "
        f"<code>{escape(report.command)}</code>.</p>\n{contents}</header>\n<main>\n{body}\n"
        "</main>\n</body>\n</html>\n"
    )


# --- Files ----------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Values that JSON has: numbers of numpy as Python's, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_page(report: ModelReport, directory: Path) -> Path:
    """Write ``models.html``, its figures as PNG files beside it, and ``models.json``.

    Args:
        directory: is made where it does not exist; files of these names are replaced.

    Returns:
        The path of the page.
    """
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for section in report_sections(report):
        pictures = [picture for picture in section.draw() if picture is not None]
        for picture in pictures:
            (directory / f"{picture.name}.png").write_bytes(picture.png)
        drawn.append((section, pictures))
    page = directory / PAGE_FILE
    page.write_text(page_html(report, drawn), encoding="utf-8")
    write_json(directory / JSON_FILE, _plain(report.as_json()))
    return page


def print_tables(report: ModelReport) -> None:
    """The page's tables and notes on the terminal."""
    for section in report_sections(report):
        tables = [
            make_table(table.title, table.header, table.rows, caption=table.caption)
            for table in section.tables
        ]
        show(*tables, *section.lines)
