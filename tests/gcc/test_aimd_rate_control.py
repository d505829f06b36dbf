"""Increase and decrease of the delay-based estimate, by hand (RBE/aimd_rate_control.cc)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bwe_env.gcc.aimd_rate_control import (
    AIMD,
    HOLD,
    INCREASE,
    additive_increase_bps_per_s,
    aimd_may_reduce,
    aimd_reset,
    aimd_set_estimate,
    aimd_update,
    link_capacity_lower_bound,
    link_capacity_on_overuse,
    link_capacity_upper_bound,
)
from bwe_env.gcc.rates import INFINITE_RATE, NO_RATE
from bwe_env.gcc.trendline import NORMAL, OVERUSING, UNDERUSING
from tests.gcc.records import parameters

P = parameters()


def at(rate_bps: int, p: Any = P) -> Any:
    row = np.zeros(1, AIMD)[0]
    aimd_reset(row, p, 30_000, rate_bps)
    return row


def update(
    aimd: Any, usage: int, acked_bps: int, now_us: int, *, in_alr: bool = False, p: Any = P
) -> int:
    aimd_update(aimd, p, np.int8(usage), acked_bps, in_alr, now_us)
    return int(aimd.rate_bps)


def test_overuse_lowers_the_rate_to_85_percent_of_the_acknowledged_rate_minus_5_kbps() -> None:
    aimd = at(1_200_000)
    assert update(aimd, OVERUSING, 1_000_000, 1_000_000) == 850_000 - 5_000
    assert aimd.state == HOLD


def test_overuse_never_raises_the_rate() -> None:
    aimd = at(500_000)
    assert update(aimd, OVERUSING, 1_000_000, 1_000_000) == 500_000


def test_overuse_below_the_link_capacity_falls_to_85_percent_of_the_capacity() -> None:
    aimd = at(900_000)
    update(aimd, OVERUSING, 1_000_000, 1_000_000)  # capacity 1000 kbps
    aimd_set_estimate(aimd, 900_000, 1_100_000)
    # 0.85 * 1.1 Mbps is above the rate: the capacity of 0.95 * 1000 + 0.05 * 1100 counts instead,
    # and that was 1000 kbps before this over-use.
    assert update(aimd, OVERUSING, 1_100_000, 1_200_000) == 850_000


def test_the_rate_stays_above_the_configured_minimum() -> None:
    aimd = at(100_000)
    assert update(aimd, OVERUSING, 20_000, 1_000_000) == 30_000


def test_the_rate_grows_by_8_percent_per_second_while_the_capacity_is_unknown() -> None:
    aimd = at(1_000_000)
    update(aimd, NORMAL, 1_000_000, 0)  # begins to increase
    rate = update(aimd, NORMAL, 1_000_000, 500_000)
    assert rate == 1_000_000 + 1_000 + round(1_001_000 * (math.pow(1.08, 0.5) - 1))
    assert aimd.state == INCREASE


def test_multiplicative_growth_counts_one_second_at_most_and_1_kbps_at_least() -> None:
    aimd = at(100_000)
    assert update(aimd, NORMAL, 100_000, 0) == 101_000
    assert update(aimd, NORMAL, 100_000, 50_000) == 102_000
    assert update(aimd, NORMAL, 100_000, 9_000_000) == 102_000 + 8_160


def test_near_the_capacity_the_rate_grows_by_one_packet_per_response_time() -> None:
    # A frame of 1 Mbps is 4167 bytes: 4 packets of 1042 bytes; 2 * (100 + 100) ms to respond.
    assert additive_increase_bps_per_s(1_000_000, 100_000, P) == 1042 * 8 / 0.4
    # 50 kbps: one packet of 208 bytes would give 1387 bps/s at 500 ms; the floor is 4000.
    assert additive_increase_bps_per_s(50_000, 500_000, P) == 4_000


def test_after_overuse_the_growth_is_additive() -> None:
    aimd = at(1_000_000)
    aimd.rtt_us = 100_000
    low = update(aimd, OVERUSING, 1_000_000, 0)
    update(aimd, NORMAL, 1_000_000, 100_000)
    slope = additive_increase_bps_per_s(low, 100_000, P)
    assert update(aimd, NORMAL, 1_000_000, 1_100_000) == pytest.approx(low + slope, abs=1)


def test_the_rate_is_not_raised_above_one_and_a_half_times_the_acknowledged_rate() -> None:
    aimd = at(300_000)
    for i in range(200):
        rate = update(aimd, NORMAL, 400_000, i * 1_000_000)
    assert rate == 610_000
    aimd_set_estimate(aimd, 900_000, 0)  # a probe may go beyond …
    assert update(aimd, NORMAL, 400_000, 1_000_000) == 900_000  # … and is not taken back


def test_underuse_holds_and_normal_use_increases_from_then_on() -> None:
    aimd = at(500_000)
    assert update(aimd, UNDERUSING, 500_000, 1_000_000) == 500_000
    assert aimd.state == HOLD
    # The time spent on hold does not count as growth: only the floor of 1 kbps does.
    assert update(aimd, NORMAL, 500_000, 60_000_000) == 501_000


def test_the_increase_in_an_application_limited_phase_can_be_switched_off() -> None:
    off = parameters(increase_in_alr=False)
    assert update(at(500_000, off), NORMAL, 500_000, 1_000_000, in_alr=True, p=off) == 500_000
    assert update(at(500_000), NORMAL, 500_000, 1_000_000, in_alr=True) == 501_000


def test_without_an_acknowledged_rate_the_last_one_counts() -> None:
    aimd = at(300_000)
    update(aimd, NORMAL, 200_000, 0)
    assert update(aimd, OVERUSING, NO_RATE, 1_000_000) == 170_000 - 5_000


def test_the_link_capacity_averages_with_a_weight_of_5_percent_and_bounds_itself() -> None:
    aimd = at(1_000_000)
    capacity = aimd.link_capacity
    assert link_capacity_upper_bound(capacity, P) == INFINITE_RATE
    assert link_capacity_lower_bound(capacity, P) == 0
    link_capacity_on_overuse(capacity, P, 1_000_400)
    assert capacity.estimate_kbps == 1000.0  # whole kbps
    link_capacity_on_overuse(capacity, P, 1_100_000)
    assert capacity.estimate_kbps == pytest.approx(1005.0)
    # error 95 kbps: 0.95 * 0.4 + 0.05 * 95 * 95 / 1005, well inside [0.4, 2.5]
    deviation = 0.95 * 0.4 + 0.05 * 95.0**2 / 1005.0
    assert capacity.deviation_kbps == pytest.approx(deviation, rel=1e-6)
    margin_bps = 3000.0 * math.sqrt(deviation * 1005.0)
    assert link_capacity_upper_bound(capacity, P) == pytest.approx(1_005_000 + margin_bps, abs=1)
    assert link_capacity_lower_bound(capacity, P) == pytest.approx(1_005_000 - margin_bps, abs=1)


def test_an_acknowledged_rate_outside_the_band_disproves_the_capacity() -> None:
    aimd = at(1_000_000)
    update(aimd, OVERUSING, 1_000_000, 0)
    update(aimd, NORMAL, 1_200_000, 100_000)
    assert aimd.link_capacity.estimate_kbps == NO_RATE
    update(aimd, OVERUSING, 1_000_000, 200_000)
    update(aimd, OVERUSING, 500_000, 300_000)
    assert aimd.link_capacity.estimate_kbps == 500.0


def test_the_rate_falls_at_most_once_per_rtt_unless_it_is_twice_too_high() -> None:
    aimd = at(1_000_000)
    aimd.rtt_us = 100_000
    aimd_set_estimate(aimd, 1_000_000, 1_000_000)
    assert not aimd_may_reduce(aimd, P, 900_000, 1_099_999)
    assert aimd_may_reduce(aimd, P, 900_000, 1_100_000)
    assert not aimd_may_reduce(aimd, P, 500_000, 1_050_000)
    assert aimd_may_reduce(aimd, P, 499_999, 1_050_000)
    aimd.rtt_us = 900_000  # counts as 200 ms
    assert aimd_may_reduce(aimd, P, 900_000, 1_200_000)
