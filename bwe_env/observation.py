"""The observation: a short history of intervals times the features of one table.

Every feature is something a real sender knows: what it sent, what reports told it by now, and the
state of its own GCC. Each is mapped to [-1, 1] by the range and scale in the table, so no running
normaliser is needed and a trained policy carries none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.feature_scale import Feature, Scale, markdown_table, scaled
from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.monitor import monitor_acked_rate_bps

if TYPE_CHECKING:
    from bwe_env.telemetry import NetworkModels

_Range = tuple[float, float, Scale]
_RATE: _Range = (10e3, 20e6, "log")
_DELAY_MS: _Range = (1.0, 4000.0, "log")
_LOSS: _Range = (0.002, 1.0, "log")

#: Order is part of the observation: append only, and bump the environment's version.
FEATURES: tuple[Feature, ...] = (
    Feature("target_rate", "bps", *_RATE, "the rate in force"),
    Feature("gcc_target_rate", "bps", *_RATE, "what GCC would set, or sets"),
    Feature("sent_rate", "bps", *_RATE, "sent in this interval, on the wire"),
    Feature("acked_rate", "bps", *_RATE, "reported as received, over the time it took to arrive"),
    Feature("acked_rate_max", "bps", *_RATE, "largest acked_rate, forgotten at 5 % a second"),
    Feature("loss_ratio", "1", *_LOSS, "reported lost, of all packets reported in this interval"),
    Feature("loss_ratio_slow", "1", *_LOSS, "the same, smoothed over 5 s"),
    Feature(
        "queue_delay", "ms", *_DELAY_MS, "mean one-way delay reported, above the call's minimum"
    ),
    Feature("queue_delay_min", "ms", *_DELAY_MS, "smallest in this interval, above the minimum"),
    Feature("queue_delay_slow", "ms", *_DELAY_MS, "queue_delay smoothed over 5 s"),
    Feature("delay_variation", "ms", 0.1, 400.0, "log", "mean change of delay, packet to packet"),
    Feature("rtt", "ms", *_DELAY_MS, "newest report: its arrival less the newest packet's sending"),
    Feature("base_rtt", "ms", *_DELAY_MS, "smallest such RTT of the call"),
    Feature("report_age", "ms", 10.0, 10_000.0, "log", "time since the newest report arrived"),
    Feature("pacer_queue", "ms", *_DELAY_MS, "time the pacer's queue takes at its rate"),
    Feature("nack_ratio", "1", *_LOSS, "packets asked for again, of those acknowledged"),
    Feature("gcc_trend", "1", -2.0, 2.0, "linear", "modified delay trend over its threshold"),
    Feature("gcc_detector", "1", -1.0, 1.0, "linear", "-1 under-use, 0 normal, 1 over-use"),
    Feature(
        "gcc_loss_state", "1", 0.0, 3.0, "linear", "0 up, 1 up with padding, 2 down, 3 by delay"
    ),
    Feature("gcc_in_alr", "1", 0.0, 1.0, "linear", "1 while the application limits the rate"),
    Feature("call_time", "s", 0.1, 120.0, "log", "time since the call began"),
)

NUM_FEATURES = len(FEATURES)
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)

(
    _TARGET_RATE,
    _GCC_TARGET_RATE,
    _SENT_RATE,
    _ACKED_RATE,
    _ACKED_RATE_MAX,
    _LOSS_RATIO,
    _LOSS_RATIO_SLOW,
    _QUEUE_DELAY,
    _QUEUE_DELAY_MIN,
    _QUEUE_DELAY_SLOW,
    _DELAY_VARIATION,
    _RTT,
    _BASE_RTT,
    _REPORT_AGE,
    _PACER_QUEUE,
    _NACK_RATIO,
    _GCC_TREND,
    _GCC_DETECTOR,
    _GCC_LOSS_STATE,
    _GCC_IN_ALR,
    _CALL_TIME,
) = range(NUM_FEATURES)

_LOW = tuple(feature.low for feature in FEATURES)
_HIGH = tuple(feature.high for feature in FEATURES)
_IS_LOG = tuple(feature.scale == "log" for feature in FEATURES)
_SPAN = tuple(feature.span for feature in FEATURES)

_US_TO_MS = 1e-3
_SLOW_US = 5e6  # time constant of the smoothed features
_MAX_DECAY_PER_US = 0.05e-6  # of acked_rate_max

OBSERVER = record(
    [
        ("acked_rate_bps", "f8"),  # of the newest interval with a report
        ("acked_rate_max_bps", "f8"),
        ("loss_ratio_slow", "f8"),
        ("queue_delay_ms", "f8"),  # newest known
        ("queue_delay_slow_ms", "f8"),
        ("observed_us", "i8"),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ObservationConfig:
    """How much of the past the observation shows."""

    history: int = 10
    """intervals, the newest last"""

    def __post_init__(self) -> None:
        if not (isinstance(self.history, int) and 1 <= self.history <= 100):
            raise ConfigError(
                f"observation.history={self.history!r} must be a whole number, 1..100."
            )

    def shape(self, models: NetworkModels | None = None) -> tuple[int, int]:
        """Intervals, and features of each: those of the table, then one for each model output."""
        return self.history, NUM_FEATURES + (0 if models is None else len(models.outputs))


def feature_table() -> str:
    """The table as Markdown, for docstrings and documents."""
    return markdown_table(FEATURES)


@kernel
def observer_reset(observer: Record) -> None:
    """Nothing observed."""
    observer.acked_rate_bps = 0.0
    observer.acked_rate_max_bps = 0.0
    observer.loss_ratio_slow = 0.0
    observer.queue_delay_ms = 0.0
    observer.queue_delay_slow_ms = 0.0
    observer.observed_us = 0


@kernel
def _update_observer(observer: Record, monitor: Record, now_us: int) -> None:
    elapsed_us = now_us - observer.observed_us
    observer.observed_us = now_us
    weight = 1.0 - math.exp(-elapsed_us / _SLOW_US)
    observer.acked_rate_max_bps *= math.exp(-elapsed_us * _MAX_DECAY_PER_US)
    reported = monitor.acked_packets + monitor.lost_packets
    if monitor.acked_packets > 0:
        observer.acked_rate_bps = monitor_acked_rate_bps(monitor)
        observer.acked_rate_max_bps = max(observer.acked_rate_max_bps, observer.acked_rate_bps)
        mean_us = monitor.delay_sum_us / monitor.acked_packets
        observer.queue_delay_ms = (mean_us - monitor.base_delay_us) * _US_TO_MS
    if reported > 0:
        loss_ratio = monitor.lost_packets / reported
        observer.loss_ratio_slow += weight * (loss_ratio - observer.loss_ratio_slow)
    observer.queue_delay_slow_ms += weight * (
        observer.queue_delay_ms - observer.queue_delay_slow_ms
    )


@kernel
def _normalise(index: int, value: float) -> float:
    return scaled(value, _LOW[index], _HIGH[index], _IS_LOG[index], _SPAN[index])


@kernel
def observe(
    observer: Record,
    monitor: Record,
    gcc: Record,
    target_rate_bps: float,
    pacer_queue_us: float,
    span_us: float,
    start_us: int,
    now_us: int,
    row: NDArray[np.float32],
) -> None:
    """Fill `row` (NUM_FEATURES float32 in [-1, 1]) with the interval of `span_us` that ends now.

    The sums of `monitor` must be those of exactly this interval; the flow began at `start_us`.
    """
    _update_observer(observer, monitor, now_us)
    row[_TARGET_RATE] = _normalise(_TARGET_RATE, target_rate_bps)
    row[_GCC_TARGET_RATE] = _normalise(_GCC_TARGET_RATE, float(gcc.target_rate_bps))
    row[_SENT_RATE] = _normalise(_SENT_RATE, monitor.sent_bytes * 8e6 / span_us)
    row[_ACKED_RATE] = _normalise(_ACKED_RATE, observer.acked_rate_bps)
    row[_ACKED_RATE_MAX] = _normalise(_ACKED_RATE_MAX, observer.acked_rate_max_bps)
    reported = monitor.acked_packets + monitor.lost_packets
    row[_LOSS_RATIO] = _normalise(_LOSS_RATIO, monitor.lost_packets / max(1, reported))
    row[_LOSS_RATIO_SLOW] = _normalise(_LOSS_RATIO_SLOW, observer.loss_ratio_slow)
    row[_QUEUE_DELAY] = _normalise(_QUEUE_DELAY, observer.queue_delay_ms)
    least_ms = observer.queue_delay_ms
    variation_ms = 0.0
    if monitor.acked_packets > 0:
        least_ms = (monitor.delay_min_us - monitor.base_delay_us) * _US_TO_MS
        variation_ms = monitor.delay_change_sum_us * _US_TO_MS / monitor.acked_packets
    row[_QUEUE_DELAY_MIN] = _normalise(_QUEUE_DELAY_MIN, least_ms)
    row[_QUEUE_DELAY_SLOW] = _normalise(_QUEUE_DELAY_SLOW, observer.queue_delay_slow_ms)
    row[_DELAY_VARIATION] = _normalise(_DELAY_VARIATION, variation_ms)
    row[_RTT] = _normalise(_RTT, monitor.rtt_us * _US_TO_MS)
    base_rtt_ms = 0.0
    if monitor.base_rtt_us != NEVER:
        base_rtt_ms = monitor.base_rtt_us * _US_TO_MS
    row[_BASE_RTT] = _normalise(_BASE_RTT, base_rtt_ms)
    row[_REPORT_AGE] = _normalise(_REPORT_AGE, (now_us - monitor.report_us) * _US_TO_MS)
    row[_PACER_QUEUE] = _normalise(_PACER_QUEUE, pacer_queue_us * _US_TO_MS)
    nack_ratio = monitor.nacked_packets / max(1, monitor.acked_packets)
    row[_NACK_RATIO] = _normalise(_NACK_RATIO, nack_ratio)
    trendline = gcc.trendline
    trend = 0.0
    if trendline.num_deltas >= 2:  # undefined before
        trend = trendline.modified_trend / trendline.threshold
    row[_GCC_TREND] = _normalise(_GCC_TREND, trend)
    # libwebrtc numbers the states normal 0, under-use 1, over-use 2.
    detector = 0.0
    if trendline.state == 1:
        detector = -1.0
    elif trendline.state == 2:
        detector = 1.0
    row[_GCC_DETECTOR] = _normalise(_GCC_DETECTOR, detector)
    row[_GCC_LOSS_STATE] = _normalise(_GCC_LOSS_STATE, float(gcc.loss_based.state))
    row[_GCC_IN_ALR] = _normalise(_GCC_IN_ALR, float(gcc.alr.in_alr))
    row[_CALL_TIME] = _normalise(_CALL_TIME, (now_us - start_us) * 1e-6)
