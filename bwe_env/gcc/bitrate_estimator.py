"""The acknowledged rate of the classic controller: a Bayesian filter over short windows.

Follows GCC/bitrate_estimator.cc and GCC/acknowledged_bitrate_estimator.cc of libwebrtc M150 with
WebRTC-Bwe-RobustThroughputEstimatorSettings disabled; single precision, as there.
"""

from __future__ import annotations

import numpy as np

from bwe_env.gcc.rates import NO_RATE
from bwe_env.sim._jit import NEVER, Record, kernel, record

_UNKNOWN = np.float32(-1.0)
_BITS_PER_BYTE = np.float32(8.0)
_BPS_PER_KBPS = np.float32(1000.0)

BITRATE_ESTIMATOR = record(
    [
        ("sum_bytes", "i8"),  # of the present window
        ("window_ms", "i8"),  # its age
        ("last_ms", "i8"),  # last arrival, -1 for none
        ("alr_ended_us", "i8"),  # NEVER, or when the application-limited phase ended
        ("estimate_kbps", "f4"),  # _UNKNOWN before the first window is full
        ("variance", "f4"),
    ]
)


@kernel
def bitrate_reset(estimator: Record, p: Record) -> None:
    """No estimate yet."""
    estimator.sum_bytes = 0
    estimator.window_ms = 0
    estimator.last_ms = -1
    estimator.alr_ended_us = NEVER
    estimator.estimate_kbps = _UNKNOWN
    estimator.variance = np.float32(p.bitrate_initial_variance)


@kernel
def _next_sample_kbps(
    estimator: Record, now_ms: int, size_bytes: int, window_ms: int
) -> np.float32:
    """Rate of the window that this packet completes, else _UNKNOWN."""
    if now_ms < estimator.last_ms:  # time went backwards
        estimator.last_ms = -1
        estimator.sum_bytes = 0
        estimator.window_ms = 0
    if estimator.last_ms >= 0:
        gap_ms = now_ms - estimator.last_ms
        estimator.window_ms += gap_ms
        if gap_ms > window_ms:
            estimator.sum_bytes = 0
            estimator.window_ms %= window_ms
    estimator.last_ms = now_ms
    sample_kbps = _UNKNOWN
    if estimator.window_ms >= window_ms:
        sample_kbps = _BITS_PER_BYTE * np.float32(estimator.sum_bytes) / np.float32(window_ms)
        estimator.window_ms -= window_ms
        estimator.sum_bytes = 0
    estimator.sum_bytes += size_bytes
    return sample_kbps


@kernel
def bitrate_add(
    estimator: Record, p: Record, arrival_us: int, send_us: int, size_bytes: int
) -> None:
    """Take one received packet, in order of arrival."""
    if send_us > estimator.alr_ended_us:
        estimator.variance += np.float32(p.bitrate_alr_variance)
        estimator.alr_ended_us = NEVER
    is_known = estimator.estimate_kbps >= np.float32(0.0)
    window_us = p.bitrate_window_us if is_known else p.bitrate_initial_window_us
    sample_kbps = _next_sample_kbps(estimator, arrival_us // 1000, size_bytes, window_us // 1000)
    if sample_kbps < np.float32(0.0):
        return
    if not is_known:
        estimator.estimate_kbps = sample_kbps
        return
    estimate_kbps = estimator.estimate_kbps
    if estimate_kbps <= np.float32(0.0):
        return  # a first window without bytes: libwebrtc divides 0 by 0 here
    distance = abs(estimate_kbps - sample_kbps)
    uncertainty = np.float32(p.bitrate_uncertainty_scale) * distance / estimate_kbps
    sample_variance = uncertainty * uncertainty
    variance = estimator.variance + np.float32(p.bitrate_process_noise)
    total_variance = sample_variance + variance
    weighted_kbps = sample_variance * estimate_kbps + variance * sample_kbps
    estimator.estimate_kbps = weighted_kbps / total_variance
    estimator.variance = sample_variance * variance / total_variance


@kernel
def bitrate_rate_bps(estimator: Record) -> int:
    """The acknowledged rate, NO_RATE while unknown."""
    if estimator.estimate_kbps < np.float32(0.0):
        return NO_RATE
    return int(estimator.estimate_kbps * _BPS_PER_KBPS)
