"""Tables and figures of folders of CSV files: ablations, robustness.

A file with the columns ``variant, metric, mean, low, high`` becomes a table with one row per
variant and one column per metric, and a forest for each metric; a sweep becomes what
`experiments.results_sweeps` makes of it. Any other file is shown as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bwe_env.errors import ArtifactError
from experiments.page import UNKNOWN, ReportTable, figure_html
from experiments.results_data import read_rows
from experiments.results_figures import WIDTH, ForestRow, forest
from experiments.results_sweeps import SWEEP_COLUMNS, sweep_figures, sweep_rows, sweep_tables

#: Columns that make a file a table of variants.
VARIANT_COLUMNS = ("variant", "metric", "mean", "low", "high")
#: Rows of any other file that are shown; more are for a spreadsheet. Ours.
MOST_ROWS = 80


@dataclass(frozen=True, kw_only=True)
class FolderContent:
    """What a folder adds to the page."""

    tables: list[ReportTable]
    figures: list[str]


def read_folder(folder: Path) -> FolderContent:
    """Everything in the folder's CSV files, in the order of their names.

    Raises:
        ArtifactError: there is none, or one cannot be read.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise ArtifactError(
            f"{folder} holds no CSV file; give the folder that the study was written to."
        )
    content = FolderContent(tables=[], figures=[])
    for file in files:
        columns = read_rows(file)
        if set(VARIANT_COLUMNS) <= set(columns):
            content.tables.append(_variant_table(file.stem, columns))
            content.figures.extend(_variant_figures(f"{folder.name}-{file.stem}", columns))
        elif set(SWEEP_COLUMNS) <= set(columns):
            rows = sweep_rows(columns, f"{folder.name}/{file.name}")
            content.tables.extend(sweep_tables(rows))
            content.figures.extend(sweep_figures(rows, f"{folder.name}-{file.stem}"))
        else:
            content.tables.append(_plain_table(file.stem, columns))
    return content


def _title(stem: str) -> str:
    return stem.replace("_", " ").replace("-", " ").capitalize()


def _number(text: str, digits: int = 4) -> str:
    """A number with few digits, or the text as it is."""
    try:
        value = float(text)
    except ValueError:
        return text or UNKNOWN
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.{digits}g}"


def _interval(mean: str, low: str, high: str) -> str:
    return f"{_number(mean)} [{_number(low)}, {_number(high)}]"


def _variant_table(stem: str, columns: Mapping[str, Sequence[str]]) -> ReportTable:
    cells = {(variant, metric): _interval(*numbers) for variant, metric, *numbers in _rows(columns)}
    variants, metrics = (list(dict.fromkeys(columns[name])) for name in VARIANT_COLUMNS[:2])
    return ReportTable(
        title=_title(stem),
        header=["variant", *metrics],
        rows=[[v, *(cells.get((v, m), UNKNOWN) for m in metrics)] for v in variants],
        caption="Mean [95 % interval].",
    )


def _rows(columns: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    return list(zip(*(columns[name] for name in VARIANT_COLUMNS), strict=True))


def _variant_figures(prefix: str, columns: Mapping[str, Sequence[str]]) -> list[str]:
    figures = []
    for metric in dict.fromkeys(columns["metric"]):
        of_metric = [row for row in _rows(columns) if row[1] == metric]
        try:
            numbers = [[float(cell) for cell in row[2:]] for row in of_metric]
        except ValueError as error:
            raise ArtifactError(f"{prefix}: {error}; mean, low and high are numbers.") from error
        known = [v for row in numbers for v in row if math.isfinite(v)]
        if not known:
            continue
        # A metric of differences is drawn around zero, any other around its first variant.
        null = 0.0 if min(known) <= 0.0 <= max(known) else numbers[0][0]
        rows = [
            ForestRow(
                name=variant,
                value=mean,
                low=low,
                high=high,
                series="s0",
                is_full=low > null or high < null,
                text=_interval(*cells),
            )
            for (variant, _, *cells), (mean, low, high) in zip(of_metric, numbers, strict=True)
        ]
        plot = forest(rows, title=metric, label=metric, null=null)
        told = "; ".join(f"{row.name} {row.text}" for row in rows)
        name = f"{prefix}-{metric}".replace(" ", "-").replace("/", "-").replace("%", "pct")
        figures.append(
            figure_html(name, plot.svg(f"{metric}: {told}"), "95 % intervals.", round(WIDTH))
        )
    return figures


def _plain_table(stem: str, columns: Mapping[str, Sequence[str]]) -> ReportTable:
    rows = [[_number(cell) for cell in row] for row in zip(*columns.values(), strict=True)]
    left_out = len(rows) - MOST_ROWS
    return ReportTable(
        title=_title(stem),
        header=list(columns),
        rows=rows[:MOST_ROWS],
        caption=f"{left_out:,} more rows are in the file." if left_out > 0 else "",
    )
