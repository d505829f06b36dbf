"""Columns to CSV, rows to a table on the terminal and the same table as text."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bwe_env.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

#: Columns of the text form: wide enough for the widest table, whatever the terminal. Ours.
TEXT_WIDTH = 160


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise before any work is done, if a result file stands already or cannot be written.

    Raises:
        ConfigError: the file exists and `overwrite` is False, or its folder does not exist.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; give the name of a file.")
    if path.exists() and not overwrite:
        raise ConfigError(
            f"{path} exists already and stays as it is; give another name, or --overwrite."
        )
    if not path.absolute().parent.is_dir():
        raise ConfigError(
            f"{path}: the directory {path.absolute().parent} does not exist; make it."
        )


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Write equally long columns, whole or not at all. Floats keep every digit they need."""
    temporary = path.with_name(path.name + ".tmp")
    lists = [np.asarray(column).tolist() for column in columns.values()]
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*lists, strict=True))
    os.replace(temporary, path)


def make_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = ""
) -> Table:
    """A rich table whose first column is text and whose others are numbers."""
    from rich.table import Table

    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    return table


def show(*renderables: Any, file: Path | None = None) -> None:
    """Print tables and lines on the terminal; with `file`, write the same there as plain text."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        # A pipe has no width of its own; 80 columns would fold the tables.
        console = Console(width=TEXT_WIDTH)
    for item in renderables:
        console.print(item, highlight=False, markup=False)
    if file is not None:
        with file.open("w") as stream:
            plain = Console(file=stream, width=TEXT_WIDTH, no_color=True)
            for item in renderables:
                plain.print(item, highlight=False, markup=False)
