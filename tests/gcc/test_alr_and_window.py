"""Application-limited phases, the congestion window, and the pushback of a full window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bwe_env.gcc.alr_detector import ALR_DETECTOR, alr_on_packet_sent, alr_reset, alr_set_rate
from bwe_env.gcc.congestion_window import (
    CONGESTION_WINDOW,
    window_add_rtt,
    window_pushback_rate_bps,
    window_reset,
    window_update,
)
from tests.gcc.records import parameters

P = parameters()
MS = 1_000


@pytest.fixture
def alr() -> Any:
    row = np.zeros(1, ALR_DETECTOR)[0]
    alr_reset(row)
    alr_set_rate(row, P, 1_000_000)
    return row


def send(alr: Any, rate_bps: int, from_ms: int, until_ms: int) -> list[int]:
    """Packets every 10 ms; the ms after which the phase changed."""
    changes = []
    for now_ms in range(from_ms, until_ms, 10):
        before = alr.in_alr
        alr_on_packet_sent(alr, P, rate_bps // 800, now_ms * MS)
        if alr.in_alr != before:
            changes.append(now_ms)
    return changes


def test_the_budget_is_80_percent_of_the_target_and_half_a_second_deep(alr: Any) -> None:
    assert alr.rate_kbps == 800
    assert alr.max_bytes == 50_000


def test_sending_half_of_the_target_starts_the_phase_once_40_percent_are_unused(alr: Any) -> None:
    # 500 of 800 kbps: 375 bytes unused per 10 ms; 20,000 are exceeded after the 54th.
    assert send(alr, 500_000, 0, 2_000) == [540]
    assert alr.started_us == 540 * MS


def test_sending_80_percent_or_more_never_starts_it(alr: Any) -> None:
    assert send(alr, 800_000, 0, 60_000) == []


def test_the_phase_ends_only_after_overdrawing_60_percent(alr: Any) -> None:
    send(alr, 100_000, 0, 2_000)
    assert alr.in_alr == 1
    # From +50,000 bytes to below -30,000 at 250 bytes per 10 ms more than the budget.
    (ended_ms,) = send(alr, 1_000_000, 2_000, 20_000)
    assert ended_ms == pytest.approx(2_000 + 10 * 80_000 / 250, abs=200)


def test_a_lower_target_shrinks_what_was_saved_up(alr: Any) -> None:
    send(alr, 100_000, 0, 2_000)
    alr_set_rate(alr, P, 100_000)
    assert alr.budget_bytes == alr.max_bytes == 5_000


@pytest.fixture
def window() -> Any:
    row = np.zeros(1, CONGESTION_WINDOW)[0]
    window_reset(row)
    return row


def test_the_window_holds_target_times_rtt_plus_350_ms(window: Any) -> None:
    window_add_rtt(window, 50 * MS)
    window_update(window, P, 1_000_000)
    assert window.window_bytes == 50_000


def test_the_window_moves_half_way_to_its_goal_at_every_update(window: Any) -> None:
    window_add_rtt(window, 50 * MS)
    window_update(window, P, 1_000_000)
    window_update(window, P, 2_000_000)
    assert window.window_bytes == 75_000


def test_the_smallest_of_the_last_32_rtts_counts(window: Any) -> None:
    window_add_rtt(window, 50 * MS)
    for _ in range(31):
        window_add_rtt(window, 450 * MS)
    window_update(window, P, 1_000_000)
    assert window.window_bytes == 50_000
    window_add_rtt(window, 450 * MS)
    window.window_bytes = 0
    window_update(window, P, 1_000_000)
    assert window.window_bytes == 100_000


def test_the_window_is_never_below_two_full_packets(window: Any) -> None:
    window_add_rtt(window, 50 * MS)
    window_update(window, P, 30_000)
    assert window.window_bytes == 3_000


@pytest.mark.parametrize(
    ("in_flight", "ratio"),
    [(15_001, 0.9 * 0.5), (10_001, 0.95 * 0.5), (1_000, 1.05 * 0.5), (999, 1)],
)
def test_the_fill_of_the_window_moves_the_share_left_to_the_encoder(
    window: Any, in_flight: int, ratio: float
) -> None:
    window.window_bytes = 10_000
    window.encoder_ratio = 0.5
    window.in_flight_bytes = in_flight
    assert window_pushback_rate_bps(window, P, 1_000_000) == int(1_000_000 * ratio)


def test_the_share_never_exceeds_the_whole(window: Any) -> None:
    window.window_bytes = 10_000
    window.in_flight_bytes = 5_000
    assert window_pushback_rate_bps(window, P, 1_000_000) == 1_000_000


def test_pushback_stops_at_30_kbps_or_at_the_target_if_that_is_lower(window: Any) -> None:
    window.window_bytes = 10_000
    window.in_flight_bytes = 20_000
    window.encoder_ratio = 0.01
    assert window_pushback_rate_bps(window, P, 1_000_000) == 30_000
    assert window_pushback_rate_bps(window, P, 20_000) == 20_000


def test_without_a_window_nothing_is_pushed_back(window: Any) -> None:
    window.in_flight_bytes = 1_000_000
    assert window_pushback_rate_bps(window, P, 1_000_000) == 1_000_000
