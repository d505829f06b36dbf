"""Additive increase, multiplicative decrease of the delay-based estimate.

Follows modules/remote_bitrate_estimator/aimd_rate_control.cc and GCC/link_capacity_estimator.cc of
libwebrtc M150. The start rate is always known here, so the initialisation from the first received
rate is left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bwe_env.gcc.rates import (
    INFINITE_RATE,
    NO_RATE,
    bytes_in,
    rate_of,
    round_half_up,
    scale,
    seconds_of,
)
from bwe_env.gcc.trendline import NORMAL, OVERUSING, UNDERUSING
from bwe_env.sim._jit import Record, kernel, record

#: What the rate does (RateControlState).
HOLD, INCREASE, DECREASE = 0, 1, 2

#: The model of the additive increase: frames per second and bytes per packet of the video
#: (GetNearMaxIncreaseRateBpsPerSecond).
_FRAME_INTERVAL_US: Any = np.int64(33_333)
_PACKET_BYTES = 1200

#: Bounds of the normalised variance, single precision in libwebrtc (LinkCapacityEstimator::Update):
#: 0.4 is 14 kbps at 500 kbps, 2.5 is 35 kbps.
_MIN_DEVIATION = 0.4000000059604645
_MAX_DEVIATION = 2.5

LINK_CAPACITY = record(
    [
        ("estimate_kbps", "f8"),  # NO_RATE while unknown
        ("deviation_kbps", "f8"),  # variance over estimate
    ]
)

AIMD = record(
    [
        ("rate_bps", "i8"),  # the delay-based estimate
        ("min_rate_bps", "i8"),
        ("throughput_bps", "i8"),  # last acknowledged rate
        ("rtt_us", "i8"),  # from RTCP
        ("changed_us", "i8"),  # last change of rate, or begin of the increase
        ("link_capacity", LINK_CAPACITY),
        ("state", "i1"),
    ]
)


@kernel
def aimd_reset(aimd: Record, p: Record, min_rate_bps: int, start_rate_bps: int) -> None:
    """Hold at the start rate, link capacity unknown."""
    aimd.min_rate_bps = min_rate_bps
    aimd.rate_bps = start_rate_bps
    aimd.throughput_bps = start_rate_bps
    aimd.rtt_us = p.default_rtt_us
    aimd.changed_us = 0
    aimd.link_capacity.estimate_kbps = NO_RATE
    aimd.link_capacity.deviation_kbps = 0.4
    aimd.state = HOLD


@kernel
def aimd_set_start_rate(aimd: Record, start_rate_bps: int) -> None:
    """Begin (again) from this rate."""
    aimd.rate_bps = start_rate_bps
    aimd.throughput_bps = start_rate_bps


@kernel
def aimd_set_min_rate(aimd: Record, min_rate_bps: int) -> None:
    """The estimate never falls below."""
    aimd.min_rate_bps = min_rate_bps
    aimd.rate_bps = max(aimd.rate_bps, min_rate_bps)


@kernel
def _capacity_margin_kbps(capacity: Record, p: Record) -> float:
    variance = capacity.deviation_kbps * capacity.estimate_kbps
    margin_kbps: float = p.link_capacity_deviations * math.sqrt(variance)
    return margin_kbps


@kernel
def link_capacity_upper_bound(capacity: Record, p: Record) -> int:
    """Above this the acknowledged rate disproves the estimate; infinite without one."""
    if capacity.estimate_kbps < 0.0:
        return INFINITE_RATE
    return int((capacity.estimate_kbps + _capacity_margin_kbps(capacity, p)) * 1000.0)


@kernel
def link_capacity_lower_bound(capacity: Record, p: Record) -> int:
    """Below this the acknowledged rate disproves the estimate; 0 without one."""
    if capacity.estimate_kbps < 0.0:
        return 0
    lower_kbps = capacity.estimate_kbps - _capacity_margin_kbps(capacity, p)
    return int(max(0.0, lower_kbps) * 1000.0)


@kernel
def link_capacity_on_overuse(capacity: Record, p: Record, throughput_bps: int) -> None:
    """The rate acknowledged during over-use is a sample of the link's capacity."""
    sample_kbps = float((throughput_bps + 500) // 1000)
    weight = p.link_capacity_weight
    if capacity.estimate_kbps < 0.0:
        capacity.estimate_kbps = sample_kbps
    else:
        capacity.estimate_kbps = (1.0 - weight) * capacity.estimate_kbps + weight * sample_kbps
    error_kbps = capacity.estimate_kbps - sample_kbps
    deviation_kbps = (1.0 - weight) * capacity.deviation_kbps + (
        weight * error_kbps * error_kbps / max(capacity.estimate_kbps, 1.0)
    )
    capacity.deviation_kbps = min(max(deviation_kbps, _MIN_DEVIATION), _MAX_DEVIATION)


@kernel
def additive_increase_bps_per_s(rate_bps: int, rtt_us: int, p: Record) -> float:
    """Growth near the link capacity: one average packet per response time."""
    frame_bytes = bytes_in(rate_bps, _FRAME_INTERVAL_US)
    packets_per_frame = max(math.ceil(frame_bytes / _PACKET_BYTES), 1)
    packet_bytes = round_half_up(frame_bytes / packets_per_frame)
    response_us = 2 * (rtt_us + p.detector_delay_us)
    return float(max(rate_of(packet_bytes, response_us), p.min_additive_increase_bps_per_s))


@kernel
def _increased_rate_bps(aimd: Record, p: Record, elapsed_s: float) -> int:
    if aimd.link_capacity.estimate_kbps >= 0.0:
        growth_bps_per_s = additive_increase_bps_per_s(aimd.rate_bps, aimd.rtt_us, p)
        return int(aimd.rate_bps + int(growth_bps_per_s * elapsed_s))
    growth = math.pow(p.increase_factor_per_s, min(elapsed_s, 1.0)) - 1.0
    step_bps = max(scale(aimd.rate_bps, growth), p.min_multiplicative_increase_bps)
    return int(aimd.rate_bps + step_bps)


@kernel
def _increase(aimd: Record, p: Record, in_alr: bool, now_us: int) -> None:
    capacity = aimd.link_capacity
    if aimd.throughput_bps > link_capacity_upper_bound(capacity, p):
        capacity.estimate_kbps = NO_RATE
    limit_bps = scale(aimd.throughput_bps, p.increase_limit_factor) + p.increase_limit_extra_bps
    is_blocked = in_alr and p.increase_in_alr == 0
    if aimd.rate_bps < limit_bps and not is_blocked:
        increased_bps = _increased_rate_bps(aimd, p, seconds_of(now_us - aimd.changed_us))
        aimd.rate_bps = min(increased_bps, limit_bps)
    aimd.changed_us = now_us


@kernel
def _decrease(aimd: Record, p: Record, now_us: int) -> None:
    capacity = aimd.link_capacity
    decreased_bps = scale(aimd.throughput_bps, p.decrease_factor)
    if decreased_bps > p.decrease_extra_bps:
        decreased_bps -= p.decrease_extra_bps
    if decreased_bps > aimd.rate_bps and capacity.estimate_kbps >= 0.0:
        decreased_bps = scale(int(capacity.estimate_kbps * 1000.0), p.decrease_factor)
    aimd.rate_bps = min(aimd.rate_bps, decreased_bps)
    if aimd.throughput_bps < link_capacity_lower_bound(capacity, p):
        capacity.estimate_kbps = NO_RATE
    link_capacity_on_overuse(capacity, p, aimd.throughput_bps)
    aimd.state = HOLD  # until the queue is empty
    aimd.changed_us = now_us


@kernel
def aimd_update(
    aimd: Record, p: Record, usage: int, acked_rate_bps: int, in_alr: bool, now_us: int
) -> None:
    """Move the estimate by what the detector says.

    Args:
        usage: NORMAL, UNDERUSING or OVERUSING.
        acked_rate_bps: NO_RATE while unknown.
    """
    if acked_rate_bps != NO_RATE:
        aimd.throughput_bps = acked_rate_bps
    if usage == NORMAL and aimd.state == HOLD:
        aimd.changed_us = now_us
        aimd.state = INCREASE
    elif usage == OVERUSING:
        aimd.state = DECREASE
    elif usage == UNDERUSING:
        aimd.state = HOLD
    if aimd.state == INCREASE:
        _increase(aimd, p, in_alr, now_us)
    elif aimd.state == DECREASE:
        _decrease(aimd, p, now_us)
    aimd.rate_bps = max(aimd.rate_bps, aimd.min_rate_bps)


@kernel
def aimd_set_estimate(aimd: Record, rate_bps: int, now_us: int) -> None:
    """Jump to a measured rate (a probe result)."""
    aimd.rate_bps = max(rate_bps, aimd.min_rate_bps)
    aimd.changed_us = now_us


@kernel
def aimd_may_reduce(aimd: Record, p: Record, throughput_bps: int, now_us: int) -> bool:
    """Whether over-use may lower the rate again: an RTT has passed, or it is far too high."""
    interval_us = min(max(aimd.rtt_us, p.min_reduction_interval_us), p.max_reduction_interval_us)
    if now_us - aimd.changed_us >= interval_us:
        return True
    return bool(throughput_bps < scale(aimd.rate_bps, 0.5))
