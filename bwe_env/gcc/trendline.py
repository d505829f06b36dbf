"""The slope of the queueing delay over time, and the over-use detector on top of it.

Follows GCC/trendline_estimator.cc of libwebrtc M150 (no sorting of the window, no slope cap: both
are off by default).
"""

from __future__ import annotations

import math

from bwe_env.gcc.parameters import MAX_TRENDLINE_WINDOW
from bwe_env.sim._jit import Record, kernel, record

#: The detector's hypothesis (BandwidthUsage, api/transport/bandwidth_usage.h).
NORMAL, UNDERUSING, OVERUSING = 0, 1, 2

#: Where the counter of deltas stops (kDeltaCounterMax).
_MAX_DELTAS = 1000

DELAY_SAMPLE = record(
    [
        ("arrival_ms", "f8"),  # since the first group
        ("delay_ms", "f8"),  # smoothed, accumulated
    ]
)

TRENDLINE = record(
    [
        ("trend", "f8"),  # slope of the last update, ms of delay per ms
        ("modified_trend", "f8"),  # scaled for the detector, NaN before the second delta
        ("threshold", "f8"),  # of the modified trend, ms
        ("accumulated_ms", "f8"),
        ("smoothed_ms", "f8"),
        ("overusing_ms", "f8"),  # time above the threshold, -1 while below
        ("first_arrival_us", "i8"),
        ("adapted_us", "i8"),  # last adaptation of the threshold, -1 for never
        ("num_deltas", "i8"),
        ("overuse_counter", "i8"),
        ("head", "i8"),  # next row of `samples` to write
        ("num_samples", "i8"),
        ("state", "i1"),
        ("samples", DELAY_SAMPLE, (MAX_TRENDLINE_WINDOW,)),  # ring of trendline_window_groups
    ]
)


@kernel
def trendline_reset(trendline: Record, p: Record) -> None:
    """As after construction: normal use, initial threshold, empty window."""
    trendline.trend = 0.0
    trendline.modified_trend = math.nan
    trendline.threshold = p.threshold_initial_ms
    trendline.accumulated_ms = 0.0
    trendline.smoothed_ms = 0.0
    trendline.overusing_ms = -1.0
    trendline.first_arrival_us = 0
    trendline.adapted_us = -1
    trendline.num_deltas = 0
    trendline.overuse_counter = 0
    trendline.head = 0
    trendline.num_samples = 0
    trendline.state = NORMAL


@kernel
def linear_fit_slope(samples: Record, first: int, count: int, default: float) -> float:
    """Least-squares slope of delay over arrival time, `default` when all arrive at once.

    Args:
        samples: ring of `count` `DELAY_SAMPLE` rows, the oldest in row `first`.
    """
    sum_x = 0.0
    sum_y = 0.0
    row = first
    for _ in range(count):
        sum_x += samples[row].arrival_ms
        sum_y += samples[row].delay_ms
        row = row + 1 if row + 1 < count else 0
    mean_x = sum_x / count
    mean_y = sum_y / count
    numerator = 0.0
    denominator = 0.0
    for _ in range(count):
        x = samples[row].arrival_ms - mean_x
        numerator += x * (samples[row].delay_ms - mean_y)
        denominator += x * x
        row = row + 1 if row + 1 < count else 0
    return numerator / denominator if denominator != 0.0 else default


@kernel
def _adapt_threshold(trendline: Record, p: Record, arrival_us: int) -> None:
    """Let the threshold follow the modified trend: slowly up, faster down."""
    if trendline.adapted_us < 0:
        trendline.adapted_us = arrival_us
    distance_ms = abs(trendline.modified_trend) - trendline.threshold
    if distance_ms <= p.threshold_max_offset_ms:
        gain = p.threshold_gain_down if distance_ms < 0.0 else p.threshold_gain_up
        elapsed_ms = min((arrival_us - trendline.adapted_us) / 1000.0, p.threshold_max_step_ms)
        threshold = trendline.threshold + gain * distance_ms * elapsed_ms
        trendline.threshold = min(max(threshold, p.threshold_min_ms), p.threshold_max_ms)
    trendline.adapted_us = arrival_us


@kernel
def _detect(
    trendline: Record, p: Record, trend: float, send_delta_ms: float, arrival_us: int
) -> None:
    """Turn the slope into normal, under-use or over-use."""
    if trendline.num_deltas < 2:
        trendline.state = NORMAL
        return
    num_deltas = min(trendline.num_deltas, p.trendline_max_deltas)
    trendline.modified_trend = num_deltas * trend * p.trendline_gain
    if trendline.modified_trend > trendline.threshold:
        if trendline.overusing_ms < 0.0:
            trendline.overusing_ms = send_delta_ms / 2.0  # for half of the time since the last
        else:
            trendline.overusing_ms += send_delta_ms
        trendline.overuse_counter += 1
        if (
            trendline.overusing_ms > p.overuse_time_ms
            and trendline.overuse_counter > 1
            and trend >= trendline.trend
        ):
            trendline.overusing_ms = 0.0
            trendline.overuse_counter = 0
            trendline.state = OVERUSING
    else:
        trendline.overusing_ms = -1.0
        trendline.overuse_counter = 0
        is_under = trendline.modified_trend < -trendline.threshold
        trendline.state = UNDERUSING if is_under else NORMAL
    trendline.trend = trend
    _adapt_threshold(trendline, p, arrival_us)


@kernel
def trendline_update(
    trendline: Record, p: Record, arrival_delta_us: int, send_delta_us: int, arrival_us: int
) -> None:
    """Take the delay variation of one more pair of groups.

    Args:
        arrival_us: when the packet arrived that completed the pair.
    """
    send_delta_ms = send_delta_us * 1e-3
    if trendline.num_deltas == 0:
        trendline.first_arrival_us = arrival_us
    trendline.num_deltas = min(trendline.num_deltas + 1, _MAX_DELTAS)
    trendline.accumulated_ms += arrival_delta_us * 1e-3 - send_delta_ms
    trendline.smoothed_ms = (
        p.trendline_smoothing * trendline.smoothed_ms
        + (1.0 - p.trendline_smoothing) * trendline.accumulated_ms
    )
    window = p.trendline_window_groups
    sample = trendline.samples[trendline.head]
    sample.arrival_ms = (arrival_us - trendline.first_arrival_us) / 1000.0
    sample.delay_ms = trendline.smoothed_ms
    trendline.head = trendline.head + 1 if trendline.head + 1 < window else 0
    trendline.num_samples = min(trendline.num_samples + 1, window)
    trend = trendline.trend
    if trendline.num_samples == window:
        trend = linear_fit_slope(trendline.samples, trendline.head, window, trend)
    _detect(trendline, p, trend, send_delta_ms, arrival_us)
