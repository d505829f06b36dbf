"""Arithmetic of libwebrtc's units, so that results agree to the last bit per second.

Follows rtc_base/units/unit_base.h and api/units/*.h: rates are whole bits per second, sizes whole
bytes, times whole microseconds; a unit times a real number is rounded half away from zero, bytes
over a time are truncated to a rate, and a rate over a time is rounded to bytes.
"""

from __future__ import annotations

import math

from bwe_env.sim._jit import kernel

#: "Not known yet", where libwebrtc has an empty optional.
NO_RATE = -1
#: "No limit": libwebrtc's DataRate::PlusInfinity.
INFINITE_RATE = 1 << 62

#: Resolution of receive times in a transport-wide report
#: (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1).
REPORT_TICK_US = 250
#: Bits per byte times microseconds per second.
_BITS_US = 8_000_000


@kernel
def round_half_up(value: float) -> int:
    """Nearest integer of a value >= 0, halves upwards."""
    return int(math.floor(value + 0.5))


@kernel
def scale(amount: int, factor: float) -> int:
    """A rate, size or time (>= 0) times a real number (>= 0)."""
    return int(math.floor(amount * factor + 0.5))


@kernel
def rate_of(size_bytes: int, duration_us: int) -> int:
    """Bits per second of bytes over a positive time."""
    return size_bytes * _BITS_US // duration_us


@kernel
def bytes_in(rate_bps: int, duration_us: int) -> int:
    """Bytes that a rate carries in a time."""
    return (rate_bps * duration_us + _BITS_US // 2) // _BITS_US


@kernel
def floor_to_ms(time_us: int) -> int:
    """A time as the sender's socket and the feedback adapter know it: in whole milliseconds."""
    return time_us - time_us % 1000


@kernel
def reported_us(arrival_us: int) -> int:
    """An arrival as a report tells of it: to the nearest tick. What is on a tick stays there."""
    middle_us = arrival_us + REPORT_TICK_US // 2
    return middle_us - middle_us % REPORT_TICK_US


@kernel
def round_to_ms(duration_us: int) -> int:
    """A duration >= 0 in whole milliseconds, still expressed in microseconds."""
    return (duration_us + 500) // 1000 * 1000


@kernel
def seconds_of(duration_us: int) -> float:
    """A duration as libwebrtc's `TimeDelta::seconds<double>`: times 1e-6, not over 1e6."""
    return duration_us * 1e-6
