"""The delay slope and the over-use detector (GCC/trendline_estimator.cc)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bwe_env.gcc.trendline import (
    DELAY_SAMPLE,
    NORMAL,
    OVERUSING,
    TRENDLINE,
    UNDERUSING,
    linear_fit_slope,
    trendline_reset,
    trendline_update,
)
from tests.gcc.records import parameters

P = parameters()


@pytest.fixture
def trendline() -> Any:
    row = np.zeros(1, TRENDLINE)[0]
    trendline_reset(row, P)
    return row


def feed(trendline: Any, extra_ms: float, groups: int) -> list[int]:
    """Groups sent every 20 ms whose delay grows by `extra_ms` each; the states after each."""
    states = []
    delta_us = int(1000 * (20 + extra_ms))
    for _ in range(groups):
        last = (
            trendline.samples[(trendline.head - 1) % 20].arrival_ms if trendline.num_deltas else 0
        )
        arrival_us = int(trendline.first_arrival_us + 1000 * last) + delta_us
        trendline_update(trendline, P, delta_us, 20_000, arrival_us)
        states.append(int(trendline.state))
    return states


def samples_of(points: list[tuple[float, float]]) -> Any:
    samples = np.zeros(len(points), DELAY_SAMPLE)
    samples["arrival_ms"], samples["delay_ms"] = zip(*points, strict=True)
    return samples


def test_the_slope_of_an_exact_line_is_its_slope_wherever_the_ring_begins() -> None:
    line = [(20.0 * i, 3.0 + 0.125 * 20.0 * i) for i in range(20)]
    for first in (0, 7, 19):
        rotated = line[-first:] + line[:-first] if first else line
        assert linear_fit_slope(samples_of(rotated), first, 20, 9.0) == pytest.approx(0.125)


def test_the_slope_of_three_points_is_the_least_squares_slope() -> None:
    # Mean (1, 1); sum of products 1*1 + 0*(-1) + 1*0 = 1 over sum of squares 2.
    samples = samples_of([(0.0, 0.0), (1.0, 2.0), (2.0, 1.0)])
    assert linear_fit_slope(samples, 0, 3, 9.0) == pytest.approx(0.5)


def test_groups_that_arrive_at_once_leave_the_slope_as_it_was() -> None:
    assert linear_fit_slope(samples_of([(5.0, 0.0), (5.0, 1.0)]), 0, 2, 0.75) == 0.75


def test_there_is_no_slope_before_20_groups(trendline: Any) -> None:
    feed(trendline, 5.0, 19)
    assert trendline.trend == 0.0
    feed(trendline, 5.0, 1)
    assert trendline.trend > 0.0


def test_delay_is_smoothed_with_nine_parts_old_and_one_part_new(trendline: Any) -> None:
    trendline_update(trendline, P, 30_000, 20_000, 0)  # 10 ms in sum
    assert trendline.smoothed_ms == pytest.approx(1.0)
    trendline_update(trendline, P, 25_000, 20_000, 25_000)  # 15 ms in sum
    assert trendline.smoothed_ms == pytest.approx(0.9 * 1.0 + 0.1 * 15.0)


def test_the_modified_trend_is_the_slope_times_up_to_60_deltas_times_4(trendline: Any) -> None:
    assert math.isnan(trendline.modified_trend)
    feed(trendline, 0.02, 30)
    assert trendline.modified_trend == pytest.approx(30 * 4.0 * trendline.trend)
    feed(trendline, 0.02, 50)
    assert trendline.modified_trend == pytest.approx(60 * 4.0 * trendline.trend)


def test_a_quiet_link_lowers_the_threshold_to_its_floor_of_6_ms(trendline: Any) -> None:
    feed(trendline, 0.0, 2)
    # The first adaptation only starts the clock.
    assert trendline.threshold == 12.5
    feed(trendline, 0.0, 1)
    assert trendline.threshold == 6.0  # max(6, 12.5 + 0.039 * (0 - 12.5) * 20)


def test_a_growing_delay_becomes_overuse_and_a_falling_one_underuse(trendline: Any) -> None:
    grows = feed(trendline, 4.0, 30)
    assert grows[:19] == [NORMAL] * 19
    assert OVERUSING in grows[19:]
    assert UNDERUSING not in grows
    falls = feed(trendline, -4.0, 40)
    assert falls[-1] == UNDERUSING


def test_one_group_above_the_threshold_is_not_yet_overuse(trendline: Any) -> None:
    states = feed(trendline, 4.0, 21)
    # Group 20 gives the first slope: above the threshold for half of 20 ms, and only once.
    assert states[19] == NORMAL
    assert trendline.state == OVERUSING


def test_overuse_is_not_signalled_while_the_slope_falls(trendline: Any) -> None:
    feed(trendline, 4.0, 20)
    trendline.trend = 10.0  # as if the slope before had been steeper
    assert feed(trendline, 4.0, 1) == [NORMAL]
    assert trendline.overuse_counter == 2


def test_only_a_trend_within_15_ms_above_the_threshold_raises_it(trendline: Any) -> None:
    feed(trendline, 4.0, 200)
    trend_ms = float(trendline.modified_trend)
    trendline.threshold = trend_ms - 15.5
    feed(trendline, 4.0, 1)
    assert trendline.threshold == trend_ms - 15.5
    trendline.threshold = trend_ms - 14.5
    feed(trendline, 4.0, 1)
    raised_ms = 0.0087 * 14.5 * 24.0  # one group every 24 ms
    assert trendline.threshold == pytest.approx(trend_ms - 14.5 + raised_ms, rel=1e-3)
