"""A comparison as tables for people and as columns for CSV files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.compare_results import ComparedMetric, Comparison, Subset, Value
from experiments.evaluation import Calls
from experiments.tables import make_table

#: Differences that are shown with intervals, in tables of at most 100 columns.
_DIFFERENCE_TABLES = (
    ("call_score", "freeze_ratio", "one_way_delay_ms_p95"),
    ("mean_media_bps", "utilisation", "mean_reward"),
)
_PARTS_METRICS = ("call_score", "freeze_ratio")
_MARKS = (
    "+ better, - worse than {reference}: the interval of the difference is on one side of 0, and "
    "at least 6 networks stand behind it"
)
#: Fewer cannot make a two-sided p-value of 0.05: of n signs all agree with probability 2^(1 - n).
_MARKED_NETWORKS = 6

Cell = Callable[[str], str]


def tables(comparison: Comparison) -> list[Any]:
    """The headline subset in full, all calls beside it in short."""
    headline, *others = [s for s in comparison.subsets if not s.by]
    shown: list[Any] = [comparison.title, ""]
    shown += [_means(comparison, headline), _score(comparison, headline)]
    shown += _against(comparison, headline)
    shown += [_by_part(comparison, headline, by) for by in ("network_type", "bandwidth")]
    shown.append(_margins(comparison, headline))
    for subset in others:
        shown += [_means(comparison, subset), _score(comparison, subset)]
        shown += _against(comparison, subset)[:1]
    return [*shown, *(f"* {note}" for note in comparison.notes)]


def _heading(subset: Subset) -> str:
    name = {
        "contested": "contested calls (capacity below the maximum rate for some of the call)",
        "all": "all calls",
    }[subset.calls]
    return f"{name}: {subset.num_calls} on {subset.networks} networks"


def _labels(comparison: Comparison) -> list[str]:
    return [estimator.label for estimator in comparison.estimators]


def _others(comparison: Comparison) -> list[str]:
    return [label for label in _labels(comparison) if label != comparison.reference]


def _metric(comparison: Comparison, name: str) -> ComparedMetric:
    return next(m for m in comparison.metrics if m.name == name)


def _rows(labels: Sequence[str], cells: Sequence[Cell]) -> list[list[str]]:
    return [[label, *(cell(label) for cell in cells)] for label in labels]


def _means(comparison: Comparison, subset: Subset) -> Any:
    """Every metric's mean, marked where it differs from the reference."""

    def cell(metric: ComparedMetric) -> Cell:
        return lambda label: _marked(comparison, label, subset, metric)

    return make_table(
        f"means over networks, {_heading(subset)}",
        ["estimator", *(metric.header for metric in comparison.metrics)],
        _rows(_labels(comparison), [cell(metric) for metric in comparison.metrics]),
        caption=_MARKS.format(reference=comparison.reference),
    )


def _marked(comparison: Comparison, label: str, subset: Subset, metric: ComparedMetric) -> str:
    value = comparison.find(label, subset.name, metric.name, "mean")
    if value is None or math.isnan(value.value):
        return "-"
    gain = comparison.find(label, subset.name, metric.name, "difference")
    mark = _mark(gain, metric) if subset.networks >= _MARKED_NETWORKS else "  "
    return f"{value.value:.{metric.digits}f}{mark}"


def _mark(gain: Value | None, metric: ComparedMetric) -> str:
    if gain is None or not gain.excludes_zero or metric.better == "neither":
        return "  "
    return " +" if (gain.low > 0.0) == (metric.better == "higher") else " -"


def _score(comparison: Comparison, subset: Subset) -> Any:
    """The call score by all that may stand for many calls."""
    statistics = {"mean": "mean", "iqm": "IQM", "mean_equal_types": "mean of types"}

    def cell(statistic: str) -> Cell:
        return lambda label: with_ends(
            comparison.find(label, subset.name, "call_score", statistic), 3
        )

    return make_table(
        f"call score [95 % interval], {_heading(subset)}",
        ["estimator", *statistics.values()],
        _rows(_labels(comparison), [cell(name) for name in statistics]),
        caption="IQM: interquartile mean. Mean of types: every network type counts as much",
    )


def with_ends(value: Value | None, digits: int, *, sign: str = "") -> str:
    """``value [low, high]``; without ends where they are unknown."""
    if value is None or math.isnan(value.value):
        return "-"
    text = f"{value.value:{sign}.{digits}f}"
    if math.isnan(value.low):
        return text
    return f"{text} [{value.low:{sign}.{digits}f}, {value.high:{sign}.{digits}f}]"


def _against(comparison: Comparison, subset: Subset) -> list[Any]:
    """Paired differences, chances, and runs that win."""
    others, reference = _others(comparison), comparison.reference
    if not others:
        return []

    def cell(name: str, statistic: str, digits: int, sign: str = "") -> Cell:
        return lambda label: with_ends(
            comparison.find(label, subset.name, name, statistic), digits, sign=sign
        )

    heading = f"against {reference}, {_heading(subset)}"
    chances = ("probability_of_improvement", "share_won", "gap_closed")
    columns = [cell("call_score", statistic, 2) for statistic in chances]
    found = [
        make_table(
            f"call score {heading}",
            ["estimator", "P(improvement)", "calls won", "gap closed", "wins"],
            _rows(others, [*columns, lambda label: _wins(comparison, label, subset.name)]),
            caption=(
                "P(improvement): chance to be better on the same network. Gap: share of the way "
                f"from {reference} to {comparison.oracle or 'an oracle'}. Wins: training runs with "
                "a higher call score (interval above 0), fewer freezes and no higher delay"
            ),
        )
    ]
    for names in _DIFFERENCE_TABLES:
        metrics = [_metric(comparison, name) for name in names]
        cells = [cell(m.name, "difference", m.digits, "+") for m in metrics]
        title = f"paired differences {heading}"
        headers = ["difference", *(m.header for m in metrics)]
        rows = _rows(others, cells)
        found.append(make_table(title, headers, [[f"{r[0]} - {reference}", *r[1:]] for r in rows]))
    return found


def _wins(comparison: Comparison, label: str, subset: str) -> str:
    runs = [r for r in comparison.runs if r.estimator == label and r.subset == subset]
    return f"{sum(run.beats for run in runs)} of {len(runs)}"


def _by_part(comparison: Comparison, headline: Subset, by: str) -> Any:
    """Call score and freezes of every network type or bandwidth."""
    parts = [s for s in comparison.subsets if s.calls == headline.calls and s.by == by]
    metrics = [_metric(comparison, name) for name in _PARTS_METRICS]

    def cell(part: Subset, metric: ComparedMetric) -> Cell:
        return lambda label: _marked(comparison, label, part, metric)

    rows = []
    for metric in metrics:
        cells = [cell(part, metric) for part in parts]
        rows += [[f"{r[0]}, {metric.header}", *r[1:]] for r in _rows(_labels(comparison), cells)]
    words = {"network_type": "network type", "bandwidth": "mean capacity"}
    return make_table(
        f"means by {words[by]}, {_heading(headline)}",
        ["estimator", *(f"{part.part}\n({part.networks})" for part in parts)],
        rows,
        caption=f"in brackets: networks. {_MARKS.format(reference=comparison.reference)}",
    )


def _margins(comparison: Comparison, headline: Subset) -> Any:
    """On which network types an estimator is not worse than the reference."""
    parts = [s for s in comparison.subsets if s.calls == headline.calls and s.by == "network_type"]
    words = {"call_score": "score", "freeze_ratio": "freeze"}
    proven = {
        (row.estimator, row.subset, row.metric): row.is_non_inferior
        for row in comparison.non_inferiority
    }
    margins = {row.metric: row.margin for row in comparison.non_inferiority}

    def cell(part: Subset) -> Cell:
        def text(label: str) -> str:
            shown = [w for name, w in words.items() if proven[label, part.name, name]]
            return "both" if len(shown) == len(words) else " ".join(shown) or "no"

        return text

    score, freeze = (margins.get(name, math.nan) for name in words)
    return make_table(
        f"not worse than {comparison.reference}, {_heading(headline)}",
        ["estimator", *(part.part for part in parts)],
        _rows(_others(comparison), [cell(part) for part in parts]),
        caption=(
            f"what is shown to be at most {score:g} MOS (call score) and {freeze:g} points (freeze "
            "share) worse, one-sided at 2.5 % with Holm's correction over types and both"
        ),
    )


# --- Columns --------------------------------------------------------------------------------------


def call_columns(
    played: Mapping[str, Sequence[Calls]], comparison: Comparison
) -> dict[str, NDArray[Any]]:
    """All calls below each other, with who played them."""
    tables, labels, runs = [], [], []
    for estimator in comparison.estimators:
        for name, table in zip(estimator.runs, played[estimator.label], strict=True):
            tables.append(table)
            labels += [estimator.label] * len(table["network"])
            runs += [name] * len(table["network"])
    columns = {"estimator": np.array(labels), "run": np.array(runs)}
    return columns | {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}


def summary_columns(comparison: Comparison) -> dict[str, list[Any]]:
    """One row per value."""
    names = ("estimator", "subset", "metric", "statistic", "value", "low", "high")
    return {name: [getattr(value, name) for value in comparison.values] for name in names}


def profile_columns(comparison: Comparison) -> dict[str, list[Any]]:
    """One row per score of every profile."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("estimator", "subset", "metric", "score", "share", "low", "high")
    }
    for one in comparison.profiles:
        for point in zip(one.scores, one.shares, one.low, one.high, strict=True):
            row = (one.estimator, one.subset, one.metric, *point)
            for name, cell in zip(columns, row, strict=True):
                columns[name].append(cell)
    return columns
