"""Timelines of chosen calls: the agent and the reference side by side, on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.config import CallConfig
from experiments.page import figure_html
from experiments.results_calls import ChosenCall, PlayedCall
from experiments.svg import Axis, Plot, legend, svg_element

#: Of one call's figure, in CSS pixels: two stand side by side on a laptop.
WIDTH = 588.0
#: Heights of the panels: rates, queue delay, losses, outputs of network models.
RATE_HEIGHT, PANEL_HEIGHT = 190.0, 110.0

TARGET, RECEIVED, DELAY = "s4", "s0 main", "s6"
#: Causes of loss from the axis up: column, series, name.
LOSSES = (
    ("queue_loss_ratio", "s1", "queue overflow"),
    ("aqm_loss_ratio", "s4", "AQM"),
    ("policer_loss_ratio", "s6", "policer"),
    ("random_loss_ratio", "s3", "random"),
)
#: Series of network-model outputs, by turns.
OUTPUTS = ("s0", "s1", "s2", "s3", "s4", "s5", "s6")


def timeline_figures(
    chosen: Sequence[ChosenCall],
    played: dict[str, tuple[PlayedCall, PlayedCall]],
    call: CallConfig,
) -> list[str]:
    """One figure per chosen call, agent and reference side by side, below a shared legend."""
    if not played:
        return []
    figures = [_legend(played)]
    for position, one in enumerate(chosen):
        pair = played[one.network]
        limits = _Limits.of(pair, call)
        pictures = "\n".join(f'<div class="wide">{_call_svg(p, limits, one)}</div>' for p in pair)
        what = f"{one.reason}, {one.difference:+.2f} in call score"
        caption = f"{one.network} ({one.network_type}): {what}."
        content = f'<div class="pair">\n{pictures}\n</div>'
        figures.append(figure_html(f"timeline-{position}", content, caption, 2 * round(WIDTH) + 16))
    return figures


def _legend(played: dict[str, tuple[PlayedCall, PlayedCall]]) -> str:
    names = [("target rate", TARGET), ("received rate", RECEIVED), ("queue delay", DELAY)]
    areas = [("capacity", "band"), ("frozen", "bad")]
    causes = [(f"loss: {name}", f"solid {series}") for _, series, name in LOSSES]
    outputs = sorted({name for pair in played.values() for one in pair for name in one.outputs})
    models = [
        (f"model: {name.replace('_', ' ')}", OUTPUTS[i % len(OUTPUTS)])
        for i, name in enumerate(outputs)
    ]
    return legend([*areas, *names, *causes, *models])


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """Axes that the two figures of a call share."""

    end_s: float
    rate_kbps: float
    delay_ms: float
    loss_pct: float

    @classmethod
    def of(cls, pair: tuple[PlayedCall, PlayedCall], call: CallConfig) -> _Limits:
        steps = np.concatenate([one.steps for one in pair])
        used = max(float(np.nanmax(steps[n])) for n in ("target_rate_bps", "receive_rate_bps"))
        capacity = min(float(np.nanmax(steps["capacity_bps"])), call.max_rate_bps)
        lost = sum(np.nan_to_num(steps[column]) for column, _, _ in LOSSES)
        return cls(
            end_s=call.duration_s,
            rate_kbps=1.05 * max(min(used, 2.0 * capacity), capacity) / 1e3,
            delay_ms=max(50.0, 1.05 * float(np.nanmax(steps["queue_delay_ms"]))),
            loss_pct=max(5.0, min(100.0, 105.0 * float(np.max(lost)))),
        )


def _call_svg(one: PlayedCall, limits: _Limits, chosen: ChosenCall) -> str:
    """Panels below each other: rates, queue delay, losses, and what network models say."""
    panels = [
        _rate_panel(one, limits),
        _panel(one, limits, "queue delay, ms", limits.delay_ms),
        _panel(one, limits, "lost packets, %", limits.loss_pct),
    ]
    panels[1].curve(one.steps["time_s"], one.steps["queue_delay_ms"], DELAY)
    _add_losses(panels[2], one)
    if one.outputs:
        panels.append(_panel(one, limits, "network models", 1.0))
        for i, name in enumerate(sorted(one.outputs)):
            series = OUTPUTS[i % len(OUTPUTS)]
            panels[-1].curve(one.steps["time_s"], one.outputs[name], series, label=name)
    panels[-1].x = Axis(low=0.0, high=limits.end_s, label="time, s")
    panels[-1].below, panels[-1].height = 40.0, panels[-1].height + 18.0
    inside, top = [], 0.0
    for panel in panels:
        inside.append(panel.group(top=top))
        top += panel.height
    return svg_element(WIDTH, top, "".join(inside), _call_alt(one, chosen))


def _panel(one: PlayedCall, limits: _Limits, label: str, high: float, **options: Any) -> Plot:
    """An empty panel with the frozen spans and the end of a dropped call."""
    plot = Plot(
        x=Axis(low=0.0, high=limits.end_s),
        y=Axis(low=0.0, high=high, label=label),
        **{"width": WIDTH, "height": PANEL_HEIGHT, "below": 22.0, "above": 22.0} | options,
    )
    for begin_s, end_s in frozen_spans(one.steps):
        plot.span(begin_s, end_s, "bad")
    if one.dropped:
        end_s = float(one.steps["time_s"][-1])
        plot.rule(x=end_s)
        plot.words(end_s, 0.8 * high, "dropped", anchor="end")
    return plot


def _rate_panel(one: PlayedCall, limits: _Limits) -> Plot:
    steps = one.steps
    plot = _panel(
        one,
        limits,
        "kbps",
        limits.rate_kbps,
        height=RATE_HEIGHT + 18.0,
        above=40.0,
        title=one.label,
    )
    time_s, capacity = steps["time_s"], steps["capacity_bps"] / 1e3
    interval_s = float(time_s[1] - time_s[0]) if len(time_s) > 1 else 0.0
    edges = np.repeat(np.append(time_s[0] - interval_s, time_s), 2)[1:-1]
    highs = np.repeat(capacity, 2)
    plot.area(edges, np.zeros_like(highs), highs, "band")
    plot.marks.insert(0, plot.marks.pop())  # the capacity lies below what is frozen
    plot.curve(time_s, steps["target_rate_bps"] / 1e3, TARGET, label="target rate")
    plot.curve(time_s, steps["receive_rate_bps"] / 1e3, RECEIVED, label="received rate")
    return plot


def _add_losses(plot: Plot, one: PlayedCall) -> None:
    """Losses by cause, stacked on each other, as columns of one interval."""
    below = np.zeros(len(one.steps))
    for column, series, name in LOSSES:
        above = below + 100.0 * np.nan_to_num(one.steps[column])
        for time_s, low, high in zip(one.steps["time_s"], below, above, strict=True):
            if high > low:
                plot.column(float(time_s), float(low), float(high), series, label=name)
        below = above


def frozen_spans(steps: NDArray[Any]) -> list[tuple[float, float]]:
    """Begin and end of every run of intervals that were frozen for at least half, in seconds."""
    frozen = np.nan_to_num(steps["frozen_ratio"]) >= 0.5
    time_s = steps["time_s"]
    interval_s = float(time_s[1] - time_s[0]) if len(time_s) > 1 else 0.0
    edges = np.diff(np.concatenate([[0], frozen.astype(np.int8), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [
        (float(time_s[b]) - interval_s, float(time_s[e - 1]))
        for b, e in zip(begins, ends, strict=True)
    ]


def _call_alt(one: PlayedCall, chosen: ChosenCall) -> str:
    steps = one.steps
    received = float(np.nanmean(steps["receive_rate_bps"])) / 1e3
    frozen = 100.0 * float(np.nanmean(steps["frozen_ratio"]))
    delay = float(np.nanmean(steps["queue_delay_ms"]))
    return (
        f"{one.label} on {chosen.network}: received {received:.0f} kbps, queue delay {delay:.0f} "
        f"ms, frozen {frozen:.1f} % of the time" + (", dropped" if one.dropped else "")
    )


#: What the page needs beside the styles of all pages and of plots: wide tables, pairs of calls.
STYLE = """
th, td { padding: 0.3rem 0.5rem; }
table { font-size: 0.85rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
  gap: 0.6rem 1rem; }
.wide { overflow-x: auto; min-width: 0; }
.wide svg { min-width: 33rem; }
"""
