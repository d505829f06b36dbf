"""Figures of a page of results: differences, distributions, profiles, probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.compare_results import ComparedMetric, Subset, Value
from experiments.page import figure_html
from experiments.results_data import Results
from experiments.results_tables import SCORE, is_gain, parts_of, subset_title, value_cell
from experiments.svg import Axis, Plot, legend, thinned

#: Three stand side by side on a laptop, and one fills a telephone.
WIDTH = 372.0
#: Height of a row of a forest, and what its axes take, in CSS pixels.
ROW, FRAME = 24.0, 74.0
#: Width of a letter of a row's name in CSS pixels, as wide fonts have it, and the longest name.
LETTER, MOST_LETTERS = 6.4, 22
#: Points that a distribution is drawn with: more cannot be told apart in 314 pixels.
CURVE_POINTS = 250

#: Columns whose distributions are drawn: column, label, factor, whether the axis is logarithmic.
DISTRIBUTIONS = (
    (SCORE, "call score, MOS", 1.0, False),
    ("freeze_ratio", "freeze, % of the call", 100.0, False),
    ("one_way_delay_ms_p95", "one-way delay p95, ms", 1.0, True),
    ("mean_media_bps", "media bitrate, kbps", 1e-3, False),
)


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """A value with its interval beside a name."""

    name: str
    value: float
    low: float
    high: float
    series: str
    is_full: bool
    """whether its dot is full: what is drawn is sure"""
    text: str


def forest(rows: Sequence[ForestRow], *, title: str, label: str, null: float = 0.0) -> Plot:
    """Values with intervals below each other, and a dashed line where nothing differs.

    Args:
        null: the value of no difference.
    """
    ends = [v for row in rows for v in (row.value, row.low, row.high) if math.isfinite(v)]
    low, high = min([null, *ends]), max([null, *ends])
    margin = 0.06 * (high - low) or 1.0
    names = [_shortened(row.name) for row in rows]
    left = 14.0 + LETTER * max(8, *map(len, names))
    count = len(rows)
    plot = Plot(
        x=Axis(low=low - margin, high=high + margin, label=label),
        y=Axis(low=-0.5, high=count - 0.5, at=range(count - 1, -1, -1), names=names),
        width=WIDTH,
        height=FRAME + ROW * count,
        title=title,
        left=left,
        above=28.0,
    )
    plot.rule(x=null)
    for i, row in enumerate(rows):
        if math.isfinite(row.value):
            plot.whisker(
                row.value,
                row.low,
                row.high,
                count - 1 - i,
                row.series,
                label=f"{row.name}: {row.text}",
                is_full=row.is_full,
            )
    return plot


def _shortened(name: str) -> str:
    """A name that leaves room for what stands beside it."""
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def forest_row(
    name: str, value: Value, series: str, digits: int, *, null: float = 0.0, factor: float = 1.0
) -> ForestRow:
    """A row for a value, full where its interval excludes `null` (in the value's own unit)."""
    return ForestRow(
        name=name,
        value=factor * value.value,
        low=factor * value.low,
        high=factor * value.high,
        series=series,
        is_full=value.low > null or value.high < null,
        text=value_cell(value, digits, factor=factor),
    )


def _direction(metric: ComparedMetric) -> str:
    """Which side of a difference is the better one."""
    sides = {"higher": "worse ← difference → better", "lower": "better ← difference → worse"}
    return sides.get(metric.better, "difference")


def difference_figures(results: Results, subset: Subset) -> list[str]:
    """Paired differences to the reference, one forest per metric."""
    comparison, figures = results.comparison, []
    for metric in comparison.metrics:
        found = [
            (n, comparison.find(n, subset.name, metric.name, "difference")) for n in results.labels
        ]
        rows = [
            forest_row(name, value, results.series[name].split()[0], metric.digits)
            for name, value in found
            if value is not None
        ]
        if not _differ(rows):
            continue
        plot = forest(rows, title=metric.header, label=_direction(metric))
        told = "; ".join(f"{row.name} {row.text}" for row in rows)
        alt = f"Differences to {comparison.reference} in {metric.header}: {told}"
        figures.append(_figure(f"difference-{metric.name}", plot, alt, _gains(found, metric)))
    return figures


def _differ(rows: Sequence[ForestRow]) -> bool:
    """Whether there is any difference to draw: most sets of calls have no dropped one."""
    return any(v != 0.0 for row in rows for v in (row.value, row.low, row.high))


def _gains(found: Iterable[tuple[str, Value | None]], metric: ComparedMetric) -> str:
    """Who is surely better, who surely worse."""
    judged = [(name, is_gain(value, metric)) for name, value in found if value is not None]
    better = ", ".join(name for name, gain in judged if gain is True) or "none"
    worse = ", ".join(name for name, gain in judged if gain is False) or "none"
    return f"Better: {better}. Worse: {worse}."


def part_figures(results: Results, by: str) -> list[str]:
    """The agent's differences to the reference by part, one forest per metric."""
    comparison, figures = results.comparison, []
    if results.agent is None:
        return []
    for metric in comparison.metrics:
        rows = []
        for subset in parts_of(results, by):
            value = comparison.find(results.agent, subset.name, metric.name, "difference")
            if value is not None:
                rows.append(forest_row(subset.part, value, "s0", metric.digits))
        if not _differ(rows):
            continue
        plot = forest(rows, title=metric.header, label=_direction(metric))
        told = "; ".join(f"{row.name} {row.text}" for row in rows)
        alt = f"{results.agent} minus {comparison.reference}, {metric.header}: {told}"
        caption = f"{results.agent} − {comparison.reference} [95 %]; full dots exclude zero."
        figures.append(_figure(f"{by}-{metric.name}", plot, alt, caption))
    return figures


#: Statistics that are drawn as forests: name, title, label, factor, the value of no difference.
CHANCES = (
    ("probability_of_improvement", "Probability of improvement", "%; 50 is a tie", 100.0, 0.5),
    ("share_won", "Calls won", "% of calls; 50 is a tie", 100.0, 0.5),
    ("gap_closed", "Gap to the oracle closed", "% of the gap in call score", 100.0, 0.0),
)


def chance_figures(results: Results, subset: Subset) -> list[str]:
    """Chances against the reference, and how much of the oracle's lead is won."""
    figures = []
    for statistic, title, label, factor, null in CHANCES:
        rows = [
            forest_row(name, value, results.series[name].split()[0], 1, null=null, factor=factor)
            for name in results.labels
            if (value := results.comparison.find(name, subset.name, SCORE, statistic)) is not None
        ]
        if not rows:
            continue
        plot = forest(rows, title=title, label=label, null=factor * null)
        told = "; ".join(f"{row.name} {row.text} %" for row in rows)
        caption = f"Call score, {subset_title(subset)} [95 %]."
        figures.append(_figure(statistic.replace("_", "-"), plot, f"{title}: {told}", caption))
    return figures


def distribution_figures(results: Results) -> list[str]:
    """Distributions over the headline's calls, one figure per column, below a shared legend."""
    figures = [legend(results.series.items())]
    headlines = {name: results.headline(name) for name in results.labels}
    for column, label, factor, is_log in DISTRIBUTIONS:
        if column not in results.calls:
            continue
        values = {name: factor * calls[column] for name, calls in headlines.items()}
        ranked = {name: np.sort(v[np.isfinite(v)]) for name, v in values.items()}
        figures.append(_distribution(results, ranked, column, label, is_log=is_log))
    return figures


def _distribution(
    results: Results,
    sorted_by: dict[str, np.ndarray],
    column: str,
    label: str,
    *,
    is_log: bool,
) -> str:
    pooled = np.concatenate(list(sorted_by.values()))
    if len(pooled) == 0:
        return ""
    # A few calls of a bad estimator would press all others against the axis.
    low, high = np.quantile(pooled, [0.0, 0.99]).tolist()
    axis = Axis(
        low=max(low, 1.0) if is_log else low,
        high=max(high, low + 1e-6, 2.0 if is_log else -math.inf),
        label=label,
        is_log=is_log,
    )
    plot = Plot(x=axis, y=Axis(low=0.0, high=100.0, label="% of calls at or below"), width=WIDTH)
    medians = []
    for name in reversed(results.series):  # those that stand out come last, on top
        values = sorted_by[name]
        if len(values) == 0:
            continue
        shares = 100.0 * np.arange(1, len(values) + 1) / len(values)
        xs = np.concatenate([[values[0]], values])
        inside = slice(0, int(np.searchsorted(xs, axis.high, side="right")))
        curve = thinned(xs[inside], np.concatenate([[0.0], shares])[inside], CURVE_POINTS)
        plot.curve(*curve, results.series[name], label=name)
        medians.append(f"{name} {np.median(values):.3g}")
    alt = f"Cumulative distribution of {label} over calls; medians: {'; '.join(reversed(medians))}"
    caption = "The highest 1 % of all values lie beyond the right edge."
    return _figure(f"distribution-{column.replace('_', '-')}", plot, alt, caption)


def profile_figures(results: Results) -> list[str]:
    """Performance profiles with their bands (agent and reference only), below a shared legend."""
    figures = []
    for subset in results.comparison.subsets:
        profiles = {
            p.estimator: p
            for p in results.comparison.profiles
            if p.subset == subset.name and p.metric == SCORE
        }
        if not profiles:
            continue
        scores = np.concatenate([p.scores for p in profiles.values()])
        plot = Plot(
            x=Axis(low=float(scores.min()), high=float(scores.max()), label="call score τ, MOS"),
            y=Axis(low=0.0, high=100.0, label="% of calls that score above τ"),
            width=560.0,
            height=330.0,
        )
        for name in reversed(results.series):
            if name not in profiles:
                continue
            profile, series = profiles[name], results.series[name]
            if "main" in series:
                low, high = (100.0 * np.asarray(v) for v in (profile.low, profile.high))
                plot.area(profile.scores, low, high, f"area {series}")
            plot.curve(profile.scores, 100.0 * np.asarray(profile.shares), series, label=name)
        title = subset_title(subset).capitalize()
        alt = f"Performance profiles of the call score, {title}: {', '.join(profiles)}"
        name = f"profile-{subset.name.replace('/', '-').replace(' ', '-')}"
        figures.append(_figure(name, plot, alt, f"{title}; bands: 95 %, pointwise."))
    return [legend(results.series.items()), *figures] if figures else []


def _figure(name: str, plot: Plot, alt: str, caption: str) -> str:
    return figure_html(name, plot.svg(alt), caption, round(plot.width))
