"""The page of network models, and the same tables in a terminal."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from experiments.model_figures import Picture
from experiments.model_report import ModelReport
from experiments.model_sections import Section, report_sections
from experiments.page import figure_html, page_html
from experiments.run_directory import write_json
from experiments.tables import make_table, show

PAGE_FILE, JSON_FILE = "models.html", "models.json"
TITLE = "Network models"

#: CSS pixels per inch.
CSS_DPI = 96


def _picture_html(picture: Picture) -> str:
    """A figure with the picture inside."""
    encoded = base64.b64encode(picture.png).decode("ascii")
    width = round(picture.width_in * CSS_DPI)
    image = (
        f'<img src="data:image/png;base64,{encoded}" width="{width}" alt="{escape(picture.alt)}">'
    )
    return figure_html(picture.name, image, picture.caption, width)


def _models_html(report: ModelReport, sections: Sequence[tuple[Section, Sequence[Picture]]]) -> str:
    """The whole page."""
    lead = (
        f"Dataset <code>{escape(report.dataset)}</code>; written by "
        f"<code>{escape(report.command)}</code>."
    )
    drawn = [(section, [*map(_picture_html, pictures)]) for section, pictures in sections]
    return page_html(TITLE, lead, drawn)


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
    page.write_text(_models_html(report, drawn), encoding="utf-8")
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
