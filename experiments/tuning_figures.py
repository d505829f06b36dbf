"""Pictures of a tuning: the front of every study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.model_figures import COLORS, FAINT, Picture, paint
from experiments.tuning_choice import Choice
from experiments.tuning_study import Finished

BLUE, VERMILION, GREEN = COLORS[:3]
#: Panels beside each other, and the size of one in inches.
PANELS_ACROSS = 3
PANEL_IN = (3.7, 3.1)
#: The axis of freezes ends with this share of the trials: a few ruin the call and would squeeze the
#: others into a corner.
SHOWN_SHARE = 0.9


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
    panel.plot(*points(front), color=BLUE, linewidth=1.0, label="front", zorder=1)
    panel.scatter(*points(trials[:1]), marker="s", s=42, c="black", label="default", zorder=4)
    if choice is not None:
        chosen = [trials[choice.trial]]
        panel.scatter(*points(chosen), marker="*", s=130, c=VERMILION, label="chosen", zorder=5)
    limit_view(panel, trials)


def points(trials: Sequence[Finished]) -> tuple[list[float], list[float]]:
    """Frozen time in percent, and video quality."""
    return (
        [100.0 * trial.outcome.mean("freeze_ratio") for trial in trials],
        [trial.outcome.mean("video_mos") for trial in trials],
    )


def limit_view(panel: Axes, trials: Sequence[Finished]) -> None:
    """Show the default, and the most of the trials around it."""
    for values, set_limits in zip(points(trials), (panel.set_xlim, panel.set_ylim), strict=True):
        ordered = sorted(values)
        cut = round((1.0 - SHOWN_SHARE) * (len(ordered) - 1))
        is_x = set_limits == panel.set_xlim
        low = ordered[0] if is_x else min(ordered[cut], values[0])
        high = max(ordered[-1 - cut], values[0]) if is_x else ordered[-1]
        margin = 0.06 * (high - low) or 0.1
        set_limits(low - margin, high + margin)
