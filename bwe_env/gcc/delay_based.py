"""The delay-based estimate: grouping, trendline and AIMD wired together.

Follows GCC/delay_based_bwe.cc of libwebrtc M150, without separate handling of audio packets (off
by default).
"""

from __future__ import annotations

from bwe_env.gcc.aimd_rate_control import (
    aimd_may_reduce,
    aimd_reset,
    aimd_set_estimate,
    aimd_update,
)
from bwe_env.gcc.inter_arrival import inter_arrival_add, inter_arrival_reset
from bwe_env.gcc.rates import NO_RATE, scale
from bwe_env.gcc.trendline import (
    NORMAL,
    OVERUSING,
    UNDERUSING,
    trendline_reset,
    trendline_update,
)
from bwe_env.sim._jit import NEVER, Record, kernel, record

DELAY_BASED_BWE = record(
    [
        ("last_feedback_us", "i8"),  # -NEVER for none
        ("published_bps", "i8"),  # estimate of the last update, 0 before it
        ("usage", "i1"),  # detector state at that time
        ("has_recovered", "i1"),  # from under-use to normal within this report
    ]
)


@kernel
def delay_based_reset(gcc: Record, p: Record, min_rate_bps: int, start_rate_bps: int) -> None:
    """No feedback yet."""
    delay = gcc.delay
    delay.last_feedback_us = -NEVER
    delay.published_bps = 0
    delay.usage = NORMAL
    delay.has_recovered = 0
    inter_arrival_reset(gcc.inter_arrival)
    trendline_reset(gcc.trendline, p)
    aimd_reset(gcc.aimd, p, min_rate_bps, start_rate_bps)


@kernel
def delay_based_begin_report(gcc: Record, p: Record, now_us: int) -> None:
    """Call before the packets of a report that has at least one received packet."""
    delay = gcc.delay
    delay.has_recovered = 0
    if now_us - delay.last_feedback_us > p.stream_timeout_us:
        delay.has_recovered = gcc.trendline.state == UNDERUSING
        inter_arrival_reset(gcc.inter_arrival)
        trendline_reset(gcc.trendline, p)
    delay.last_feedback_us = now_us


@kernel
def delay_based_add(gcc: Record, p: Record, send_us: int, arrival_us: int, now_us: int) -> None:
    """Take one received packet of the report, in order of arrival."""
    inter_arrival = gcc.inter_arrival
    if not inter_arrival_add(inter_arrival, p, send_us, arrival_us, now_us):
        return
    trendline = gcc.trendline
    state_before = trendline.state
    trendline_update(
        trendline, p, inter_arrival.arrival_delta_us, inter_arrival.send_delta_us, arrival_us
    )
    if state_before == UNDERUSING and trendline.state == NORMAL:
        gcc.delay.has_recovered = 1


@kernel
def _update_rate(
    gcc: Record, p: Record, acked_rate_bps: int, probe_rate_bps: int, in_alr: bool, now_us: int
) -> bool:
    """Let AIMD move. Returns whether it did; resets `has_recovered` where that says nothing."""
    aimd = gcc.aimd
    usage = gcc.trendline.state
    if usage == OVERUSING:
        gcc.delay.has_recovered = 0
        if acked_rate_bps == NO_RATE:
            aimd_set_estimate(aimd, scale(aimd.rate_bps, 0.5), now_us)
            return True
        if not aimd_may_reduce(aimd, p, acked_rate_bps, now_us):
            return False
        aimd_update(aimd, p, usage, acked_rate_bps, in_alr, now_us)
    elif probe_rate_bps != NO_RATE:
        gcc.delay.has_recovered = 0
        aimd_set_estimate(aimd, probe_rate_bps, now_us)
    else:
        aimd_update(aimd, p, usage, acked_rate_bps, in_alr, now_us)
    return True


@kernel
def delay_based_end_report(
    gcc: Record, p: Record, acked_rate_bps: int, probe_rate_bps: int, in_alr: bool, now_us: int
) -> bool:
    """Call after the packets of a report. Returns whether the estimate was updated.

    Args:
        acked_rate_bps: NO_RATE while unknown.
        probe_rate_bps: NO_RATE without a probe result.
    """
    delay = gcc.delay
    is_updated = _update_rate(gcc, p, acked_rate_bps, probe_rate_bps, in_alr, now_us)
    if is_updated:
        delay.published_bps = gcc.aimd.rate_bps
    delay.usage = gcc.trendline.state
    return is_updated
