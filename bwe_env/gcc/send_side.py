"""The target rate: the delay-based limit, the loss-based estimate, and the RTT back-off together.

Follows GCC/send_side_bandwidth_estimation.cc of libwebrtc M150, without REMB (no receiver limit).
"""

from __future__ import annotations

from bwe_env.gcc.loss_based_classic import (
    loss_classic_clear_history,
    loss_classic_on_report,
    loss_classic_rate_bps,
    loss_classic_remember,
    loss_classic_reset,
)
from bwe_env.gcc.loss_based_v2 import (
    DELAY_BASED,
    loss_v2_is_ready,
    loss_v2_reset,
    loss_v2_set_limits,
)
from bwe_env.gcc.parameters import LOSS_V2
from bwe_env.gcc.rates import INFINITE_RATE, scale
from bwe_env.sim._jit import NEVER, Record, kernel, record

#: Floor of every minimum rate (kCongestionControllerMinBitrate, RBE/include/bwe_defines.h).
MIN_RATE_BPS = 5_000
#: The maximum rate where none is set (kDefaultMaxBitrate).
DEFAULT_MAX_RATE_BPS = 1_000_000_000

SEND_SIDE = record(
    [
        ("target_rate_bps", "i8"),
        ("min_rate_bps", "i8"),
        ("max_rate_bps", "i8"),
        ("delay_based_limit_bps", "i8"),  # INFINITE_RATE before the first feedback
        ("rtt_us", "i8"),  # from RTCP, 0 while unknown
        ("propagation_rtt_us", "i8"),  # smallest RTT of the last report, without waiting for it
        ("propagation_update_us", "i8"),  # when that was, NEVER before the first packet
        ("last_sent_us", "i8"),
        ("loss_state", "i1"),  # of loss-based estimation, when last used
    ]
)


@kernel
def send_side_reset(gcc: Record, p: Record) -> None:
    """No estimates yet; limits are to follow."""
    send_side = gcc.send_side
    send_side.target_rate_bps = 0
    send_side.delay_based_limit_bps = INFINITE_RATE
    send_side.rtt_us = 0
    send_side.propagation_rtt_us = 0
    send_side.propagation_update_us = NEVER
    send_side.last_sent_us = 0
    send_side.loss_state = DELAY_BASED
    loss_classic_reset(gcc.loss_classic)
    loss_v2_reset(gcc.loss_based, p)


@kernel
def send_side_set_limits(gcc: Record, p: Record, min_rate_bps: int, max_rate_bps: int) -> None:
    """Bounds of the target; a maximum of 0 or less means none."""
    send_side = gcc.send_side
    send_side.min_rate_bps = max(min_rate_bps, MIN_RATE_BPS)
    send_side.max_rate_bps = DEFAULT_MAX_RATE_BPS
    if max_rate_bps > 0:
        send_side.max_rate_bps = max(send_side.min_rate_bps, max_rate_bps)
    loss_v2_set_limits(gcc.loss_based, p, send_side.min_rate_bps, send_side.max_rate_bps)


@kernel
def _set_target(send_side: Record, rate_bps: int) -> None:
    limit_bps = min(send_side.delay_based_limit_bps, send_side.max_rate_bps)
    send_side.target_rate_bps = max(min(rate_bps, limit_bps), send_side.min_rate_bps)


@kernel
def send_side_jump(gcc: Record, rate_bps: int) -> None:
    """Set the target outright: a start rate or a probe result."""
    send_side = gcc.send_side
    send_side.delay_based_limit_bps = INFINITE_RATE
    _set_target(send_side, rate_bps)
    loss_classic_clear_history(gcc.loss_classic)


@kernel
def send_side_set_delay_based(send_side: Record, rate_bps: int) -> None:
    """The delay-based estimate is an upper limit."""
    send_side.delay_based_limit_bps = rate_bps
    _set_target(send_side, send_side.target_rate_bps)


@kernel
def is_rtt_above_limit(send_side: Record, p: Record) -> bool:
    """Whether the RTT, with the time since the last feedback, is too long to go on."""
    silence_us = max(send_side.last_sent_us - send_side.propagation_update_us, 0)
    return bool(silence_us + send_side.propagation_rtt_us > p.rtt_limit_us)


@kernel
def _back_off(gcc: Record, p: Record, now_us: int) -> None:
    """The RTT is above its limit: fall step by step."""
    send_side = gcc.send_side
    rate_bps = send_side.target_rate_bps
    is_time = now_us - gcc.loss_classic.decreased_us >= p.rtt_drop_interval_us
    if is_time and rate_bps > p.rtt_drop_floor_bps:
        gcc.loss_classic.decreased_us = now_us
        rate_bps = max(scale(rate_bps, p.rtt_drop_factor), p.rtt_drop_floor_bps)
    _set_target(send_side, rate_bps)


@kernel
def _follows_delay_based(gcc: Record, p: Record, now_us: int) -> bool:
    """Whether the call is young and free of loss, so that the delay-based estimate leads."""
    first_us = gcc.loss_classic.first_report_us
    is_young = first_us == NEVER or now_us - first_us < p.start_phase_us
    limit_bps = gcc.send_side.delay_based_limit_bps
    is_above = gcc.send_side.target_rate_bps < limit_bps < INFINITE_RATE
    return bool(is_young and gcc.loss_classic.loss_q8 == 0 and is_above)


@kernel
def send_side_update(gcc: Record, p: Record, now_us: int) -> None:
    """Bring the target up to date; called every 25 ms and at every report."""
    send_side = gcc.send_side
    classic = gcc.loss_classic
    if is_rtt_above_limit(send_side, p):
        _back_off(gcc, p, now_us)
    elif p.loss_estimator == LOSS_V2 and loss_v2_is_ready(gcc.loss_based, p):
        send_side.loss_state = gcc.loss_based.state
        _set_target(send_side, gcc.loss_based.result_bps)
    elif _follows_delay_based(gcc, p, now_us):
        loss_classic_clear_history(classic)
        loss_classic_remember(classic, p, send_side.target_rate_bps, now_us)
        _set_target(send_side, send_side.delay_based_limit_bps)
    else:
        rate_bps = send_side.target_rate_bps
        loss_classic_remember(classic, p, rate_bps, now_us)
        _set_target(
            send_side, loss_classic_rate_bps(classic, p, rate_bps, send_side.rtt_us, now_us)
        )


@kernel
def send_side_on_loss_report(
    gcc: Record, p: Record, lost_packets: int, expected_packets: int, now_us: int
) -> None:
    """An RTCP receiver report."""
    if loss_classic_on_report(gcc.loss_classic, p, lost_packets, expected_packets, now_us):
        send_side_update(gcc, p, now_us)
