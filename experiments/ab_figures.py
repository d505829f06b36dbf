"""The forest plot of an A/B test: every change with its interval, on one axis of percent."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.ab_guards import MARGIN_PCT
from experiments.ab_published import Published
from experiments.ab_statistics import Change
from experiments.ab_tables import Results, change_text, guard_bound
from experiments.model_figures import COLORS, FAINT, Picture, paint

#: The axis is linear up to here and logarithmic beyond, so that 0.3 % and 60 % are both readable.
LINEAR_PCT = 1.0
TICKS_PCT = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100)
#: Ends beyond the axis are drawn as arrows at its edge.
EDGE_PCT = 200.0
TREATMENT, PUBLISHED, PLACEBO = COLORS[0], COLORS[1], FAINT
WIDTH_IN = 11.0
ROW_IN = 0.42
FRAME_IN = 2.2
ARROWS = {"higher": "higher is better", "lower": "lower is better", "neither": ""}


def forest_picture(results: Results) -> Picture:
    """Changes of treatment, placebo and publication; below them the guards and their margin."""
    rows, guards = len(results.treatment.rows), len(results.treatment.guards)
    height_in = FRAME_IN + ROW_IN * (rows + guards)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, 1, height_ratios=[rows, guards])
        _draw_changes(axes[0], results)
        _draw_guards(axes[1], results)
        figure.suptitle(_title(results), x=0.01, ha="left", fontsize=12, fontweight="bold")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=len(labels))

    return paint(
        draw,
        name="results",
        alt="Forest plot: relative change of each metric with its 95 % interval.",
        caption=results.conclusion,
        size_in=(WIDTH_IN, height_in),
    )


def _title(results: Results) -> str:
    report = results.treatment
    verdict = "wins" if report.wins else "does not win"
    if results.placebo is not None and results.placebo.wins:
        verdict += ", but so does the placebo"
    return (
        f"{report.treatment} against {report.control}: {verdict}\n"
        f"{report.calls} paired calls of {results.duration_s:g} s on {report.networks} networks"
    )


def _draw_changes(axis: Axes, results: Results) -> None:
    series = [(results.treatment, TREATMENT, -0.22, f"{results.treatment.treatment}, 95 %")]
    if results.placebo is not None:
        series.append((results.placebo, PLACEBO, 0.22, f"{results.placebo.treatment} (placebo)"))
    for report, color, shift, label in series:
        for position, row in enumerate(report.rows):
            _draw_interval(axis, position + shift, row.change, color, filled=row.is_significant)
        axis.plot([], [], "o-", color=color, label=label)
    for position, row in enumerate(results.treatment.rows):
        if (other := results.published.get(row.change.metric.name)) is not None:
            _draw_interval(axis, position, other, PUBLISHED, filled=True, marker="D")
    if results.published:
        axis.plot([], [], "D-", color=PUBLISHED, label="published")
    axis.plot([], [], "o", color="black", mfc="white", label="hollow: Holm-adjusted p ≥ 0.05")
    rows = results.treatment.rows
    names = [row.change.metric.name + ("" if row.counts else " (not counted)") for row in rows]
    hints = [ARROWS[row.direction] for row in rows]
    _label(axis, names, hints, [change_text(row.change) for row in rows])
    axis.set_title(
        "relative change to the control, percent (linear within ±1, logarithmic beyond)",
        loc="left",
        fontsize=9,
    )


def _draw_guards(axis: Axes, results: Results) -> None:
    """Guards, each turned so that the right is worse: the shade is what no bound may enter."""
    guards = results.treatment.guards
    axis.axvspan(MARGIN_PCT, EDGE_PCT, color=COLORS[1], alpha=0.12, lw=0)
    for position, guard in enumerate(guards):
        change: Change | Published = guard.change
        if guard.change.metric.better == "higher":
            change = Published(
                change_pct=-guard.change.change_pct,
                low_pct=-guard.change.high_pct,
                high_pct=-guard.change.low_pct,
            )
        color = TREATMENT if guard.state == "holds" else COLORS[1]
        _draw_interval(axis, position, change, color, filled=guard.state == "holds", marker="s")
    names = [guard.name for guard in guards]
    _label(axis, names, [guard.state for guard in guards], [f"≤ {guard_bound(g)}" for g in guards])
    axis.set_title(
        f"guards: change to the worse, percent; an interval that reaches the shade (beyond "
        f"{MARGIN_PCT:g} %) does not hold",
        loc="left",
        fontsize=9,
    )


def _draw_interval(
    axis: Axes,
    position: float,
    change: Change | Published,
    color: str,
    *,
    filled: bool,
    marker: str = "o",
) -> None:
    if math.isnan(change.change_pct):
        return
    low, middle, high = np.clip(
        np.nan_to_num(
            [change.low_pct, change.change_pct, change.high_pct],
            nan=change.change_pct,
            posinf=2 * EDGE_PCT,
            neginf=-2 * EDGE_PCT,
        ),
        -EDGE_PCT,
        EDGE_PCT,
    )
    axis.plot([low, high], [position, position], "-", color=color, lw=1.8)
    for end, arrow in ((low, "<"), (high, ">")):
        if abs(end) >= EDGE_PCT:
            axis.plot([end], [position], arrow, color=color, ms=6, clip_on=False)
    face = color if filled else "white"
    axis.plot([middle], [position], marker, color=color, mfc=face, ms=6, zorder=4)


def _label(axis: Axes, names: list[str], hints: list[str], values: list[str]) -> None:
    """Names on the left, values on the right, zero in the middle, the first row on top."""
    axis.set_yticks(range(len(names)))
    labels = [f"{name}\n{hint}" if hint else name for name, hint in zip(names, hints, strict=True)]
    axis.set_yticklabels(labels, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.axvline(0.0, color="black", lw=0.9)
    axis.set_xscale("symlog", linthresh=LINEAR_PCT, linscale=1.0)
    axis.set_xlim(-EDGE_PCT, EDGE_PCT)
    axis.set_xticks(TICKS_PCT, [f"{tick:+d}" if tick else "0" for tick in TICKS_PCT])
    axis.minorticks_off()
    axis.grid(axis="y", visible=False)
    for position, text in enumerate(values):
        axis.annotate(
            text,
            (1.01, position),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            va="center",
            annotation_clip=False,
        )
