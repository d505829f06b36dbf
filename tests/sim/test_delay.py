"""Propagation and jitter: as long as they say, and out of order only where they may be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bwe_env.sim.delay import (
    DELAY,
    JITTER_NONE,
    JITTER_NORMAL,
    JITTER_UNIFORM,
    delay_arrival_us,
    delay_reset,
)

PROPAGATION_US = 25_000
SCALE_US = 10_000.0
#: Longer than any delay here: packets so far apart never wait for each other.
FAR_APART_US = 1_000_000

#: Four standard deviations: a correct generator fails one such test in 16,000.
SIGMAS = 4.0


def delay(distribution: int, *, correlation: float = 0.0) -> Any:
    row = np.zeros(1, DELAY)[0]
    row.propagation_us = PROPAGATION_US
    row.jitter_scale_us = SCALE_US
    row.jitter_correlation = correlation
    row.jitter_distribution = distribution
    delay_reset(row)
    return row


def extras_us(row: Any, count: int) -> NDArray[np.int64]:
    """Jitter of packets that do not meet."""
    sent_us = [FAR_APART_US * position for position in range(count)]
    arrivals_us = [delay_arrival_us(row, np.uint64(3), 1, now_us) for now_us in sent_us]
    return np.array(arrivals_us) - np.array(sent_us) - PROPAGATION_US


def test_without_jitter_everything_takes_the_propagation_delay() -> None:
    row = delay(JITTER_NONE)
    assert [delay_arrival_us(row, np.uint64(3), 1, now) for now in (0, 7, 7, 1_000_000)] == [
        25_000,
        25_007,
        25_007,
        1_025_000,
    ]


def test_uniform_jitter_lies_between_zero_and_twice_its_mean() -> None:
    count = 5_000
    extra = extras_us(delay(JITTER_UNIFORM), count)
    assert extra.min() >= 0
    assert extra.max() < 2 * SCALE_US
    # Floored to whole microseconds: half of one less on average.
    sd = 2 * SCALE_US / math.sqrt(12)
    assert abs(extra.mean() + 0.5 - SCALE_US) < SIGMAS * sd / math.sqrt(count)


def test_normal_jitter_is_the_positive_half_of_a_normal() -> None:
    count = 5_000
    extra = extras_us(delay(JITTER_NORMAL), count)
    assert extra.min() == 0
    assert abs((extra == 0).mean() - 0.5) < SIGMAS * 0.5 / math.sqrt(count)
    # E[max(0, x)] of a normal with sd s is s / sqrt(2 pi), E[max(0, x)^2] is s^2 / 2.
    mean = SCALE_US / math.sqrt(2 * math.pi)
    sd = math.sqrt(SCALE_US**2 / 2 - mean**2)
    assert abs(extra.mean() - mean) < SIGMAS * sd / math.sqrt(count)


def test_correlated_jitter_keeps_its_side_from_packet_to_packet_as_theory_says() -> None:
    count, rho = 5_000, 0.9
    is_late = extras_us(delay(JITTER_NORMAL, correlation=rho), count) > 0
    # Both of two normals with correlation rho lie on one side with 1/2 + asin(rho) / pi.
    same_side = 0.5 + math.asin(rho) / math.pi
    # Runs of one side last about 1 / (1 - same_side) packets; the error is wider by that much.
    error = math.sqrt(same_side * (1 - same_side) / count) / (1 - same_side)
    assert (is_late[1:] == is_late[:-1]).mean() == pytest.approx(same_side, abs=SIGMAS * error)


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 30_000), min_size=1, max_size=60),
    st.sampled_from([JITTER_UNIFORM, JITTER_NORMAL]),
    st.floats(0.0, 0.99),
)
def test_a_packet_waits_for_exactly_the_latest_before_it_unless_it_may_overtake(
    gaps_us: list[int], distribution: int, correlation: float
) -> None:
    sent_us = np.cumsum(gaps_us)
    row = delay(distribution, correlation=correlation)
    arrivals_us = [delay_arrival_us(row, np.uint64(9), 1, int(now_us)) for now_us in sent_us]
    alone = delay(distribution, correlation=correlation)
    own_us = []
    for now_us in sent_us:
        alone.last_arrival_us = 0  # as if nothing had been sent before
        own_us.append(delay_arrival_us(alone, np.uint64(9), 1, int(now_us)))
    assert arrivals_us == np.maximum.accumulate(own_us).tolist()
    free = delay(distribution, correlation=correlation)
    free.may_overtake = 1
    assert own_us == [delay_arrival_us(free, np.uint64(9), 1, int(now_us)) for now_us in sent_us]
    assert (np.array(own_us) >= sent_us + PROPAGATION_US).all()
