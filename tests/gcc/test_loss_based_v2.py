"""The loss-based estimate v2: its model, its averages, its bounds (GCC/loss_based_bwe_v2.cc)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.gcc.loss_based_v2 import (
    DECREASING,
    DELAY_BASED,
    INCREASING_WITH_PADDING,
    LOSS_BASED_V2,
    average_loss_ratio,
    feasible_inherent_loss,
    high_bandwidth_bias,
    loss_probability,
    loss_v2_add_packet,
    loss_v2_is_ready,
    loss_v2_reset,
    loss_v2_set_acked_rate,
    loss_v2_set_limits,
    loss_v2_update,
    median_send_rate_bps,
)
from tests.gcc.records import parameters

P = parameters()
OBSERVATION_US = 250_000


def new_loss(p: Any = P) -> Any:
    row = np.zeros(1, LOSS_BASED_V2)[0]
    loss_v2_reset(row, p)
    loss_v2_set_limits(row, p, 30_000, 10_000_000)
    return row


@pytest.fixture
def loss() -> Any:
    return new_loss()


def observe(
    loss: Any,
    index: int,
    *,
    rate_bps: int = 1_000_000,
    lost_ratio: float = 0.0,
    delay_based_bps: int = 1_500_000,
    in_alr: bool = False,
) -> None:
    """One observation: 250 ms of packets at a rate, a share of them lost."""
    packets = rate_bps * OBSERVATION_US // 8_000_000 // 1000
    lost = round(packets * lost_ratio)
    for i in range(packets):
        loss_v2_add_packet(loss, 1000 * index + i, 1000, i >= lost)
    first_us = index * OBSERVATION_US
    loss_v2_update(loss, P, first_us, first_us + OBSERVATION_US, delay_based_bps, in_alr)


def test_below_the_bandwidth_only_the_inherent_share_is_lost() -> None:
    assert loss_probability(0.02, 1_000_000, 1_000_000) == 0.02
    assert loss_probability(0.0, 1_000_000, 500_000) == 1e-6


def test_above_the_bandwidth_the_excess_is_lost_as_well() -> None:
    expected = 0.02 + 0.98 * (1_250_000 - 1_000_000) / 1_250_000
    assert loss_probability(0.02, 1_000_000, 1_250_000) == pytest.approx(expected)
    assert loss_probability(1.0, 1, 1_000_000) == 1.0 - 1e-6


def test_inherent_loss_is_bounded_by_5_percent_plus_100_kbps_over_the_bandwidth() -> None:
    assert feasible_inherent_loss(0.5, 1_000_000, P) == pytest.approx(0.05 + 0.1)
    assert feasible_inherent_loss(0.0, 1_000_000, P) == 0.001
    assert feasible_inherent_loss(2.0, 50_000, P) == 1.0


def test_the_bias_prefers_bandwidth_below_20_percent_loss_and_turns_around_above(
    loss: Any,
) -> None:
    full = 0.0002 * 1000 + 0.02 * math.log(1001)
    loss.average_loss = 0.0
    assert high_bandwidth_bias(loss, P, 1_000_000) == pytest.approx(full * 0.2 / 0.202)
    loss.average_loss = 0.4
    assert high_bandwidth_bias(loss, P, 1_000_000) == pytest.approx(-full * 0.2 / 0.202)
    loss.average_loss = 0.2
    assert high_bandwidth_bias(loss, P, 1_000_000) == pytest.approx(0.0, abs=1e-12)


def set_observations(loss: Any, rows: list[tuple[int, int, int]]) -> None:
    for index, (size_bytes, lost_bytes, send_rate_bps) in enumerate(rows):
        observation = loss.observations[index]
        observation.id = index
        observation.size_bytes = size_bytes
        observation.lost_bytes = lost_bytes
        observation.send_rate_bps = send_rate_bps
    loss.num_observations = len(rows)


def test_the_average_loss_of_three_observations_is_weighted_by_age(loss: Any) -> None:
    set_observations(loss, [(10_000, 1000, 1), (10_000, 0, 1), (20_000, 4000, 1)])
    total = 10_000 * 0.81 + 10_000 * 0.9 + 20_000
    assert average_loss_ratio(loss, P) == pytest.approx((1000 * 0.81 + 4000) / total, rel=1e-3)


def test_the_average_loss_leaves_out_the_best_and_the_worst_observation(loss: Any) -> None:
    set_observations(
        loss,
        [(10_000, 200, 400), (10_000, 9000, 400), (10_000, 0, 400), (10_000, 400, 400)],
    )
    expected = (200 * 0.729 + 400) / (10_000 * 0.729 + 10_000)
    assert average_loss_ratio(loss, P) == pytest.approx(expected, rel=1e-3)


def test_the_worst_observation_counts_when_sent_at_twice_the_median_rate(loss: Any) -> None:
    rows = [(10_000, 200, 400), (10_000, 9000, 799), (10_000, 0, 400), (10_000, 400, 400)]
    set_observations(loss, rows)
    trimmed = average_loss_ratio(loss, P)
    rows[1] = (10_000, 9000, 800)
    set_observations(loss, rows)
    total = 10_000 * (0.729 + 0.81 + 0.9 + 1.0)
    expected = (200 * 0.729 + 9000 * 0.81 + 400) / total
    assert average_loss_ratio(loss, P) == pytest.approx(expected, rel=1e-3)
    assert trimmed < 0.05 < expected


@given(rates=st.lists(st.integers(0, 5), min_size=1, max_size=15))
@settings(deadline=None)
def test_the_median_send_rate_leaves_zeros_out(rates: list[int]) -> None:
    loss = new_loss()
    set_observations(loss, [(1, 0, rate) for rate in rates])
    positive = [rate for rate in rates if rate > 0]
    assert median_send_rate_bps(loss, P) == (int(np.median(positive)) if positive else 0)


def test_without_loss_the_delay_based_estimate_rules(loss: Any) -> None:
    for i in range(10):
        observe(loss, i)
        assert loss_v2_is_ready(loss, P) == (i >= 2)
    assert loss.state == DELAY_BASED
    assert loss.result_bps == 1_500_000


def test_a_packet_reported_lost_and_then_received_is_not_lost(loss: Any) -> None:
    loss_v2_add_packet(loss, 5, 1000, False)
    loss_v2_add_packet(loss, 6, 1000, False)
    loss_v2_add_packet(loss, 5, 1000, True)
    loss_v2_update(loss, P, 0, OBSERVATION_US, 1_000_000, False)
    assert loss.observations[0].lost_bytes == 1000
    assert loss.observations[0].size_bytes == 3000  # each report counts


def test_a_packet_reported_lost_twice_is_lost_once(loss: Any) -> None:
    loss_v2_add_packet(loss, 5, 1000, False)
    loss_v2_add_packet(loss, 5, 1000, False)
    loss_v2_update(loss, P, 0, OBSERVATION_US, 1_000_000, False)
    assert loss.observations[0].lost_bytes == 1000


def test_an_observation_closes_after_250_ms_of_send_time(loss: Any) -> None:
    loss_v2_add_packet(loss, 0, 1000, True)
    loss_v2_update(loss, P, 10_000, 259_000, 1_000_000, False)
    assert loss.num_observations == 0
    loss_v2_add_packet(loss, 1, 1000, True)
    loss_v2_update(loss, P, 259_000, 260_000, 1_000_000, False)
    assert loss.num_observations == 1
    assert loss.observations[0].send_rate_bps == 2000 * 8 * 4


def test_heavy_loss_lowers_the_estimate_at_once_to_the_instant_bound(loss: Any) -> None:
    for i in range(6):
        observe(loss, i)
    loss_v2_set_acked_rate(loss, P, 300_000)
    for i in range(6, 12):
        observe(loss, i, lost_ratio=0.4)
    assert loss.upper_bound_bps == pytest.approx(100_000 / (loss.average_loss - 0.05), rel=1e-4)
    assert loss.state == DECREASING
    assert loss.result_bps == max(300_000, loss.upper_bound_bps)


def test_the_estimate_does_not_rise_above_the_hold_rate_while_holding(loss: Any) -> None:
    for i in range(6):
        observe(loss, i)
    loss_v2_set_acked_rate(loss, P, 300_000)
    index = 6
    while loss.state != DECREASING:
        observe(loss, index, lost_ratio=0.5)
        index += 1
    hold_bps = loss.hold_rate_bps
    loss.hold_until_us = (index + 100) * OBSERVATION_US
    for i in range(index, index + 20):
        observe(loss, i)
        assert loss.result_bps <= hold_bps
        assert loss.state == DECREASING


def test_each_new_decrease_holds_twice_as_long(loss: Any) -> None:
    for i in range(6):
        observe(loss, i)
    assert loss.hold_us == 300_000
    index = 6
    while loss.state != DECREASING:
        observe(loss, index, lost_ratio=0.5)
        index += 1
    assert loss.hold_until_us == loss.last_send_us + 300_000
    assert loss.hold_us == 600_000


def test_recovery_after_loss_goes_through_padding_back_to_the_delay_based_estimate(
    loss: Any,
) -> None:
    loss_v2_set_acked_rate(loss, P, 800_000)
    for i in range(4):
        observe(loss, i)
    for i in range(4, 12):
        observe(loss, i, lost_ratio=0.5)
    assert loss.state == DECREASING
    states = []
    for i in range(12, 60):
        loss_v2_set_acked_rate(loss, P, int(loss.result_bps))
        observe(loss, i)
        states.append(int(loss.state))
    assert INCREASING_WITH_PADDING in states
    assert states[-1] == DELAY_BASED
    assert loss.hold_us == 300_000  # forgotten with it
    assert loss.result_bps == 1_500_000


@given(
    losses=st.lists(st.sampled_from([0.0, 0.02, 0.1, 0.2, 0.5, 1.0]), min_size=3, max_size=40),
    acked_bps=st.integers(10_000, 3_000_000),
    delay_based_bps=st.integers(30_000, 3_000_000),
    in_alr=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_result_lies_between_its_bounds(
    losses: list[float], acked_bps: int, delay_based_bps: int, in_alr: bool
) -> None:
    loss = new_loss()
    loss_v2_set_acked_rate(loss, P, acked_bps)
    for i, ratio in enumerate(losses):
        observe(loss, i, lost_ratio=ratio, delay_based_bps=delay_based_bps, in_alr=in_alr)
        lower_bps = max(acked_bps, 30_000)
        assert loss.lower_bound_bps == lower_bps
        assert loss.result_bps <= max(lower_bps, min(delay_based_bps, loss.upper_bound_bps))
        assert loss.result_bps >= min(lower_bps, loss.hold_rate_bps)
        assert 0.0 <= loss.average_loss <= 1.0
        assert 0.0 <= loss.inherent_loss <= 1.0


def test_the_estimate_does_not_grow_by_more_than_30_percent_per_window_while_loss_limited(
    loss: Any,
) -> None:
    loss_v2_set_acked_rate(loss, P, 200_000)
    for i in range(4):
        observe(loss, i)
    for i in range(4, 10):
        observe(loss, i, lost_ratio=0.6)
    for i in range(10, 40):
        before_bps = int(loss.bandwidth_bps)
        was_limited = loss.state != DELAY_BASED
        observe(loss, i)
        if was_limited:
            assert loss.bandwidth_bps <= max(1.3 * before_bps + 1, 200_000)
