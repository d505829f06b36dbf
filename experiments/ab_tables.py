"""A report as people read it: tables with their reading rules, and the same numbers as CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.ab_guards import DROP_MARGIN_POINTS, MARGIN_PCT, Guard
from experiments.ab_power import power_of
from experiments.ab_published import Published
from experiments.ab_report import Report
from experiments.ab_statistics import NOT_COUNTED, Change, Row
from experiments.tables import make_table

#: Changes beyond this many percent are shown without decimals.
WHOLE_PERCENT = 100.0
UNKNOWN = "-"


@dataclass(frozen=True, kw_only=True)
class Results:
    """All reports of one experiment."""

    treatment: Report
    placebo: Report | None
    published: Mapping[str, Published]
    duration_s: float
    """of every call"""
    repeating_calls: int
    """of either arm: calls that outlast their network's trace, which then repeats"""

    @property
    def reports(self) -> tuple[Report, ...]:
        """Of the treatment, and of the placebo if there is one."""
        return (self.treatment,) if self.placebo is None else (self.treatment, self.placebo)

    @property
    def conclusion(self) -> str:
        """What the experiment says, the placebo considered."""
        if self.placebo is None:
            check = "There was no placebo arm, so nothing checks that a win means anything."
        elif self.placebo.wins:
            check = (
                f"But the placebo {self.placebo.treatment} WINS too: what the treatment gains does "
                "not come from its predictions, and a win here is no evidence."
            )
        else:
            check = f"The placebo {self.placebo.treatment} does not win, as it must not."
        return f"{self.treatment.verdict} {check}"


def number(value: float, digits: int = 2) -> str:
    """A number, or `UNKNOWN` for NaN."""
    return UNKNOWN if math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float) -> str:
    """A signed change; "?" for an end that is not known."""
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "?"
    return f"{value:+.{0 if abs(value) >= WHOLE_PERCENT else 2}f}"


def p_text(value: float) -> str:
    """A p-value with as many digits as it needs."""
    if math.isnan(value):
        return UNKNOWN
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"


def change_text(change: Change | Published) -> str:
    """``change [low, high]``."""
    if math.isnan(change.change_pct):
        return "undefined"
    text = percent(change.change_pct)
    if math.isnan(change.low_pct):
        return text
    if math.isinf(change.high_pct):
        return f"{text} [?, ?]"
    return f"{text} [{percent(change.low_pct)}, {percent(change.high_pct)}]"


# --- Tables ---------------------------------------------------------------------------------------


def tables(results: Results) -> list[Any]:
    """Everything that is printed, top to bottom."""
    shown: list[Any] = [results.conclusion, _setting(results), ""]
    for report in results.reports:
        shown += [_change_table(report, results.published), *_notes(report), ""]
        shown += [_guard_table(report), ""]
    shown += [_power_table(results.treatment)]
    return shown


def _setting(results: Results) -> str:
    report = results.treatment
    repeats = f"{results.repeating_calls} of them outlast their trace, which then repeats"
    if results.repeating_calls == 0:
        repeats = "no trace repeats within a call"
    return (
        f"{report.calls} calls of {results.duration_s:g} s per arm on {report.networks} networks, "
        f"the same networks and seeds in every arm; {repeats}."
    )


def _change_table(report: Report, published: Mapping[str, Published]) -> Any:
    header = ["metric", "unit", "expected", report.control, report.treatment]
    header += ["change % [95 %]", "p", "p (Holm)", "moves"]
    if published:
        header.append("published %")
    lines = []
    for row in report.rows:
        line = _change_cells(row)
        if published:
            other = published.get(row.change.metric.name)
            line.append(UNKNOWN if other is None else change_text(other))
        lines.append(line)
    return make_table(
        f"{report.treatment} against {report.control}",
        header,
        lines,
        caption=(
            "change = 100 * (treatment / control - 1); intervals and p-values by a bootstrap of "
            "networks within their types, paired; * Holm-adjusted p < 0.05; (r) reported, not "
            "counted; ? not known"
        ),
    )


def _change_cells(row: Row) -> list[str]:
    change = row.change
    star = " *" if row.is_significant else ""
    name = change.metric.name if row.counts else f"{change.metric.name} (r)"
    return [
        name,
        change.metric.unit,
        row.direction if row.direction != "neither" else UNKNOWN,
        number(change.control),
        number(change.treatment),
        change_text(change) + star,
        p_text(change.p_value) if change.is_defined else UNKNOWN,
        p_text(row.p_holm) if change.is_defined else UNKNOWN,
        row.moves or UNKNOWN,
    ]


def _notes(report: Report) -> list[str]:
    """What has to be known about single rows."""
    names = {row.change.metric.name for row in report.rows if not row.counts}
    notes = [
        f"  {name}: not counted, {NOT_COUNTED[name]}." for name in NOT_COUNTED if name in names
    ]
    notes += [f"  {r.change.metric.name}: {r.change.note}." for r in report.rows if r.change.note]
    return notes


def _guard_table(report: Report) -> Any:
    lines = []
    for guard in report.guards:
        lines.append(
            [
                guard.name,
                change_text(guard.change),
                guard_bound(guard),
                guard.state,
                guard.note or UNKNOWN,
            ]
        )
    return make_table(
        f"guards of {report.treatment}",
        ["guard", "change % [95 %]", "at worst", "state", "note"],
        lines,
        caption=(
            f"non-inferior by {MARGIN_PCT:g} %: the one-sided 97.5 % bound to the worse must not "
            f"be beyond it; where rare drops leave that open, {DROP_MARGIN_POINTS:g} points"
        ),
    )


def guard_bound(guard: Guard) -> str:
    """How much worse it may be, and what is allowed."""
    unit = "%" if guard.unit == "%" else "points"
    if not math.isfinite(guard.bound):
        return f"unknown of {guard.margin:g} {unit}"
    return f"{guard.bound:+.2f} of {guard.margin:g} {unit}"


def _power_table(report: Report) -> Any:
    lines = []
    for row in report.rows:
        power = power_of(row.change)
        needed = power.networks_needed
        lines.append(
            [
                row.change.metric.name,
                change_text(row.change),
                number(100.0 * power.power, 0),
                f"{needed:,.0f}" if math.isfinite(needed) else UNKNOWN,
                percent(power.detectable_pct),
            ]
        )
    per_network = report.calls / report.networks
    return make_table(
        f"power, {report.treatment} against {report.control}",
        ["metric", "change % [95 %]", "power %", "networks for 80 %", "detectable %"],
        lines,
        caption=(
            "power at the observed effect and spread, one row at 5 % (it restates the p-value and "
            f"serves to plan); networks with {per_network:g} calls each; detectable: the smallest "
            "rise that this run finds with 80 % power"
        ),
    )


# --- CSV ------------------------------------------------------------------------------------------


def result_columns(results: Results) -> dict[str, list[Any]]:
    """One row per report and metric, for ``results.csv``."""
    lines = [
        _result_line(report, row, results.published)
        for report in results.reports
        for row in report.rows
    ]
    return _columns(lines)


def _result_line(report: Report, row: Row, published: Mapping[str, Published]) -> dict[str, Any]:
    change, power = row.change, power_of(row.change)
    other = published.get(change.metric.name, Published(change_pct=math.nan))
    return {
        "arm": report.treatment,
        "against": report.control,
        "metric": change.metric.name,
        "unit": change.metric.unit,
        "expected": row.direction,
        "counts": int(row.counts),
        "control": change.control,
        "treatment": change.treatment,
        "change_pct": change.change_pct,
        "low_pct": change.low_pct,
        "high_pct": change.high_pct,
        "p_value": change.p_value,
        "p_holm": row.p_holm,
        "moves": row.moves,
        "networks": change.networks,
        "calls": change.calls,
        "networks_differing": change.differing,
        "power": power.power,
        "networks_needed": power.networks_needed,
        "detectable_pct": power.detectable_pct,
        "published_change_pct": other.change_pct,
        "published_low_pct": other.low_pct,
        "published_high_pct": other.high_pct,
        "note": change.note,
    }


def guard_columns(results: Results) -> dict[str, list[Any]]:
    """One row per report and guard, for ``guards.csv``."""
    lines = [
        {
            "arm": report.treatment,
            "against": report.control,
            "guard": guard.name,
            "change_pct": guard.change.change_pct,
            "low_pct": guard.change.low_pct,
            "high_pct": guard.change.high_pct,
            "bound": guard.bound,
            "margin": guard.margin,
            "unit": guard.unit,
            "state": guard.state,
            "note": guard.note,
        }
        for report in results.reports
        for guard in report.guards
    ]
    return _columns(lines)


def _columns(lines: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [line[name] for line in lines] for name in lines[0]}
