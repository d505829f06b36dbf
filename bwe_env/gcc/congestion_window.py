"""The window of bytes in flight, and the pushback on the encoder when it is full.

Follows GCC/congestion_window_pushback_controller.cc and UpdateCongestionWindowSize of
GCC/goog_cc_network_control.cc of libwebrtc M150. Where an action sets or scales the rate, window
and pushback are those of its target: they are the sender's, as its pacer is, and not an estimate.
"""

from __future__ import annotations

from bwe_env.gcc.rates import bytes_in
from bwe_env.sim._jit import Record, kernel, record

#: Reports whose largest RTT is remembered (kMaxFeedbackRttWindow).
_RTT_WINDOW = 32

#: Fill of the window and what it does to the encoder's share of the target (UpdateTargetBitrate).
_FILL_HIGH, _FACTOR_HIGH = 1.5, 0.9
_FILL_FULL, _FACTOR_FULL = 1.0, 0.95
_FILL_LOW, _FACTOR_RECOVER = 0.1, 1.05

CONGESTION_WINDOW = record(
    [
        ("window_bytes", "i8"),  # 0 for none yet
        ("in_flight_bytes", "i8"),
        ("encoder_ratio", "f8"),  # share of the target left to the encoder, at most 1
        ("num_rtts", "i8"),  # reports so far
        ("min_rtt_us", "i8"),  # the smallest of these
        ("set_target_bps", "i8"),  # in force in place of GCC's own; 0 while GCC drives
        ("max_rtts_us", "i8", (_RTT_WINDOW,)),  # largest RTT in each of the last reports
    ]
)


@kernel
def window_reset(window: Record) -> None:
    """No window before the first feedback."""
    window.window_bytes = 0
    window.in_flight_bytes = 0
    window.encoder_ratio = 1.0
    window.num_rtts = 0
    window.set_target_bps = 0


@kernel
def window_add_rtt(window: Record, max_rtt_us: int) -> None:
    """Remember the largest RTT of one more report."""
    window.max_rtts_us[window.num_rtts % _RTT_WINDOW] = max_rtt_us
    window.num_rtts += 1
    min_rtt_us = max_rtt_us
    for row in range(min(window.num_rtts, _RTT_WINDOW)):
        min_rtt_us = min(min_rtt_us, window.max_rtts_us[row])
    window.min_rtt_us = min_rtt_us


@kernel
def window_target_bps(window: Record, gcc_target_bps: int) -> int:
    """The target that the window is to carry: whoever sets the rate, its data are in flight."""
    return int(window.set_target_bps if window.set_target_bps > 0 else gcc_target_bps)


@kernel
def window_update(window: Record, p: Record, target_rate_bps: int) -> None:
    """Follow target rate and RTT: what they carry together, averaged with the window before."""
    size_bytes = bytes_in(target_rate_bps, window.min_rtt_us + p.cwnd_queue_us)
    if window.window_bytes > 0:
        size_bytes = (size_bytes + window.window_bytes) // 2
    window.window_bytes = max(size_bytes, p.cwnd_min_bytes)


@kernel
def window_pushback_rate_bps(window: Record, p: Record, target_rate_bps: int) -> int:
    """Move the encoder's share by the fill of the window and apply it to the target."""
    if window.window_bytes == 0:
        return target_rate_bps
    fill = window.in_flight_bytes / window.window_bytes
    if fill > _FILL_HIGH:
        window.encoder_ratio *= _FACTOR_HIGH
    elif fill > _FILL_FULL:
        window.encoder_ratio *= _FACTOR_FULL
    elif fill < _FILL_LOW:
        window.encoder_ratio = 1.0
    else:
        window.encoder_ratio = min(window.encoder_ratio * _FACTOR_RECOVER, 1.0)
    rate_bps = int(target_rate_bps * window.encoder_ratio)
    if rate_bps < p.cwnd_min_rate_bps:
        return int(min(target_rate_bps, p.cwnd_min_rate_bps))
    return rate_bps
