"""Tables of a page of results; every number of them is one of ``compare.json``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from experiments.compare_results import ComparedMetric, NonInferiority, Subset, Value
from experiments.page import SURE, UNKNOWN, ReportTable
from experiments.results_data import Results

#: What stands above tables of parts.
PART_TITLES = {"network_type": "network type", "bandwidth": "bandwidth class"}
CALLS_TITLES = {"contested": "capacity-limited calls", "all": "all calls"}

#: Statistics of the call score beside its mean: name, header, factor, digits.
_OTHER_STATISTICS = (
    ("mean", "mean", 1.0, 2),
    ("mean_equal_types", "mean, types equal", 1.0, 2),
    ("iqm", "interquartile mean", 1.0, 2),
    ("iqm_equal_types", "IQM, types equal", 1.0, 2),
    ("probability_of_improvement", "P(improvement) %", 100.0, 1),
    ("share_won", "calls won %", 100.0, 1),
    ("gap_closed", "gap closed %", 100.0, 0),
)
SCORE = "call_score"


def subset_title(subset: Subset) -> str:
    """How a subset is called in headings."""
    calls = CALLS_TITLES.get(subset.calls, subset.calls)
    return f"{subset.part}, {calls}" if subset.part else calls


def value_cell(value: Value | None, digits: int, *, factor: float = 1.0, sign: str = "") -> str:
    """``value [low, high]``; without the interval where there is none, "–" without a value.

    Args:
        sign: "+" for differences, which show theirs.
    """
    if value is None or not math.isfinite(value.value):
        return UNKNOWN
    texts = [
        f"{factor * v:{sign}.{digits}f}" if math.isfinite(v) else UNKNOWN
        for v in (value.value, value.low, value.high)
    ]
    if texts[1] == texts[2] == UNKNOWN:
        return texts[0]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def best_label(results: Results, subset: str, metric: ComparedMetric) -> str | None:
    """The estimator with the best mean, oracles apart; None where no direction is better."""
    if metric.better == "neither":
        return None
    means = {
        label: value.value
        for label in results.labels
        if not results.is_oracle(label)
        and (value := results.comparison.find(label, subset, metric.name, "mean")) is not None
        and math.isfinite(value.value)
    }
    choose: Callable[..., str] = max if metric.better == "higher" else min
    return choose(means, key=means.__getitem__) if means else None


def summary_table(results: Results, subset: Subset) -> ReportTable:
    """Means of all estimators on a subset, the best of each metric marked."""
    comparison = results.comparison
    best = {m.name: best_label(results, subset.name, m) for m in comparison.metrics}
    rows = []
    for label in results.labels:
        cells = [
            value_cell(comparison.find(label, subset.name, m.name, "mean"), m.digits)
            + (SURE if best[m.name] == label else "")
            for m in comparison.metrics
        ]
        rows.append([label, *cells])
    return ReportTable(
        title=f"{subset_title(subset).capitalize()}: {subset.networks} networks, "
        f"{subset.num_calls:,} calls per estimator and run",
        header=["estimator", *(_arrow(m) for m in comparison.metrics)],
        rows=rows,
        caption="Mean over networks [95 % interval]. ↑ higher is better, ↓ lower is better. "
        "* the best mean of those that do not know the capacity.",
    )


def _arrow(metric: ComparedMetric) -> str:
    return metric.header + {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")


def is_gain(value: Value, metric: ComparedMetric) -> bool | None:
    """Whether a difference is surely better (True) or surely worse (False); None if neither."""
    if not value.excludes_zero or metric.better == "neither":
        return None
    return (value.value > 0.0) == (metric.better == "higher")


def difference_table(results: Results, subset: Subset) -> ReportTable:
    """Paired differences of all estimators to the reference."""
    comparison = results.comparison
    rows = []
    for label in results.labels:
        if label == comparison.reference:
            continue
        cells = [_difference_cell(results, label, subset, m) for m in comparison.metrics]
        rows.append([label, *cells])
    return ReportTable(
        title=f"Paired differences to {comparison.reference}, {subset_title(subset)}",
        header=["estimator", *(_arrow(m) for m in comparison.metrics)],
        rows=rows,
        caption="Mean over networks of the difference on the same calls [95 % interval]. "
        "* the interval excludes zero, without a correction for how many there are.",
    )


def _difference_cell(results: Results, label: str, subset: Subset, metric: ComparedMetric) -> str:
    value = results.comparison.find(label, subset.name, metric.name, "difference")
    is_sure = value is not None and value.excludes_zero
    return value_cell(value, metric.digits, sign="+") + (SURE if is_sure else "")


def score_table(results: Results, subset: Subset) -> ReportTable | None:
    """The call score by other statistics; those that nobody has are left out."""
    find = results.comparison.find
    known = [
        s
        for s in _OTHER_STATISTICS
        if any(find(label, subset.name, SCORE, s[0]) for label in results.labels)
    ]
    if not known:
        return None
    rows = [
        [
            label,
            *(
                value_cell(find(label, subset.name, SCORE, name), digits, factor=factor)
                for name, _, factor, digits in known
            ),
        ]
        for label in results.labels
    ]
    oracle = results.comparison.oracle
    gap = f" Gap closed: share of the way from {results.comparison.reference} to {oracle}."
    return ReportTable(
        title=f"Call score by other statistics, {subset_title(subset)}",
        header=["estimator", *(header for _, header, _, _ in known)],
        rows=rows,
        caption="P(improvement): chance that a call of the estimator scores above one of "
        f"{results.comparison.reference} on the same network; 50 % is a tie. Calls won: share of "
        "calls that score above the same call of the reference, equal ones count half."
        + (gap if oracle else ""),
    )


def parts_of(results: Results, by: str) -> list[Subset]:
    """Subsets of one kind of part among the headline's calls, in the order of the comparison."""
    headline = results.comparison.subsets[0].calls
    return [s for s in results.comparison.subsets if s.by == by and s.calls == headline]


def part_table(results: Results, by: str) -> ReportTable:
    """Mean call score of all estimators by part, the best of each row marked."""
    metric = results.metric(SCORE)
    rows = []
    for subset in parts_of(results, by):
        best = best_label(results, subset.name, metric)
        cells = []
        for label in results.labels:
            value = results.comparison.find(label, subset.name, SCORE, "mean")
            mean = f"{value.value:.{metric.digits}f}" if value is not None else UNKNOWN
            cells.append(mean + (SURE if label == best else ""))
        rows.append([subset.part, str(subset.networks), *cells])
    return ReportTable(
        title=f"Mean call score by {PART_TITLES[by]}",
        header=[PART_TITLES[by], "networks", *results.labels],
        rows=rows,
        caption="* the best of those that do not know the capacity.",
    )


def agent_part_table(results: Results, by: str) -> ReportTable | None:
    """Paired differences of the agent to the reference by part."""
    if results.agent is None:
        return None
    metrics = results.comparison.metrics
    rows = [
        [
            subset.part,
            str(subset.networks),
            *(_difference_cell(results, results.agent, subset, m) for m in metrics),
        ]
        for subset in parts_of(results, by)
    ]
    return ReportTable(
        title=f"{results.agent} − {results.comparison.reference} by {PART_TITLES[by]}",
        header=[PART_TITLES[by], "networks", *(_arrow(m) for m in metrics)],
        rows=rows,
        caption="Paired, mean over networks [95 % interval]; * it excludes zero.",
    )


def non_inferiority_tables(results: Results) -> list[ReportTable]:
    """Whether the agent is nowhere worse by a margin: a table for each kind of calls asked for."""
    subsets = {subset.name: subset for subset in results.comparison.subsets}
    asked = [n for n in results.comparison.non_inferiority if n.estimator == results.agent]
    tables = []
    for calls in dict.fromkeys(subsets[outcome.subset].calls for outcome in asked):
        rows = [
            _non_inferiority_row(results, outcome, subsets[outcome.subset].part)
            for outcome in asked
            if subsets[outcome.subset].calls == calls
        ]
        title = f"Is {results.agent} nowhere worse than {results.comparison.reference}?"
        tables.append(
            ReportTable(
                title=f"{title} {CALLS_TITLES.get(calls, calls).capitalize()}",
                header=["network type", "metric", "difference", "margin", "p (Holm)", "verdict"],
                rows=rows,
                caption="Non-inferiority by the margin, one-sided; p-values are adjusted over "
                "types and metrics.",
            )
        )
    return tables


def _non_inferiority_row(results: Results, outcome: NonInferiority, part: str) -> list[str]:
    metric = results.metric(outcome.metric)
    ends = [
        f"{v:+.{metric.digits}f}" if math.isfinite(v) else UNKNOWN
        for v in (outcome.difference, outcome.low, outcome.high)
    ]
    return [
        part or "all",
        metric.header,
        f"{ends[0]} [{ends[1]}, {ends[2]}]",
        f"{outcome.margin:.{metric.digits}f}",
        f"{outcome.p_holm:.3g}" if math.isfinite(outcome.p_holm) else UNKNOWN,
        "holds" if outcome.is_non_inferior else "not shown",
    ]


def run_table(results: Results) -> ReportTable | None:
    """Each training run against the reference."""
    if not results.comparison.runs:
        return None
    subsets = {subset.name: subset_title(subset) for subset in results.comparison.subsets}
    rows = [
        [
            f"{run.estimator}, {run_name(run.run)}",
            subsets.get(run.subset, run.subset),
            f"{run.score:+.2f} [{run.score_low:+.2f}, {run.score_high:+.2f}]",
            f"{run.freeze:+.2f}",
            f"{run.delay:+.0f}",
            "beats it" if run.beats else "does not",
        ]
        for run in results.comparison.runs
    ]
    reference = results.comparison.reference
    return ReportTable(
        title=f"Each training run against {reference}",
        header=["run", "calls", "call score ↑", "freeze, points ↓", "delay p95, ms ↓", "verdict"],
        rows=rows,
        caption=f"Differences to {reference}. A run beats it if the interval of the score lies "
        "above zero, it freezes less, and its delay is not higher.",
    )


def run_name(run: str) -> str:
    """A run by the name of its folder: where it lies is nobody's business."""
    return run.rstrip("/").rpartition("/")[2]


def present(tables: Sequence[ReportTable | None]) -> list[ReportTable]:
    """The tables that there are."""
    return [table for table in tables if table is not None and table.rows]
