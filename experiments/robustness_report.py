"""What a robustness sweep came to: columns, tables, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from bwe_env.units import bps_to_mbps
from experiments.evaluation import SHOWN, Calls, Shown, difference, interval
from experiments.model_figures import COLORS, FAINT, Picture, paint
from experiments.robustness_networks import AXES, Point
from experiments.stats import Interval
from experiments.tables import make_table

if TYPE_CHECKING:
    from experiments.robustness import RobustnessConfig

#: By point and label; GCC's label comes first at each point.
Sweep = Mapping[tuple[Point, str], Calls]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of calls, and which way is better."""

    column: str
    more_is_better: bool

    @property
    def shown(self) -> Shown:
        """As tables show it."""
        return next(shown for shown in SHOWN if shown.column == self.column)

    def is_worse(self, value: Interval) -> bool:
        """Whether the whole interval of a difference lies on the wrong side of 0."""
        return value.high < 0.0 if self.more_is_better else value.low > 0.0


METRICS = (
    Metric(column="call_score", more_is_better=True),
    Metric(column="freeze_ratio", more_is_better=False),
    Metric(column="one_way_delay_ms_p95", more_is_better=False),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One controller at one point by one metric."""

    point: Point
    label: str
    metric: Metric
    own: Interval
    minus_gcc: Interval
    fallback_share: float
    """of the time, under a guard; NaN without one"""

    @property
    def is_worse(self) -> bool:
        """Falls below GCC."""
        return self.metric.is_worse(self.minus_gcc)


def results(sweep: Sweep) -> Iterator[Result]:
    """Of all controllers but GCC, point by point."""
    reference = next(iter(sweep))[1]
    for (point, label), calls in sweep.items():
        if label == reference:
            continue
        for metric in METRICS:
            yield Result(
                point=point,
                label=label,
                metric=metric,
                own=interval(calls, metric.shown),
                minus_gcc=difference(calls, sweep[point, reference], metric.shown),
                fallback_share=float(np.mean(calls["fallback_share"])),
            )


def result_columns(sweep: Sweep) -> dict[str, list[Any]]:
    """One row per point, controller and metric, for a CSV file; in the units of the tables."""
    names = (
        *("axis", "value", "controller", "metric", "mean", "low", "high"),
        *("minus_gcc", "minus_gcc_low", "minus_gcc_high"),
        *("below_gcc", "fallback_share", "networks"),
    )
    rows = [
        (
            *(r.point.axis, r.point.value, r.label, r.metric.shown.header),
            *(r.own.mean, r.own.low, r.own.high),
            *(r.minus_gcc.mean, r.minus_gcc.low, r.minus_gcc.high),
            *(r.is_worse, r.fallback_share, r.minus_gcc.networks),
        )
        for r in results(sweep)
    ]
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def tables(sweep: Sweep, config: RobustnessConfig) -> list[Any]:
    """One table per controller, and a line that says where it falls below GCC."""
    found = list(results(sweep))
    items: list[Any] = [
        f"{config.networks} synthetic test networks, {config.seeds} call(s) of "
        f"{config.duration_s:g} s on each; at most {bps_to_mbps(config.max_rate_bps):g} Mbps for "
        "every controller, whatever the capacity. Paired differences to GCC, mean over networks "
        "[95 % bootstrap interval]; (!) marks intervals wholly on the wrong side of 0."
    ]
    for label in dict.fromkeys(result.label for result in found):
        own = [result for result in found if result.label == label]
        items += [_table(label, own), _verdict(label, own)]
    if not found:
        items.append("GCC alone: give --estimators to compare with it")
    return items


def _table(label: str, found: list[Result]) -> Any:
    by_point: dict[Point, list[Result]] = {}
    for result in found:
        by_point.setdefault(result.point, []).append(result)
    rows = []
    for point, cells in by_point.items():
        share = cells[0].fallback_share
        rows.append(
            [
                f"{AXES[point.axis].title} {AXES[point.axis].shown(point.value)}",
                *(
                    r.minus_gcc.text(r.metric.shown.digits) + (" (!)" if r.is_worse else "")
                    for r in cells
                ),
                "-" if np.isnan(share) else f"{100 * share:.1f}",
            ]
        )
    header = ["networks", *(metric.shown.header for metric in METRICS), "GCC drives %"]
    return make_table(f"{label} - gcc", header, rows)


def _verdict(label: str, found: list[Result]) -> str:
    worse = []
    for metric in METRICS:
        where = [
            f"{AXES[r.point.axis].title} {AXES[r.point.axis].shown(r.point.value)}"
            for r in found
            if r.metric is metric and r.is_worse
        ]
        worse.append(f"in {metric.shown.header}: {', '.join(where) or 'not shown anywhere'}")
    return f"{label} is shown to fall below GCC {'; '.join(worse)}"


# --- Figures --------------------------------------------------------------------------------------

#: Size of one panel in inches.
PANEL_IN = (3.2, 2.6)


def figures(sweep: Sweep) -> list[Picture]:
    """One per metric: differences to GCC over each axis."""
    found = list(results(sweep))
    return [
        _figure(metric, [r for r in found if r.metric is metric]) for metric in METRICS if found
    ]


def _figure(metric: Metric, found: list[Result]) -> Picture:
    axes = list(dict.fromkeys(result.point.axis for result in found))
    colors = dict(zip(dict.fromkeys(r.label for r in found), COLORS, strict=False))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(axes), squeeze=False, sharey=True).ravel()
        for panel, name in zip(panels, axes, strict=True):
            axis = AXES[name]
            panel.axhline(0.0, color=FAINT, linewidth=1.0)
            for label, color in colors.items():
                own = [r for r in found if r.label == label and r.point.axis == name]
                places = list(range(len(own)))  # evenly apart: the values are near-geometric
                low, high = ([getattr(r.minus_gcc, end) for r in own] for end in ("low", "high"))
                panel.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
                means = [r.minus_gcc.mean for r in own]
                panel.plot(places, means, color=color, marker="o", markersize=3, label=label)
            panel.set_xticks(range(len(axis.values)), [axis.shown(value) for value in axis.values])
            panel.set_xlabel(axis.title)
        panels[0].set_ylabel(f"{metric.shown.header}, minus GCC's")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4)

    better = "above" if metric.more_is_better else "below"
    return paint(
        draw,
        name=f"robustness-{metric.column}",
        alt=f"Paired difference to GCC in {metric.shown.header} over each axis of the sweep",
        caption=f"Bands are 95 % intervals; {better} 0 is better than GCC.",
        size_in=(PANEL_IN[0] * len(axes), PANEL_IN[1] + 0.4),
    )
