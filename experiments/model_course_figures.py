"""Figures of calls that congestion is foretold in: labelled windows, and the alternating link."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bwe_env.labels import FUTURE_S, PAST_S, spike_threshold_ms
from bwe_env.units import bps_to_kbps
from experiments.model_call_tables import leads_s
from experiments.model_figures import COLORS, FAINT, Picture, paint
from experiments.model_online import Fall, falls_of
from experiments.model_report import Alternating, Example
from experiments.model_tables import number

LOSS_COLOR, ALARM_COLOR = COLORS[1], COLORS[2]
#: What of a call is drawn around a fall: the queue overflows within half a second of it. Ours.
NEAR_S = (-1.5, 3.0)
#: Lead times beyond are drawn at the ends of the histogram. Ours.
LEAD_RANGE_S = (-2.0, 2.0)
LEAD_BIN_S = 0.1


# --- Labelled windows -----------------------------------------------------------------------------


def example_picture(number_of_it: int, example: Example) -> Picture:
    """RTT and losses of a labelled window, with what the label looks at.

    Args:
        number_of_it: position among the examples, for the name of the file.
    """
    threshold_ms = float(spike_threshold_ms(np.array(example.floor_ms)))

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.axvspan(-PAST_S, 0.0, color=COLORS[5], alpha=0.16, lw=0)
        axis.axvspan(0.0, FUTURE_S, color=COLORS[4], alpha=0.16, lw=0)
        axis.plot(example.time_s, example.rtt_ms, ".-", color=COLORS[0], ms=4, lw=1.2, label="RTT")
        axis.axhline(example.floor_ms, color=FAINT, lw=1.2, label="floor")
        axis.axhline(threshold_ms, color=FAINT, ls="--", lw=1.2, label="spike from here on")
        _loss_ticks(axis, example.time_s, example.lost_packets)
        highest = float(np.nanmax([threshold_ms, *example.rtt_ms]))
        # Room for the ticks below and for the legend above.
        axis.set_ylim(min(0.0, example.floor_ms), 1.45 * highest)
        for middle, text in ((-PAST_S / 2, "past 4 s"), (FUTURE_S / 2, "next 4 s")):
            where = {"transform": axis.get_xaxis_transform(), "ha": "center", "fontsize": 9}
            axis.text(middle, 0.80, text, color="#555555", **where)
        axis.set(xlabel="time (s), 0: the prediction", ylabel="RTT (ms)", title=example.title)
        axis.set_xlim(-PAST_S, FUTURE_S)
        axis.legend(loc="upper center", ncols=4, columnspacing=1.0, handlelength=1.4)

    lost = [float(example.lost_packets[part].sum()) for part in _past_and_next(example.time_s)]
    return paint(
        draw,
        name=f"congestion-example-{number_of_it}",
        alt=f"{example.title}: RTT of floor {example.floor_ms:.0f} ms and spike threshold "
        f"{threshold_ms:.0f} ms; {lost[0]:.0f} packets lost in the past 4 s, {lost[1]:.0f} in the "
        "next.",
        caption=f"{example.title} ({example.network}): floor {number(example.floor_ms, 0, 'ms')}, "
        f"spike threshold {number(threshold_ms, 0, 'ms')}; {lost[0]:.0f} packets lost in the past "
        f"4 s and {lost[1]:.0f} in the next.",
        size_in=(5.8, 3.5),
    )


def _past_and_next(time_s: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return time_s <= 0.0, time_s > 0.0


def _loss_ticks(axis: Axes, time_s: NDArray[np.float64], lost: NDArray[np.float64]) -> None:
    """A tick at the bottom for each bin that told of losses."""
    times = time_s[lost > 0]
    transform = axis.get_xaxis_transform()
    axis.vlines(times, 0.0, 0.09, transform=transform, color=LOSS_COLOR, lw=2, label="losses")


# --- The alternating link -------------------------------------------------------------------------


def _drawn_falls(alternating: Alternating) -> list[Fall]:
    """Falls of the capacity in the call that is drawn."""
    rows = len(alternating.time_s)
    telemetry = np.zeros(rows, dtype=[("time_s", "f8"), ("lost_packets", "f8")])
    telemetry["time_s"], telemetry["lost_packets"] = alternating.time_s, alternating.lost_packets
    return falls_of(telemetry, alternating.scores, alternating.threshold)


def alternating_pictures(alternating: Alternating) -> list[Picture]:
    """One call as a whole, lead times of all falls, and one fall of the call from near."""
    falls = _drawn_falls(alternating)
    whole_s = (float(alternating.time_s[0]), float(alternating.time_s[-1]))
    pictures = [_course_picture(alternating, falls, whole_s, "alternating-call", "A whole call")]
    leads = leads_s(fall for of_seed in alternating.falls for fall in of_seed)
    if len(leads):
        pictures.append(_lead_picture(leads, alternating.false_alarms_per_minute))
    if falls:
        near = next((fall for fall in falls if np.isfinite(fall.lead_s)), falls[0])
        span_s = (near.time_s + NEAR_S[0], near.time_s + NEAR_S[1])
        title = f"The fall at {near.time_s:.0f} s from near"
        pictures.append(_course_picture(alternating, falls, span_s, "alternating-fall", title))
    return pictures


def _course_picture(
    alternating: Alternating,
    falls: Sequence[Fall],
    span_s: tuple[float, float],
    name: str,
    title: str,
) -> Picture:
    shown = [fall for fall in falls if span_s[0] <= fall.time_s <= span_s[1]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(4, 1, sharex=True)
        _draw_panels(axes, alternating, span_s)
        for axis in axes:
            _draw_events(axis, shown)
        axes[0].set_title(title, loc="left")
        axes[-1].set_xlabel("time (s)")
        axes[-1].set_xlim(*span_s)
        handles, labels = axes[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, columnspacing=1.1)

    events = "; ".join(
        f"fall at {number(fall.time_s, 1, 's')}, alarm at {number(fall.alarm_s, 1, 's')}, first "
        f"loss at {number(fall.first_loss_s, 1, 's')}"
        for fall in shown
    )
    return paint(
        draw,
        name=name,
        alt=f"Capacity and target, RTT, lost packets and prediction over time: {events}",
        caption=f"{title}: threshold {number(alternating.threshold)}. {_sentence(events)}",
        size_in=(6.6, 7.2),
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." if text else ""


def _draw_panels(
    axes: NDArray[np.object_], alternating: Alternating, span_s: tuple[float, float]
) -> None:
    # One bin more on either side, so that lines reach the edges.
    inside = (alternating.time_s >= span_s[0] - 0.1) & (alternating.time_s <= span_s[1] + 0.1)
    time_s = alternating.time_s[inside]
    marker = "." if len(time_s) < 100 else ""
    rates, delays, losses, scores = axes
    kbps = bps_to_kbps(1.0)
    # A row tells of the interval that it ends, and so do its rate and its capacity.
    capacity_kbps = alternating.capacity_bps[inside] * kbps
    rates.step(time_s, capacity_kbps, where="pre", color=FAINT, label="capacity")
    target_kbps = alternating.target_rate_bps[inside] * kbps
    rates.plot(time_s, target_kbps, color=COLORS[0], marker=marker, label="target")
    rates.set(ylabel="rate (kbps)", ylim=(0.0, None))
    rates.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2)
    delays.plot(time_s, alternating.rtt_ms[inside], color=COLORS[0], marker=marker)
    delays.set(ylabel="RTT (ms)", ylim=(0.0, None))
    lost = alternating.lost_packets[inside]
    losses.vlines(time_s, 0.0, lost, color=LOSS_COLOR, lw=1.2 if not marker else 3.0)
    losses.set(ylabel="lost (packets)", ylim=(0.0, max(1.0, 1.1 * float(lost.max()))))
    losses.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    scores.plot(time_s, alternating.scores[inside], color=COLORS[0], marker=marker)
    scores.axhline(alternating.threshold, color="black", ls=":", lw=1.2, label="threshold")
    scores.set(ylabel="prediction\n(0 to 1)", ylim=(-0.03, 1.03))
    above = alternating.scores[inside] >= alternating.threshold
    scores.fill_between(
        time_s,
        0,
        1,
        where=above.tolist(),
        step="pre",
        transform=scores.get_xaxis_transform(),
        color=ALARM_COLOR,
        alpha=0.18,
        lw=0,
        label="at or above it",
    )


def _draw_events(axis: Axes, falls: Sequence[Fall]) -> None:
    """Vertical lines where the capacity falls, the alarm comes, and the first loss is told of."""
    for index, fall in enumerate(falls):
        for at_s, color, style, label in (
            (fall.time_s, "#444444", "--", "capacity falls"),
            (fall.alarm_s, ALARM_COLOR, "-", "alarm"),
            (fall.first_loss_s, LOSS_COLOR, "-", "first loss"),
        ):
            if np.isfinite(at_s):
                axis.axvline(at_s, color=color, ls=style, lw=1.0, label=label if not index else "")


def _lead_picture(leads: NDArray[np.float64], false_alarms_per_minute: Sequence[float]) -> Picture:
    median_s = float(np.median(leads))
    rate = float(np.mean(false_alarms_per_minute)) if len(false_alarms_per_minute) else np.nan
    low, high = LEAD_RANGE_S
    outside = int(((leads < low) | (leads > high)).sum())

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        # Leads are whole bins: edges between them.
        edges = np.arange(low - LEAD_BIN_S / 2, high + LEAD_BIN_S, LEAD_BIN_S)
        axis.hist(np.clip(leads, low, high), bins=list(edges), color=COLORS[5])
        axis.axvline(0.0, color="#444444", ls="--", lw=1.2)
        axis.axvline(median_s, color=COLORS[0], label=f"median {median_s:.2f} s")
        axis.set(
            xlabel="alarm before the first loss (s)",
            ylabel="falls (count)",
            title=f"Lead time; {number(rate, 2)} false alarms per minute",
            xlim=(low - LEAD_BIN_S, high + LEAD_BIN_S),
        )
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(loc="upper left")

    ends = f"; {outside} beyond ±{high:g} s stand at the ends" if outside else ""
    return paint(
        draw,
        name="alternating-lead",
        alt=f"Histogram of {len(leads)} lead times, median {median_s:.2f} s",
        caption=f"Lead times of {len(leads)} falls, all seeds: median {median_s:.2f} s, "
        f"{number(rate, 2)} false alarms per minute (mean over seeds){ends}.",
        size_in=(4.8, 3.8),
    )
