"""Pictures of a tuning: the front of every study, and one for everybody against one per type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.model_figures import COLORS, FAINT, Picture, paint
from experiments.tuning_choice import PER_TYPE, Choice
from experiments.tuning_networks import GLOBAL
from experiments.tuning_study import Finished
from experiments.tuning_tradeoff import AXES, Place, Tradeoff, told

BLUE, VERMILION, GREEN = COLORS[:3]
#: Panels beside each other, and the size of one in inches.
PANELS_ACROSS = 3
PANEL_IN = (3.7, 3.1)
#: Axes end with this share of the trials: a few ruin the call and would squeeze the others into a
#: corner. Ours.
SHOWN_SHARE = 0.9

#: Horizontal and vertical coordinates.
_Points = tuple[list[float], list[float]]


def pareto_picture(
    finished: Mapping[str, Sequence[Finished]], choices: Mapping[str, Choice]
) -> Picture:
    """Quality over freezes of every trial, one panel per target."""
    across = min(PANELS_ACROSS, len(finished))
    down = -(-len(finished) // across)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel, (target, trials) in zip(panels, finished.items(), strict=False):
            _front(panel, trials, choices.get(target))
            panel.set_title(f"{target}, {len(trials)} trials")
        for panel in panels[len(finished) :]:
            panel.set_axis_off()
        for row in range(down):
            panels[row * across].set_ylabel("video quality (MOS)")
        for panel in panels[max(0, len(finished) - across) : len(finished)]:
            panel.set_xlabel("frozen time (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)

    return paint(
        draw,
        name="pareto",
        alt="Scatter of video quality over frozen time of every trial, one panel per network class",
        caption="Every trial on its training networks; better is up and to the left.",
        size_in=(PANEL_IN[0] * across, PANEL_IN[1] * down + 0.4),
    )


def _front(panel: Axes, trials: Sequence[Finished], choice: Choice | None) -> None:
    groups = (
        ("delay above the default's", [t for t in trials if not t.is_feasible], FAINT, 10, 0.5),
        ("delay allowed", [t for t in trials if t.is_feasible], BLUE, 14, 0.7),
    )
    for label, group, color, size, alpha in groups:
        panel.scatter(*points(group), s=size, c=color, alpha=alpha, linewidths=0, label=label)
    front = sorted((t for t in trials if t.is_efficient), key=lambda t: t.outcome.objectives())
    # Steps: between two trials nothing better than the worse of both is known.
    style = {"color": BLUE, "linewidth": 1.0, "drawstyle": "steps-post"}
    panel.plot(*points(front), label="front", zorder=1, **style)
    panel.scatter(*points(trials[:1]), marker="s", s=42, c="black", label="default", zorder=4)
    if choice is not None:
        chosen = [trials[choice.trial]]
        panel.scatter(*points(chosen), marker="*", s=130, c=VERMILION, label="chosen", zorder=5)
    kept = [trials[0], trials[0 if choice is None else choice.trial]]
    _limit_view(panel, points(trials), points(kept))


def points(trials: Sequence[Finished]) -> tuple[list[float], list[float]]:
    """Frozen time in percent, and video quality."""
    return (
        [100.0 * trial.outcome.mean("freeze_ratio") for trial in trials],
        [trial.outcome.mean("video_mos") for trial in trials],
    )


def _limit_view(panel: Axes, all_points: _Points, kept: _Points) -> None:
    """Show what must be seen (`kept`) and most of the others: the worst are left out."""
    (xs, ys), (kept_xs, kept_ys) = all_points, kept
    worst_x = max(float(np.quantile(xs, SHOWN_SHARE)), *kept_xs)
    worst_y = min(float(np.quantile(ys, 1.0 - SHOWN_SHARE)), *kept_ys)
    for set_limits, low, high in (
        (panel.set_xlim, min(*xs, *kept_xs), worst_x),
        (panel.set_ylim, worst_y, max(*ys, *kept_ys)),
    ):
        margin = 0.06 * (high - low) or 0.1
        set_limits(low - margin, high + margin)


# --- One for everybody, or one per type -----------------------------------------------------------


def tradeoff_picture(found: Tradeoff) -> Picture:
    """Trials of the global search, with the default and what was chosen; and the held-out gains."""

    def draw(figure: Figure) -> None:
        searched, held_out = figure.subplots(1, 2)
        _searched(searched, found)
        _held_out(held_out, found)
        handles, labels = searched.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)

    return paint(
        draw,
        name="tradeoff",
        alt=f"Scatter of {AXES[found.quality].label} of high-bandwidth networks over "
        f"{AXES[found.reliability].label} of low-bandwidth networks, and gains on test networks",
        caption=told(found),
        size_in=(2.4 * PANEL_IN[0], 1.5 * PANEL_IN[1]),
    )


#: Colour and marker of what was chosen, in both panels.
_CHOSEN = {GLOBAL: (BLUE, "D", "chosen global"), PER_TYPE: (VERMILION, "*", "one per type")}


def _searched(panel: Axes, found: Tradeoff) -> None:
    for label, wanted, color in (
        ("global trial, delay above the default's", False, FAINT),
        ("global trial, delay allowed", True, BLUE),
    ):
        group = [
            place
            for place, feasible in zip(found.trials, found.is_feasible, strict=True)
            if feasible is wanted
        ]
        panel.scatter(*_xy(group), s=13, c=color, alpha=0.55, linewidths=0, label=label)
    panel.scatter(*_xy([found.default]), marker="s", s=46, c="black", label="default", zorder=4)
    for place, target in ((found.chosen, GLOBAL), (found.per_type, PER_TYPE)):
        color, marker, label = _CHOSEN[target]
        size = 170 if marker == "*" else 55
        panel.scatter(
            *_xy([place]), marker=marker, s=size, c=color, edgecolors="black", label=label, zorder=5
        )
    _limit_view(panel, _xy(found.trials), _xy([found.default, found.chosen, found.per_type]))
    panel.set_title("networks of the search")
    panel.set_xlabel(f"low bandwidth: {AXES[found.reliability].label}")
    panel.set_ylabel(f"high bandwidth: {AXES[found.quality].label}")


def _held_out(panel: Axes, found: Tradeoff) -> None:
    panel.axhline(0.0, color=FAINT, linewidth=0.8)
    panel.axvline(0.0, color=FAINT, linewidth=0.8)
    panel.scatter([0.0], [0.0], marker="s", s=46, c="black", zorder=4)
    for target, (reliability, quality) in found.held_out.items():
        color, marker, _ = _CHOSEN[target]
        panel.errorbar(
            reliability.mean,
            quality.mean,
            xerr=[[reliability.mean - reliability.low], [reliability.high - reliability.mean]],
            yerr=[[quality.mean - quality.low], [quality.high - quality.mean]],
            color=color,
            marker=marker,
            markersize=13 if marker == "*" else 7,
            markeredgecolor="black",
            capsize=3,
            zorder=5,
        )
    panel.set_title("test networks, difference to the default, 95 %")
    panel.set_xlabel(f"low bandwidth: {AXES[found.reliability].label}")
    panel.set_ylabel(f"high bandwidth: {AXES[found.quality].label}")


def _xy(places: Sequence[Place]) -> tuple[list[float], list[float]]:
    return [place.reliability for place in places], [place.quality for place in places]
