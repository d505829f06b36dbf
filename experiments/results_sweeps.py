"""Tables and figures of sweeps: how far estimators are from the reference along some axis.

A sweep's file has the columns of `SWEEP_COLUMNS`: one row per axis, value on it, controller and
metric, with the difference to GCC and its 95 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bwe_env.errors import ArtifactError
from experiments.page import SURE, UNKNOWN, ReportTable, figure_html
from experiments.results_figures import WIDTH
from experiments.svg import Axis, Plot, legend

DIFFERENCE, LOW, HIGH = "minus_gcc", "minus_gcc_low", "minus_gcc_high"
#: Columns that make a file a sweep.
SWEEP_COLUMNS = ("axis", "value", "controller", "metric", DIFFERENCE, LOW, HIGH)


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One controller at one point by one metric."""

    axis: str
    value: str
    """as the file has it: a number or a word"""
    controller: str
    metric: str
    difference: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The difference as tables show it."""
        values = (self.difference, self.low, self.high)
        cells = [f"{v:+.3g}" if math.isfinite(v) else UNKNOWN for v in values]
        is_sure = self.low > 0.0 or self.high < 0.0
        return f"{cells[0]} [{cells[1]}, {cells[2]}]" + (SURE if is_sure else "")


def sweep_rows(columns: Mapping[str, Sequence[str]], where: str) -> list[SweepRow]:
    """The rows of a sweep's file.

    Raises:
        ArtifactError: a difference is no number.
    """
    try:
        return [
            SweepRow(
                axis=axis,
                value=value,
                controller=controller,
                metric=metric,
                difference=float(difference),
                low=float(low),
                high=float(high),
            )
            for axis, value, controller, metric, difference, low, high in zip(
                *(columns[name] for name in SWEEP_COLUMNS), strict=True
            )
        ]
    except ValueError as error:
        raise ArtifactError(f"{where} is damaged: {error}. Run the study again.") from error


def sweep_tables(rows: Sequence[SweepRow]) -> list[ReportTable]:
    """One table per controller: points by metrics."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    tables = []
    for controller in dict.fromkeys(row.controller for row in rows):
        cells = {(r.axis, r.value, r.metric): r.text for r in rows if r.controller == controller}
        points = dict.fromkeys((axis, value) for axis, value, _ in cells)
        lines = [
            [_words(axis), _shown(value), *(cells.get((axis, value, m), UNKNOWN) for m in metrics)]
            for axis, value in points
        ]
        tables.append(
            ReportTable(
                title=f"{controller} − gcc",
                header=["axis", "value", *metrics],
                rows=lines,
                caption="Paired differences [95 % interval]; * it excludes zero.",
            )
        )
    return tables


def sweep_figures(rows: Sequence[SweepRow], prefix: str) -> list[str]:
    """One figure per metric and axis, below a shared legend; values stand evenly apart."""
    names = list(dict.fromkeys(row.controller for row in rows))
    series = {name: f"s{i}" + (" main" if i == 0 else "") for i, name in enumerate(names)}
    figures = [legend(series.items())]
    for metric in dict.fromkeys(row.metric for row in rows):
        of_metric = [row for row in rows if row.metric == metric]
        for axis in dict.fromkeys(row.axis for row in of_metric):
            of_axis = [row for row in of_metric if row.axis == axis]
            figures.append(_figure(of_axis, series, f"{prefix}-{len(figures)}"))
    return figures


def _figure(rows: Sequence[SweepRow], series: Mapping[str, str], name: str) -> str:
    axis, metric = rows[0].axis, rows[0].metric
    values = list(dict.fromkeys(row.value for row in rows))
    ends = [v for row in rows for v in (row.difference, row.low, row.high) if math.isfinite(v)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.05 * (high - low) or 1.0
    names = [_shown(value) for value in values]
    at = range(len(values))
    plot = Plot(
        x=Axis(low=-0.3, high=len(values) - 0.7, label=_words(axis), at=at, names=names),
        y=Axis(low=low - margin, high=high + margin, label=f"{metric}, difference to gcc"),
        width=WIDTH,
    )
    plot.rule(y=0.0)
    told = []
    for controller in reversed(list(series)):
        own = {row.value: row for row in rows if row.controller == controller}
        present = [own[value] for value in values if value in own]
        places = np.array([values.index(row.value) for row in present], dtype=np.float64)
        area = f"area {series[controller]}"
        plot.area(places, [row.low for row in present], [row.high for row in present], area)
        means = [row.difference for row in present]
        plot.curve(places, means, series[controller], label=controller)
        told += [f"{controller} at {_shown(row.value)}: {row.text}" for row in reversed(present)]
    alt = f"{metric}, difference to gcc over {_words(axis)}. {'; '.join(reversed(told))}"
    return figure_html(name, plot.svg(alt), "Bands: 95 % intervals.", round(WIDTH))


def _words(axis: str) -> str:
    return axis.replace("_", " ")


def _shown(value: str) -> str:
    """A number without digits that nobody needs; a word as it is."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value
