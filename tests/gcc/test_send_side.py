"""The target rate: classic loss rules, start phase and RTT back-off, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bwe_env.gcc.send_side import (
    is_rtt_above_limit,
    send_side_jump,
    send_side_on_loss_report,
    send_side_set_delay_based,
    send_side_update,
)
from tests.gcc.records import controller, parameters

P = parameters(loss_estimator="classic")
S = 1_000_000


@pytest.fixture
def gcc() -> Any:
    return controller(P, start_rate_bps=1_000_000)


def report(gcc: Any, lost: int, expected: int, now_us: int) -> int:
    send_side_on_loss_report(gcc, P, lost, expected, now_us)
    return int(gcc.send_side.target_rate_bps)


def past_the_start_phase(gcc: Any) -> None:
    report(gcc, 0, 1, 0)  # too few packets to count, but it starts the clock
    send_side_update(gcc, P, 3 * S)


def test_up_to_2_percent_loss_the_rate_grows_by_8_percent_of_the_last_second_and_1_kbps(
    gcc: Any,
) -> None:
    past_the_start_phase(gcc)
    assert report(gcc, 1, 100, 3 * S) == 1_081_000  # 2/256
    # Within the same second the growth is still that of 1 Mbps.
    assert report(gcc, 2, 100, 3 * S + 500_000) == 1_081_000
    assert report(gcc, 0, 100, 4 * S + 600_000) == int(1_081_000 * 1.08 + 0.5) + 1_000


def test_between_2_and_10_percent_loss_the_rate_stays(gcc: Any) -> None:
    past_the_start_phase(gcc)
    assert report(gcc, 3, 100, 3 * S) == 1_000_000
    assert report(gcc, 10, 100, 4 * S) == 1_000_000  # 25/256 is below 10 percent


def test_above_10_percent_loss_the_rate_falls_by_half_of_the_loss(gcc: Any) -> None:
    past_the_start_phase(gcc)
    lost_q8 = 20 * 256 // 100
    # 99 packets and the one of the first report.
    assert report(gcc, 20, 99, 3 * S) == 1_000_000 * (512 - lost_q8) // 512


def test_the_rate_falls_once_per_report_and_once_per_300_ms_plus_rtt(gcc: Any) -> None:
    gcc.send_side.rtt_us = 100_000
    past_the_start_phase(gcc)
    low_bps = report(gcc, 20, 100, 3 * S)
    send_side_update(gcc, P, 3 * S + 900_000)
    assert gcc.send_side.target_rate_bps == low_bps
    assert report(gcc, 20, 100, 3 * S + 399_999) == low_bps
    assert report(gcc, 20, 100, 3 * S + 400_000) < low_bps


def test_reports_add_up_until_they_cover_20_packets(gcc: Any) -> None:
    past_the_start_phase(gcc)
    assert report(gcc, 5, 18, 3 * S) == 1_000_000
    assert gcc.loss_classic.loss_q8 == 0
    report(gcc, 0, 1, 4 * S)  # 20 packets with the one of the first report
    assert gcc.loss_classic.loss_q8 == 5 * 256 // 20


def test_a_report_older_than_6_s_says_nothing(gcc: Any) -> None:
    past_the_start_phase(gcc)
    grown_bps = report(gcc, 0, 100, 3 * S)
    send_side_update(gcc, P, 8 * S + 999_999)
    assert gcc.send_side.target_rate_bps > grown_bps
    grown_bps = int(gcc.send_side.target_rate_bps)
    send_side_update(gcc, P, 9 * S)
    assert gcc.send_side.target_rate_bps == grown_bps


def test_a_young_call_without_loss_follows_the_delay_based_estimate_up(gcc: Any) -> None:
    send_side_set_delay_based(gcc.send_side, 2_000_000)
    send_side_update(gcc, P, 1 * S)
    assert gcc.send_side.target_rate_bps == 2_000_000


def test_the_delay_based_estimate_is_an_upper_limit(gcc: Any) -> None:
    send_side_set_delay_based(gcc.send_side, 700_000)
    assert gcc.send_side.target_rate_bps == 700_000


def test_a_jump_lifts_that_limit(gcc: Any) -> None:
    send_side_set_delay_based(gcc.send_side, 700_000)
    send_side_jump(gcc, 900_000)
    assert gcc.send_side.target_rate_bps == 900_000


def test_3_s_without_feedback_lower_the_rate_by_a_fifth_every_second_down_to_5_kbps() -> None:
    gcc = controller(P, start_rate_bps=8_000, min_rate_bps=0)
    send_side = gcc.send_side
    send_side.propagation_update_us = 10 * S
    send_side.last_sent_us = 13 * S
    assert not is_rtt_above_limit(send_side, P)
    send_side.last_sent_us = 13 * S + 1_000
    assert is_rtt_above_limit(send_side, P)
    rates = []
    for now_us in range(13 * S, 17 * S, S // 2):
        send_side_update(gcc, P, now_us)
        rates.append(int(send_side.target_rate_bps))
    assert rates == [6_400, 6_400, 5_120, 5_120, 5_000, 5_000, 5_000, 5_000]


def test_the_rtt_itself_counts_against_the_limit() -> None:
    gcc = controller(P)
    gcc.send_side.propagation_update_us = 0
    gcc.send_side.propagation_rtt_us = 3 * S
    assert not is_rtt_above_limit(gcc.send_side, P)
    gcc.send_side.propagation_rtt_us = 3 * S + 1
    assert is_rtt_above_limit(gcc.send_side, P)
