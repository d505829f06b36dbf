"""What the network models see: time series of bins, and numbers derived from a window of them.

Both come from `bwe_env.telemetry` rows, bin by bin, through the kernels below, whether a simulated
call, a recorded one or a real one is running; so a model meets no other features in use than in
training. Time series go to an LSTM, window features to a dense layer (`agents.network_model`).

A bin without feedback repeats the delays known before it. A delay at a loss is that of the packet
in front of it: where a queue overflows it is the largest there is, where a radio link loses a
packet it is any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.feature_scale import Feature, Scale, scaled
from bwe_env.labels import FLOOR_S, SPIKE_FLOOR_RATIO, SPIKE_MS
from bwe_env.sim._jit import Record, entry, kernel, record
from bwe_env.telemetry import checked_telemetry

#: Bins are intervals of 100 ms; the models know no other.
BIN_S = 0.1
_BIN_MS = 1e3 * BIN_S
#: The floor of the RTT is its minimum over 30 s, as congestion is defined (`labels`).
FLOOR_BINS = round(FLOOR_S / BIN_S)
#: The longest window of a model: 10 s.
MAX_WINDOW_BINS = 100
#: What "1s" in a feature's name means.
SECOND_BINS = 10

_Range = tuple[float, float, Scale]
_RATE: _Range = (10e3, 20e6, "log")
_DELAY_MS: _Range = (1.0, 4000.0, "log")
_VARIATION_MS: _Range = (0.1, 400.0, "log")
_LOSS: _Range = (0.002, 1.0, "log")
_RUN: _Range = (0.9, 30.0, "log")
_SHARE: _Range = (0.0, 1.0, "linear")
_SLOPE: _Range = (-400.0, 400.0, "linear")
_GAP: _Range = (0.03, 10.0, "log")

#: Order is part of every trained model: append only, and bump `FEATURES_VERSION`.
SERIES_FEATURES: tuple[Feature, ...] = (
    Feature("sent_rate", "bps", *_RATE, "sent_bytes over the bin"),
    Feature("acked_rate", "bps", *_RATE, "acked_rate_bps, the newest known"),
    Feature("loss_ratio", "1", *_LOSS, "lost_packets of those reported in the bin"),
    Feature("loss_run", "packets", *_RUN, "lost_packets / loss_runs"),
    Feature("queue_delay", "ms", *_DELAY_MS, "queue_delay_ms, the newest known"),
    Feature("queue_delay_min", "ms", *_DELAY_MS, "queue_delay_min_ms, the newest known"),
    Feature("queue_delay_max", "ms", *_DELAY_MS, "queue_delay_max_ms, the newest known"),
    Feature("delay_variation", "ms", *_VARIATION_MS, "delay_variation_ms, the newest known"),
    Feature("rtt", "ms", *_DELAY_MS, "rtt_ms, the newest known"),
    Feature("rtt_rise", "ms", *_DELAY_MS, "rtt above its minimum of 30 s"),
    Feature("loss_delay", "ms", *_DELAY_MS, "loss_delay_ms; lowest without a loss"),
    Feature("loss_delay_share", "1", *_SHARE, "loss_delay of the largest queue delay in 10 s"),
    Feature("has_feedback", "1", *_SHARE, "1 where a packet was acknowledged in the bin"),
    Feature("reported_packets", "packets", 1.0, 500.0, "log", "acknowledged or reported missing"),
    Feature("loss_gap", "1", *_GAP, "loss_gap_ms over the mean time between packets of the bin"),
    Feature("loss_delay_min", "ms", *_DELAY_MS, "loss_delay_min_ms; lowest without a loss"),
    Feature("loss_delay_max", "ms", *_DELAY_MS, "loss_delay_max_ms; lowest without a loss"),
)

#: "1s" is the last second, "w" the model's whole window. Append only, too.
DENSE_FEATURES: tuple[Feature, ...] = (
    Feature("acked_rate_1s", "bps", *_RATE, "acked_bytes over 1 s"),
    Feature("acked_rate_w", "bps", *_RATE, "acked_bytes over the window"),
    Feature("acked_rate_max_w", "bps", *_RATE, "largest over half a second"),
    Feature("sent_rate_1s", "bps", *_RATE, "sent_bytes over 1 s"),
    Feature("sent_rate_w", "bps", *_RATE, "sent_bytes over the window"),
    Feature("delivery_ratio_1s", "1", 0.0, 2.0, "linear", "acked_bytes / sent_bytes of 1 s"),
    Feature("acked_rate_variation_w", "1", 0.0, 2.0, "linear", "sd / mean over half seconds"),
    Feature("loss_ratio_1s", "1", *_LOSS, "lost_packets of those reported in 1 s"),
    Feature("loss_ratio_w", "1", *_LOSS, "the same in the window"),
    Feature("loss_ratio_before", "1", *_LOSS, "the same in the window, its last second left out"),
    Feature("lossy_bins_w", "1", *_SHARE, "share of bins with a loss"),
    Feature("loss_runs_w", "1/s", 0.05, 100.0, "log", "loss_runs over the window's time"),
    Feature("loss_run_1s", "packets", *_RUN, "mean length of runs in 1 s"),
    Feature("loss_run_w", "packets", *_RUN, "mean length of runs in the window"),
    Feature("loss_run_max_w", "packets", *_RUN, "largest mean length in a bin"),
    Feature("queue_delay_1s", "ms", *_DELAY_MS, "mean of queue_delay in 1 s"),
    Feature("queue_delay_w", "ms", *_DELAY_MS, "mean in the window"),
    Feature("queue_delay_sd_w", "ms", *_DELAY_MS, "standard deviation in the window"),
    Feature("queue_delay_min_1s", "ms", *_DELAY_MS, "smallest in 1 s"),
    Feature("queue_delay_max_1s", "ms", *_DELAY_MS, "largest in 1 s"),
    Feature("queue_delay_min_w", "ms", *_DELAY_MS, "smallest in the window"),
    Feature("queue_delay_max_w", "ms", *_DELAY_MS, "largest in the window"),
    Feature("delay_variation_1s", "ms", *_VARIATION_MS, "mean in 1 s"),
    Feature("delay_variation_w", "ms", *_VARIATION_MS, "mean in the window"),
    Feature("loss_delay_1s", "ms", *_DELAY_MS, "mean over the loss runs of 1 s"),
    Feature("loss_delay_w", "ms", *_DELAY_MS, "mean over the loss runs of the window"),
    Feature("loss_delay_sd_w", "ms", *_DELAY_MS, "standard deviation over the bins with a loss"),
    Feature("loss_delay_share_1s", "1", *_SHARE, "loss_delay_1s / queue_delay_max_w"),
    Feature("loss_delay_share_w", "1", *_SHARE, "loss_delay_w / queue_delay_max_w"),
    Feature("loss_delay_rank_1s", "1", *_SHARE, "share of the window's bins with less delay"),
    Feature("loss_delay_rank_w", "1", *_SHARE, "the same of the delay at all losses"),
    Feature("loss_delay_correlation_w", "1", -1.0, 1.0, "linear", "of loss ratio and queue delay"),
    Feature("rtt_now", "ms", *_DELAY_MS, "the newest known"),
    Feature("rtt_floor", "ms", *_DELAY_MS, "smallest of 30 s"),
    Feature("rtt_rise_now", "ms", *_DELAY_MS, "rtt_now above rtt_floor"),
    Feature("rtt_rise_max_w", "ms", *_DELAY_MS, "largest rise in the window"),
    Feature("rtt_rise_w", "ms", *_DELAY_MS, "mean rise in the window"),
    Feature("rtt_slope_1s", "ms/s", *_SLOPE, "second half of 1 s against the first"),
    Feature("rtt_slope_w", "ms/s", *_SLOPE, "second half of the window against the first"),
    Feature("spike_bins_w", "1", *_SHARE, "share of bins with an RTT spike, as congestion has it"),
    Feature("feedback_bins_1s", "1", *_SHARE, "share of bins with feedback in 1 s"),
    # A queue or a policer loses what follows close on others; chance takes any packet.
    Feature("loss_gap_1s", "1", *_GAP, "loss_gap_ms over the mean time between packets of 1 s"),
    Feature("loss_gap_w", "1", *_GAP, "the same in the window"),
    Feature("loss_load_correlation_w", "1", -1.0, 1.0, "linear", "of loss ratio and load"),
    Feature(
        "lossy_load_ratio_w", "1", 0.1, 10.0, "log", "load of bins with a loss over that without"
    ),
    Feature("sent_over_acked_max", "1", 0.1, 10.0, "log", "sent_rate_1s / acked_rate_max_w"),
    Feature("loss_delay_min_1s", "ms", *_DELAY_MS, "smallest delay at a loss in 1 s"),
    Feature("loss_delay_max_1s", "ms", *_DELAY_MS, "largest delay at a loss in 1 s"),
    Feature("loss_delay_min_rank_1s", "1", *_SHARE, "share of the window's bins with less delay"),
    Feature("loss_delay_max_rank_1s", "1", *_SHARE, "the same of the largest"),
)
#: Of both tables together; a model says for which it was trained.
FEATURES_VERSION = 1

NUM_SERIES = len(SERIES_FEATURES)
NUM_DENSE = len(DENSE_FEATURES)
SERIES_NAMES = tuple(feature.name for feature in SERIES_FEATURES)
DENSE_NAMES = tuple(feature.name for feature in DENSE_FEATURES)

#: One bin, what is missing in it filled in.
BIN = record(
    [
        ("sent_bytes", "f8"),
        ("acked_bytes", "f8"),
        ("acked_packets", "f8"),
        ("lost_packets", "f8"),
        ("loss_runs", "f8"),
        ("acked_rate_bps", "f8"),  # this, the delays and the RTT: the newest known, 0 before
        ("queue_delay_ms", "f8"),
        ("queue_delay_min_ms", "f8"),
        ("queue_delay_max_ms", "f8"),
        ("delay_variation_ms", "f8"),
        ("rtt_ms", "f8"),
        ("loss_delay_ms", "f8"),  # 0 without a loss whose delay is known
        ("loss_delay_min_ms", "f8"),
        ("loss_delay_max_ms", "f8"),
        ("located_runs", "f8"),  # loss runs that have such a delay: none, or all of the bin
        ("loss_gap_ms", "f8"),  # 0 without a loss
    ]
)

#: What is remembered of one call: its last bins, the newest at ``(bins - 1) % FLOOR_BINS``.
FEATURE_STATE = record(
    [
        ("bins", "i8"),
        ("rtt_floor_ms", "f8"),  # smallest RTT in the ring, 0 while none is known
        ("last", BIN),
        ("ring", BIN, (FLOOR_BINS,)),
    ]
)

_SERIES_LOW = tuple(f.low for f in SERIES_FEATURES)
_SERIES_HIGH = tuple(f.high for f in SERIES_FEATURES)
_SERIES_IS_LOG = tuple(f.scale == "log" for f in SERIES_FEATURES)
_SERIES_SPAN = tuple(f.span for f in SERIES_FEATURES)
_DENSE_LOW = tuple(f.low for f in DENSE_FEATURES)
_DENSE_HIGH = tuple(f.high for f in DENSE_FEATURES)
_DENSE_IS_LOG = tuple(f.scale == "log" for f in DENSE_FEATURES)
_DENSE_SPAN = tuple(f.span for f in DENSE_FEATURES)

(
    _SENT_RATE,
    _ACKED_RATE,
    _LOSS_RATIO,
    _LOSS_RUN,
    _QUEUE_DELAY,
    _QUEUE_DELAY_MIN,
    _QUEUE_DELAY_MAX,
    _DELAY_VARIATION,
    _RTT,
    _RTT_RISE,
    _LOSS_DELAY,
    _LOSS_DELAY_SHARE,
    _HAS_FEEDBACK,
    _REPORTED_PACKETS,
    _LOSS_GAP,
    _LOSS_DELAY_MIN,
    _LOSS_DELAY_MAX,
) = range(NUM_SERIES)

(
    _ACKED_RATE_1S,
    _ACKED_RATE_W,
    _ACKED_RATE_MAX_W,
    _SENT_RATE_1S,
    _SENT_RATE_W,
    _DELIVERY_RATIO_1S,
    _ACKED_RATE_VARIATION_W,
    _LOSS_RATIO_1S,
    _LOSS_RATIO_W,
    _LOSS_RATIO_BEFORE,
    _LOSSY_BINS_W,
    _LOSS_RUNS_W,
    _LOSS_RUN_1S,
    _LOSS_RUN_W,
    _LOSS_RUN_MAX_W,
    _QUEUE_DELAY_1S,
    _QUEUE_DELAY_W,
    _QUEUE_DELAY_SD_W,
    _QUEUE_DELAY_MIN_1S,
    _QUEUE_DELAY_MAX_1S,
    _QUEUE_DELAY_MIN_W,
    _QUEUE_DELAY_MAX_W,
    _DELAY_VARIATION_1S,
    _DELAY_VARIATION_W,
    _LOSS_DELAY_1S,
    _LOSS_DELAY_W,
    _LOSS_DELAY_SD_W,
    _LOSS_DELAY_SHARE_1S,
    _LOSS_DELAY_SHARE_W,
    _LOSS_DELAY_RANK_1S,
    _LOSS_DELAY_RANK_W,
    _LOSS_DELAY_CORRELATION_W,
    _RTT_NOW,
    _RTT_FLOOR,
    _RTT_RISE_NOW,
    _RTT_RISE_MAX_W,
    _RTT_RISE_W,
    _RTT_SLOPE_1S,
    _RTT_SLOPE_W,
    _SPIKE_BINS_W,
    _FEEDBACK_BINS_1S,
    _LOSS_GAP_1S,
    _LOSS_GAP_W,
    _LOSS_LOAD_CORRELATION_W,
    _LOSSY_LOAD_RATIO_W,
    _SENT_OVER_ACKED_MAX,
    _LOSS_DELAY_MIN_1S,
    _LOSS_DELAY_MAX_1S,
    _LOSS_DELAY_MIN_RANK_1S,
    _LOSS_DELAY_MAX_RANK_1S,
) = range(NUM_DENSE)


@kernel
def feature_state_reset(state: Record) -> None:
    """A call begins."""
    state.bins = 0
    state.rtt_floor_ms = 0.0
    last = state.last
    last.acked_rate_bps = 0.0
    last.queue_delay_ms = 0.0
    last.queue_delay_min_ms = 0.0
    last.queue_delay_max_ms = 0.0
    last.delay_variation_ms = 0.0
    last.rtt_ms = 0.0


@kernel
def _fill_last(last: Record, telemetry: Record) -> None:
    """Turn the bin before into the newest one: what the newest does not know stays."""
    last.sent_bytes = telemetry.sent_bytes
    last.acked_bytes = telemetry.acked_bytes
    last.acked_packets = telemetry.acked_packets
    last.lost_packets = telemetry.lost_packets
    last.loss_runs = telemetry.loss_runs
    if telemetry.acked_packets > 0.0:
        last.acked_rate_bps = telemetry.acked_rate_bps
        last.queue_delay_ms = telemetry.queue_delay_ms
        last.queue_delay_min_ms = telemetry.queue_delay_min_ms
        last.queue_delay_max_ms = telemetry.queue_delay_max_ms
        last.delay_variation_ms = telemetry.delay_variation_ms
        last.rtt_ms = telemetry.rtt_ms
    last.loss_delay_ms = 0.0
    last.loss_delay_min_ms = 0.0
    last.loss_delay_max_ms = 0.0
    last.located_runs = 0.0
    last.loss_gap_ms = 0.0
    if not math.isnan(telemetry.loss_gap_ms):
        last.loss_gap_ms = telemetry.loss_gap_ms
    if not math.isnan(telemetry.loss_delay_ms):
        last.loss_delay_ms = telemetry.loss_delay_ms
        last.loss_delay_min_ms = telemetry.loss_delay_min_ms
        last.loss_delay_max_ms = telemetry.loss_delay_max_ms
        last.located_runs = telemetry.loss_runs


@kernel
def _copy_bin(target: Record, source: Record) -> None:
    target.sent_bytes = source.sent_bytes
    target.acked_bytes = source.acked_bytes
    target.acked_packets = source.acked_packets
    target.lost_packets = source.lost_packets
    target.loss_runs = source.loss_runs
    target.acked_rate_bps = source.acked_rate_bps
    target.queue_delay_ms = source.queue_delay_ms
    target.queue_delay_min_ms = source.queue_delay_min_ms
    target.queue_delay_max_ms = source.queue_delay_max_ms
    target.delay_variation_ms = source.delay_variation_ms
    target.rtt_ms = source.rtt_ms
    target.loss_delay_ms = source.loss_delay_ms
    target.loss_delay_min_ms = source.loss_delay_min_ms
    target.loss_delay_max_ms = source.loss_delay_max_ms
    target.located_runs = source.located_runs
    target.loss_gap_ms = source.loss_gap_ms


@kernel
def feature_state_push(state: Record, telemetry: Record) -> None:
    """Take the newest bin of a call."""
    row = state.ring[state.bins % FLOOR_BINS]
    leaving_ms = row.rtt_ms if state.bins >= FLOOR_BINS else 0.0
    _fill_last(state.last, telemetry)
    _copy_bin(row, state.last)
    state.bins += 1
    floor_ms = state.rtt_floor_ms
    if floor_ms > 0.0 and leaving_ms == floor_ms:
        floor_ms = 0.0
        for index in range(FLOOR_BINS):
            rtt_ms = state.ring[index].rtt_ms
            if rtt_ms > 0.0 and (floor_ms == 0.0 or rtt_ms < floor_ms):
                floor_ms = rtt_ms
    elif row.rtt_ms > 0.0 and (floor_ms == 0.0 or row.rtt_ms < floor_ms):
        floor_ms = row.rtt_ms
    state.rtt_floor_ms = floor_ms


@kernel
def _bin(state: Record, back: int) -> Record:
    """The newest bin but `back`."""
    return state.ring[(state.bins - 1 - back) % FLOOR_BINS]


@kernel
def _ratio(above: float, below: float) -> float:
    return above / below if below > 0.0 else 0.0


@kernel
def _put_series(out: np.ndarray, index: int, value: float) -> None:
    is_log, span = _SERIES_IS_LOG[index], _SERIES_SPAN[index]
    out[index] = scaled(value, _SERIES_LOW[index], _SERIES_HIGH[index], is_log, span)


@kernel
def _put(out: np.ndarray, index: int, value: float) -> None:
    is_log, span = _DENSE_IS_LOG[index], _DENSE_SPAN[index]
    out[index] = scaled(value, _DENSE_LOW[index], _DENSE_HIGH[index], is_log, span)


@kernel
def fill_series(state: Record, out: np.ndarray) -> None:
    """The newest bin's row for the LSTM: `NUM_SERIES` float32 in [-1, 1]."""
    row = state.last
    largest_ms = 0.0
    for back in range(min(state.bins, MAX_WINDOW_BINS)):
        largest_ms = max(largest_ms, _bin(state, back).queue_delay_max_ms)
    _put_series(out, _SENT_RATE, row.sent_bytes * 8.0 / BIN_S)
    _put_series(out, _ACKED_RATE, row.acked_rate_bps)
    reported = row.lost_packets + row.acked_packets
    _put_series(out, _LOSS_RATIO, _ratio(row.lost_packets, reported))
    _put_series(out, _LOSS_RUN, _ratio(row.lost_packets, row.loss_runs))
    _put_series(out, _QUEUE_DELAY, row.queue_delay_ms)
    _put_series(out, _QUEUE_DELAY_MIN, row.queue_delay_min_ms)
    _put_series(out, _QUEUE_DELAY_MAX, row.queue_delay_max_ms)
    _put_series(out, _DELAY_VARIATION, row.delay_variation_ms)
    _put_series(out, _RTT, row.rtt_ms)
    _put_series(out, _RTT_RISE, row.rtt_ms - state.rtt_floor_ms)
    _put_series(out, _LOSS_DELAY, row.loss_delay_ms)
    _put_series(out, _LOSS_DELAY_SHARE, _ratio(row.loss_delay_ms, largest_ms))
    _put_series(out, _HAS_FEEDBACK, 1.0 if row.acked_packets > 0.0 else 0.0)
    _put_series(out, _REPORTED_PACKETS, reported)
    _put_series(out, _LOSS_GAP, row.loss_gap_ms * reported / _BIN_MS)
    _put_series(out, _LOSS_DELAY_MIN, row.loss_delay_min_ms)
    _put_series(out, _LOSS_DELAY_MAX, row.loss_delay_max_ms)


@kernel
def _fill_rates(state: Record, bins: int, out: np.ndarray) -> None:
    half_bins = SECOND_BINS // 2
    sent_w = acked_w = sent_1s = acked_1s = 0.0
    half_bytes = largest_bytes = halves_sum = halves_square = 0.0
    for back in range(bins):
        row = _bin(state, back)
        sent_w += row.sent_bytes
        acked_w += row.acked_bytes
        half_bytes += row.acked_bytes
        if back < SECOND_BINS:
            sent_1s += row.sent_bytes
            acked_1s += row.acked_bytes
        if back % half_bins == half_bins - 1:
            largest_bytes = max(largest_bytes, half_bytes)
            halves_sum += half_bytes
            halves_square += half_bytes * half_bytes
            half_bytes = 0.0
    second_s = BIN_S * max(1, min(bins, SECOND_BINS))
    window_s = BIN_S * max(1, bins)
    halves = max(1, bins // half_bins)
    mean = halves_sum / halves
    variance = max(0.0, halves_square / halves - mean * mean)
    _put(out, _ACKED_RATE_1S, acked_1s * 8.0 / second_s)
    _put(out, _ACKED_RATE_W, acked_w * 8.0 / window_s)
    _put(out, _ACKED_RATE_MAX_W, largest_bytes * 8.0 / (half_bins * BIN_S))
    _put(out, _SENT_RATE_1S, sent_1s * 8.0 / second_s)
    _put(out, _SENT_RATE_W, sent_w * 8.0 / window_s)
    _put(out, _DELIVERY_RATIO_1S, _ratio(acked_1s, sent_1s))
    _put(out, _ACKED_RATE_VARIATION_W, _ratio(math.sqrt(variance), mean))
    largest_bps = largest_bytes * 8.0 / (half_bins * BIN_S)
    _put(out, _SENT_OVER_ACKED_MAX, _ratio(sent_1s * 8.0 / second_s, largest_bps))


@kernel
def _fill_losses(state: Record, bins: int, out: np.ndarray) -> None:
    lost_w = runs_w = acked_w = lost_1s = runs_1s = acked_1s = 0.0
    lossy_bins = feedback_bins_1s = longest = 0.0
    for back in range(bins):
        row = _bin(state, back)
        lost_w += row.lost_packets
        runs_w += row.loss_runs
        acked_w += row.acked_packets
        if row.lost_packets > 0.0:
            lossy_bins += 1.0
            longest = max(longest, row.lost_packets / max(1.0, row.loss_runs))
        if back < SECOND_BINS:
            lost_1s += row.lost_packets
            runs_1s += row.loss_runs
            acked_1s += row.acked_packets
            if row.acked_packets > 0.0:
                feedback_bins_1s += 1.0
    lost_before, acked_before = lost_w - lost_1s, acked_w - acked_1s
    _put(out, _LOSS_RATIO_1S, _ratio(lost_1s, lost_1s + acked_1s))
    _put(out, _LOSS_RATIO_W, _ratio(lost_w, lost_w + acked_w))
    _put(out, _LOSS_RATIO_BEFORE, _ratio(lost_before, lost_before + acked_before))
    _put(out, _LOSSY_BINS_W, _ratio(lossy_bins, bins))
    _put(out, _LOSS_RUNS_W, _ratio(runs_w, bins * BIN_S))
    # A run that began in a bin before counts there.
    _put(out, _LOSS_RUN_1S, lost_1s / max(1.0, runs_1s))
    _put(out, _LOSS_RUN_W, lost_w / max(1.0, runs_w))
    _put(out, _LOSS_RUN_MAX_W, longest)
    _put(out, _FEEDBACK_BINS_1S, _ratio(feedback_bins_1s, min(bins, SECOND_BINS)))


@kernel
def _fill_delays(state: Record, bins: int, out: np.ndarray) -> None:
    sum_w = square_w = variation_w = sum_1s = variation_1s = 0.0
    least_w = least_1s = math.inf
    largest_w = largest_1s = 0.0
    for back in range(bins):
        row = _bin(state, back)
        sum_w += row.queue_delay_ms
        square_w += row.queue_delay_ms * row.queue_delay_ms
        variation_w += row.delay_variation_ms
        least_w = min(least_w, row.queue_delay_min_ms)
        largest_w = max(largest_w, row.queue_delay_max_ms)
        if back < SECOND_BINS:
            sum_1s += row.queue_delay_ms
            variation_1s += row.delay_variation_ms
            least_1s = min(least_1s, row.queue_delay_min_ms)
            largest_1s = max(largest_1s, row.queue_delay_max_ms)
    second_bins = min(bins, SECOND_BINS)
    mean_w = _ratio(sum_w, bins)
    variance = max(0.0, _ratio(square_w, bins) - mean_w * mean_w)
    _put(out, _QUEUE_DELAY_1S, _ratio(sum_1s, second_bins))
    _put(out, _QUEUE_DELAY_W, mean_w)
    _put(out, _QUEUE_DELAY_SD_W, math.sqrt(variance))
    _put(out, _QUEUE_DELAY_MIN_1S, least_1s)
    _put(out, _QUEUE_DELAY_MAX_1S, largest_1s)
    _put(out, _QUEUE_DELAY_MIN_W, least_w)
    _put(out, _QUEUE_DELAY_MAX_W, largest_w)
    _put(out, _DELAY_VARIATION_1S, _ratio(variation_1s, second_bins))
    _put(out, _DELAY_VARIATION_W, _ratio(variation_w, bins))


@kernel
def _delay_rank(state: Record, bins: int, delay_ms: float) -> float:
    """Share of the window's bins whose queue delay is smaller."""
    smaller = 0.0
    for back in range(bins):
        if _bin(state, back).queue_delay_ms < delay_ms:
            smaller += 1.0
    return _ratio(smaller, bins)


@kernel
def _fill_loss_delays(state: Record, bins: int, out: np.ndarray) -> None:
    sum_1s = runs_1s = sum_w = square_w = runs_w = largest_ms = loss_max_ms = 0.0
    loss_min_ms = math.inf
    for back in range(bins):
        row = _bin(state, back)
        largest_ms = max(largest_ms, row.queue_delay_max_ms)
        sum_w += row.located_runs * row.loss_delay_ms
        square_w += row.located_runs * row.loss_delay_ms * row.loss_delay_ms
        runs_w += row.located_runs
        if back < SECOND_BINS:
            sum_1s += row.located_runs * row.loss_delay_ms
            runs_1s += row.located_runs
            if row.located_runs > 0.0:
                loss_min_ms = min(loss_min_ms, row.loss_delay_min_ms)
                loss_max_ms = max(loss_max_ms, row.loss_delay_max_ms)
    if runs_1s == 0.0:
        loss_min_ms = 0.0
    delay_1s, delay_w = _ratio(sum_1s, runs_1s), _ratio(sum_w, runs_w)
    variance = max(0.0, _ratio(square_w, runs_w) - delay_w * delay_w)
    _put(out, _LOSS_DELAY_1S, delay_1s)
    _put(out, _LOSS_DELAY_W, delay_w)
    _put(out, _LOSS_DELAY_SD_W, math.sqrt(variance))
    _put(out, _LOSS_DELAY_SHARE_1S, _ratio(delay_1s, largest_ms))
    _put(out, _LOSS_DELAY_SHARE_W, _ratio(delay_w, largest_ms))
    _put(out, _LOSS_DELAY_RANK_1S, _delay_rank(state, bins, delay_1s))
    _put(out, _LOSS_DELAY_RANK_W, _delay_rank(state, bins, delay_w))
    _put(out, _LOSS_DELAY_MIN_1S, loss_min_ms)
    _put(out, _LOSS_DELAY_MAX_1S, loss_max_ms)
    _put(out, _LOSS_DELAY_MIN_RANK_1S, _delay_rank(state, bins, loss_min_ms))
    _put(out, _LOSS_DELAY_MAX_RANK_1S, _delay_rank(state, bins, loss_max_ms))


@kernel
def _correlation(
    count: float, x_sum: float, y_sum: float, x_square: float, y_square: float, product: float
) -> float:
    """Pearson's, from sums; 0 where one of them does not vary."""
    x_variance = max(0.0, count * x_square - x_sum * x_sum)
    y_variance = max(0.0, count * y_square - y_sum * y_sum)
    scale = math.sqrt(x_variance * y_variance)
    if scale <= 1e-9:  # rounding
        return 0.0
    return (count * product - x_sum * y_sum) / scale


@kernel
def _fill_correlations(state: Record, bins: int, out: np.ndarray) -> None:
    """How loss goes with queue delay and with load (packets reported), bin by bin."""
    count = loss_sum = loss_square = 0.0
    delay_sum = delay_square = delay_product = load_sum = load_square = load_product = 0.0
    lossy_bins = lossy_load = 0.0
    for back in range(bins):
        row = _bin(state, back)
        load = row.lost_packets + row.acked_packets
        if load == 0.0:
            continue
        loss = row.lost_packets / load
        count += 1.0
        loss_sum += loss
        loss_square += loss * loss
        delay_sum += row.queue_delay_ms
        delay_square += row.queue_delay_ms * row.queue_delay_ms
        delay_product += loss * row.queue_delay_ms
        load_sum += load
        load_square += load * load
        load_product += loss * load
        if loss > 0.0:
            lossy_bins += 1.0
            lossy_load += load
    with_delay = _correlation(count, loss_sum, delay_sum, loss_square, delay_square, delay_product)
    with_load = _correlation(count, loss_sum, load_sum, loss_square, load_square, load_product)
    calm_load = _ratio(load_sum - lossy_load, count - lossy_bins)
    _put(out, _LOSS_DELAY_CORRELATION_W, with_delay)
    _put(out, _LOSS_LOAD_CORRELATION_W, with_load)
    _put(out, _LOSSY_LOAD_RATIO_W, _ratio(_ratio(lossy_load, lossy_bins), calm_load))


@kernel
def _fill_loss_gaps(state: Record, bins: int, out: np.ndarray) -> None:
    gap_1s = runs_1s = reported_1s = gap_w = runs_w = reported_w = 0.0
    for back in range(bins):
        row = _bin(state, back)
        reported = row.lost_packets + row.acked_packets
        gap_w += row.loss_runs * row.loss_gap_ms
        runs_w += row.loss_runs
        reported_w += reported
        if back < SECOND_BINS:
            gap_1s += row.loss_runs * row.loss_gap_ms
            runs_1s += row.loss_runs
            reported_1s += reported
    second_ms = _BIN_MS * min(bins, SECOND_BINS)
    _put(out, _LOSS_GAP_1S, _ratio(gap_1s, runs_1s) * _ratio(reported_1s, second_ms))
    _put(out, _LOSS_GAP_W, _ratio(gap_w, runs_w) * _ratio(reported_w, _BIN_MS * bins))


@kernel
def _mean_rtt_ms(state: Record, first: int, last: int) -> float:
    """Of the bins from `first` to `last - 1` before the newest."""
    total_ms = 0.0
    for back in range(first, last):
        total_ms += _bin(state, back).rtt_ms
    return _ratio(total_ms, last - first)


@kernel
def _rtt_slope(state: Record, bins: int) -> float:
    """Change per second from the older half of the newest bins to the newer half."""
    half = bins // 2
    if half == 0:
        return 0.0
    change_ms = _mean_rtt_ms(state, 0, half) - _mean_rtt_ms(state, half, 2 * half)
    return change_ms / (half * BIN_S)


@kernel
def _fill_rtts(state: Record, bins: int, out: np.ndarray) -> None:
    floor_ms = state.rtt_floor_ms
    spike_ms = floor_ms + max(SPIKE_MS, SPIKE_FLOOR_RATIO * floor_ms)
    rise_sum = rise_max = spikes = 0.0
    for back in range(bins):
        rtt_ms = _bin(state, back).rtt_ms
        rise_sum += rtt_ms - floor_ms
        rise_max = max(rise_max, rtt_ms - floor_ms)
        if floor_ms > 0.0 and rtt_ms >= spike_ms:
            spikes += 1.0
    now_ms = state.last.rtt_ms
    _put(out, _RTT_NOW, now_ms)
    _put(out, _RTT_FLOOR, floor_ms)
    _put(out, _RTT_RISE_NOW, now_ms - floor_ms)
    _put(out, _RTT_RISE_MAX_W, rise_max)
    _put(out, _RTT_RISE_W, _ratio(rise_sum, bins))
    _put(out, _RTT_SLOPE_1S, _rtt_slope(state, min(bins, SECOND_BINS)))
    _put(out, _RTT_SLOPE_W, _rtt_slope(state, bins))
    _put(out, _SPIKE_BINS_W, _ratio(spikes, bins))


@kernel
def fill_dense(state: Record, window_bins: int, out: np.ndarray) -> None:
    """Features of the window that ends with the newest bin: `NUM_DENSE` float32 in [-1, 1].

    At the start of a call the window is as long as the call.
    """
    bins = min(state.bins, window_bins)
    _fill_rates(state, bins, out)
    _fill_losses(state, bins, out)
    _fill_delays(state, bins, out)
    _fill_loss_delays(state, bins, out)
    _fill_loss_gaps(state, bins, out)
    _fill_correlations(state, bins, out)
    _fill_rtts(state, bins, out)


@entry
def _follow(
    states: np.ndarray,
    telemetry: np.ndarray,
    active: np.ndarray,
    series: np.ndarray,
    dense: np.ndarray,
    windows: np.ndarray,
) -> None:
    for env in range(len(states)):
        if not active[env]:
            continue
        state = states[env]
        feature_state_push(state, telemetry[env])
        fill_series(state, series[env])
        for index in range(len(windows)):
            fill_dense(state, windows[index], dense[index, env])


@entry
def _follow_call(
    state: Record,
    telemetry: np.ndarray,
    series: np.ndarray,
    dense: np.ndarray,
    is_wanted: np.ndarray,
    window_bins: int,
) -> None:
    feature_state_reset(state)
    row = 0
    for position in range(len(telemetry)):
        feature_state_push(state, telemetry[position])
        fill_series(state, series[position])
        if is_wanted[position]:
            fill_dense(state, window_bins, dense[row])
            row += 1


@entry
def _restart(states: np.ndarray, env: int) -> None:
    feature_state_reset(states[env])


def check_window(window_bins: int) -> None:
    """Raise `ConfigError` for a window that no model can have."""
    if not (
        isinstance(window_bins, (int, np.integer)) and SECOND_BINS <= window_bins <= MAX_WINDOW_BINS
    ):
        raise ConfigError(
            f"window_bins={window_bins!r} must be a whole number of 0.1 s bins from {SECOND_BINS} "
            f"to {MAX_WINDOW_BINS}."
        )


def call_features(
    telemetry: NDArray[Any], at: Sequence[int] | NDArray[np.int64], *, window_bins: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features of one call that has been recorded.

    Args:
        telemetry: its bins of 0.1 s from its beginning, dtype `TELEMETRY`, shape (bins,).
        at: bins whose windows are wanted, each ending with that bin; ascending.
        window_bins: 10..100.

    Returns:
        Series of all bins, shape (bins, NUM_SERIES), and dense features of those windows, shape
        (len(at), NUM_DENSE); float32 in [-1, 1]. `series_window` cuts a window out of the series.
    """
    check_window(window_bins)
    rows = checked_telemetry(telemetry)
    wanted = np.asarray(at, dtype=np.int64)
    if len(wanted) and (wanted[0] < 0 or wanted[-1] >= len(rows) or (np.diff(wanted) <= 0).any()):
        raise ConfigError(f"windows must end at ascending bins from 0 to {len(rows) - 1}.")
    is_wanted = np.zeros(len(rows), dtype=np.bool_)
    is_wanted[wanted] = True
    series = np.empty((len(rows), NUM_SERIES), dtype=np.float32)
    dense = np.empty((len(wanted), NUM_DENSE), dtype=np.float32)
    state = np.zeros(1, dtype=FEATURE_STATE)[0]
    _follow_call(state, rows, series, dense, is_wanted, window_bins)
    return series, dense


def series_windows(
    series: NDArray[np.float32], at: NDArray[np.int64], *, window_bins: int
) -> NDArray[np.float32]:
    """Windows of a call's series, each ending with a bin of `at`; -1 before the call began.

    Returns:
        Shape (len(at), window_bins, NUM_SERIES).
    """
    padding = np.full((window_bins - 1, series.shape[1]), -1.0, dtype=np.float32)
    padded = np.concatenate([padding, series])
    windows: NDArray[np.float32] = padded[np.asarray(at)[:, None] + np.arange(window_bins)]
    return windows


class FeatureStream:
    """Features of many calls as they run.

    Args:
        num_envs: calls side by side.
        windows: lengths in bins for which dense features are kept.
    """

    def __init__(self, num_envs: int, *, windows: Sequence[int]) -> None:
        for window_bins in windows:
            check_window(window_bins)
        self._windows = np.array(windows, dtype=np.int64)
        self._states = np.zeros(num_envs, dtype=FEATURE_STATE)
        self._newest = np.empty((num_envs, NUM_SERIES), dtype=np.float32)
        # Every row is written twice, a window's length apart, so that one slice has any window.
        self._series = np.empty((num_envs, 2 * MAX_WINDOW_BINS, NUM_SERIES), dtype=np.float32)
        self._position = 0
        self.dense = np.full((len(windows), num_envs, NUM_DENSE), -1.0, dtype=np.float32)
        """newest dense features, shape (windows, num_envs, NUM_DENSE)"""
        for env in range(num_envs):
            self.restart(env)

    def restart(self, env: int) -> None:
        """Another call begins in place of call `env`."""
        _restart(self._states, env)
        self._newest[env] = -1.0
        self._series[env] = -1.0
        self.dense[:, env] = -1.0

    def push(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> None:
        """Take the newest bin of every active call; the others repeat theirs."""
        _follow(self._states, telemetry, active, self._newest, self.dense, self._windows)
        self._series[:, self._position] = self._newest
        self._series[:, self._position + MAX_WINDOW_BINS] = self._newest
        self._position = (self._position + 1) % MAX_WINDOW_BINS

    def series(self, window_bins: int) -> NDArray[np.float32]:
        """The last bins of every call, shape (num_envs, window_bins, NUM_SERIES), a view."""
        end = self._position + MAX_WINDOW_BINS
        return self._series[:, end - window_bins : end]
