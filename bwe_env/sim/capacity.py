"""A position in a periodic, piecewise-constant capacity trace, and exact integrals from there."""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, kernel, record

SEGMENT = record(
    [
        ("start_us", "i8"),  # since the start of its trace
        ("duration_us", "i8"),
        ("capacity_bps", "f8"),
    ]
)

CURSOR = record(
    [
        ("first", "i8"),  # the trace is segments[first:last + 1]
        ("last", "i8"),
        ("segment", "i8"),  # the one we stand in
        ("end_us", "i8"),  # call time at which this segment ends
        ("capacity_bps", "f8"),  # capacity in this segment
        ("scale", "f8"),  # of all capacities
    ]
)

_US_TO_S = 1e-6
_S_TO_US = 1e6


@kernel
def cursor_reset(
    cursor: Record, segments: np.ndarray, first: int, last: int, start_us: int, scale: float
) -> None:
    """Stand at call time 0, which is `start_us` into the trace (taken modulo its period).

    Args:
        scale: factor, > 0, on every capacity of the trace.
    """
    low = first
    high = last
    position_us = start_us % (segments[last].start_us + segments[last].duration_us)
    while low < high:
        middle = (low + high + 1) // 2
        if segments[middle].start_us <= position_us:
            low = middle
        else:
            high = middle - 1
    cursor.first = first
    cursor.last = last
    cursor.segment = low
    cursor.end_us = segments[low].start_us + segments[low].duration_us - position_us
    cursor.scale = scale
    cursor.capacity_bps = scale * segments[low].capacity_bps


@kernel
def cursor_copy(target: Record, source: Record) -> None:
    """Stand where another cursor stands."""
    target.first = source.first
    target.last = source.last
    target.segment = source.segment
    target.end_us = source.end_us
    target.capacity_bps = source.capacity_bps
    target.scale = source.scale


@kernel
def cursor_next(cursor: Record, segments: np.ndarray) -> None:
    """Step to the next segment; after the last comes the first again."""
    segment = cursor.segment + 1
    if segment > cursor.last:
        segment = cursor.first
    cursor.segment = segment
    cursor.end_us += segments[segment].duration_us
    cursor.capacity_bps = cursor.scale * segments[segment].capacity_bps


@kernel
def cursor_seek(cursor: Record, segments: np.ndarray, time_us: float) -> float:
    """Move forward to `time_us` and return the capacity there, in bps."""
    while time_us >= cursor.end_us:
        cursor_next(cursor, segments)
    return float(cursor.capacity_bps)


@kernel
def serve_until_us(cursor: Record, segments: np.ndarray, start_us: float, bits: float) -> float:
    """When a server that starts at `start_us` has served `bits`, integrating over every change.

    A trace holds at least one positive capacity, so the walk ends. Time stays in floating-point
    microseconds, because rounding each packet's end would add up to another capacity.
    """
    cursor_seek(cursor, segments, start_us)
    time_us = start_us
    remaining_bits = bits
    while True:
        capacity_bps = cursor.capacity_bps
        room_bits = capacity_bps * (cursor.end_us - time_us) * _US_TO_S
        if capacity_bps > 0.0 and room_bits >= remaining_bits:
            return time_us + remaining_bits / capacity_bps * _S_TO_US
        remaining_bits -= room_bits
        time_us = float(cursor.end_us)
        cursor_next(cursor, segments)


@kernel
def capacity_bits(cursor: Record, segments: np.ndarray, from_us: int, until_us: int) -> float:
    """Integral of the capacity over ``[from_us, until_us)``; leaves the cursor at `until_us`."""
    bits = 0.0
    time_us = from_us
    while cursor.end_us <= until_us:
        bits += cursor.capacity_bps * (cursor.end_us - time_us) * _US_TO_S
        time_us = cursor.end_us
        cursor_next(cursor, segments)
    return bits + cursor.capacity_bps * (until_us - time_us) * _US_TO_S
