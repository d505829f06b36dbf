"""Unit conversions: the one place where a factor of 8 or of a million may stand.

Inside the simulator every timestamp is int64 microseconds (`_us`), every rate bits per second
(`_bps`), every size bytes. Configurations say seconds (`_s`), people see milliseconds (`_ms`).
"""

from __future__ import annotations

US_PER_S = 1_000_000
US_PER_MS = 1_000
MS_PER_S = 1_000
BITS_PER_BYTE = 8


def s_to_us(seconds: float) -> int:
    """Seconds as whole microseconds, rounded to nearest."""
    return round(seconds * US_PER_S)


def us_to_s(microseconds: float) -> float:
    """Microseconds as seconds."""
    return microseconds / US_PER_S


def us_to_ms(microseconds: float) -> float:
    """Microseconds as milliseconds."""
    return microseconds / US_PER_MS


def ms_to_s(milliseconds: float) -> float:
    """Milliseconds as seconds."""
    return milliseconds / MS_PER_S


def s_to_ms(seconds: float) -> float:
    """Seconds as milliseconds."""
    return seconds * MS_PER_S


def mbps_to_bps(megabits_per_second: float) -> float:
    """Megabits per second as bits per second."""
    return megabits_per_second * 1e6


def bps_to_mbps(bits_per_second: float) -> float:
    """Bits per second as megabits per second."""
    return bits_per_second / 1e6


def kbps_to_bps(kilobits_per_second: float) -> float:
    """Kilobits per second as bits per second."""
    return kilobits_per_second * 1e3


def bps_to_kbps(bits_per_second: float) -> float:
    """Bits per second as kilobits per second."""
    return bits_per_second / 1e3
