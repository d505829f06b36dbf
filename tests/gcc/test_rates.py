"""Units round as libwebrtc's do (rtc_base/units/unit_base.h)."""

from __future__ import annotations

import pytest

from bwe_env.gcc.rates import bytes_in, floor_to_ms, rate_of, round_to_ms, scale


@pytest.mark.parametrize(
    ("amount", "factor", "expected"), [(10, 0.25, 3), (10, 0.24, 2), (7, 0.5, 4), (0, 3.0, 0)]
)
def test_a_unit_times_a_number_is_rounded_half_up(
    amount: int, factor: float, expected: int
) -> None:
    assert scale(amount, factor) == expected


def test_bytes_over_time_are_truncated_to_a_rate() -> None:
    assert rate_of(1000, 3_000_000) == 2_666


def test_a_rate_over_a_time_is_rounded_to_bytes() -> None:
    assert bytes_in(900_000, 15_000) == 1_688  # 1687.5
    assert bytes_in(900_000, 14_995) == 1_687


def test_packet_times_are_floored_and_durations_rounded_to_milliseconds() -> None:
    assert floor_to_ms(12_999) == 12_000
    assert round_to_ms(12_500) == 13_000
    assert round_to_ms(12_499) == 12_000
