"""Grouping of packets by send time, on schedules worked by hand (GCC/inter_arrival_delta.cc)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bwe_env.gcc.inter_arrival import INTER_ARRIVAL, inter_arrival_add, inter_arrival_reset
from tests.gcc.records import parameters

P = parameters()


@pytest.fixture
def grouping() -> Any:
    row = np.zeros(1, INTER_ARRIVAL)[0]
    inter_arrival_reset(row)
    return row


def add_ms(
    grouping: Any, send_ms: int, arrival_ms: int, feedback_ms: int = 0
) -> tuple[int, int] | None:
    """(arrival delta, send delta) in ms if this packet completed a pair of groups."""
    us = 1000
    if not inter_arrival_add(grouping, P, send_ms * us, arrival_ms * us, feedback_ms * us):
        return None
    return grouping.arrival_delta_us // us, grouping.send_delta_us // us


def test_three_groups_give_the_deltas_of_their_last_packets(grouping: Any) -> None:
    # Group A: sent 0 and 5 ms, the last arrives at 30. B: sent 20 and 22, the last arrives at 58.
    # C begins with the packet sent at 40: only now is the pair A, B complete.
    assert add_ms(grouping, 0, 20) is None
    assert add_ms(grouping, 5, 30) is None
    assert add_ms(grouping, 20, 50) is None
    assert add_ms(grouping, 22, 58) is None
    assert add_ms(grouping, 40, 70) == (58 - 30, 22 - 5)
    assert add_ms(grouping, 60, 90) == (70 - 58, 40 - 22)


def test_a_group_ends_more_than_5_ms_after_its_first_packet_not_its_last(grouping: Any) -> None:
    for send_ms in (0, 3, 5):
        add_ms(grouping, send_ms, send_ms + 20)
    assert grouping.current.first_send_us == 0
    add_ms(grouping, 6, 26 + 5)  # 3 ms after the last, 6 ms after the first
    assert grouping.current.first_send_us == 6_000


def test_a_packet_that_caught_up_joins_the_group_before_it(grouping: Any) -> None:
    add_ms(grouping, 0, 50)
    add_ms(grouping, 20, 55)  # sent 20 ms later, arrives 5 ms later
    assert grouping.current.first_send_us == 0
    add_ms(grouping, 40, 61)  # 6 ms later: no burst
    assert grouping.current.first_send_us == 40_000


def test_a_burst_does_not_grow_beyond_100_ms(grouping: Any) -> None:
    add_ms(grouping, 0, 0)
    for i in range(1, 30):
        add_ms(grouping, 10 * i, 5 * i)
    # Arrivals 5 … 95 ms join the first group; the one at 100 ms begins the next.
    assert grouping.previous.arrival_us == 95_000
    assert grouping.current.first_arrival_us == 100_000


def test_a_packet_sent_before_the_group_is_ignored(grouping: Any) -> None:
    add_ms(grouping, 10, 30)
    before = grouping.tobytes()
    assert add_ms(grouping, 9, 31) is None
    assert grouping.tobytes() == before


def test_three_times_in_a_row_a_group_complete_before_its_predecessor_starts_anew(
    grouping: Any,
) -> None:
    add_ms(grouping, 0, 100)
    add_ms(grouping, 20, 120)
    add_ms(grouping, 22, 95)  # told of by a later report: the second group is complete at 95 ms
    for send_ms in (40, 60, 80):
        assert grouping.current.is_set == 1
        assert add_ms(grouping, send_ms, send_ms + 90) is None
    assert grouping.current.is_set == 0
    assert grouping.previous.is_set == 0


def test_a_receive_clock_that_jumps_3_s_ahead_starts_anew(grouping: Any) -> None:
    add_ms(grouping, 0, 20, 50)
    add_ms(grouping, 20, 20 + 3_019, 70)  # 2.999 s more than our clock
    assert add_ms(grouping, 40, 3_060, 100) == (3_019, 20)
    inter_arrival_reset(grouping)
    add_ms(grouping, 0, 20, 50)
    add_ms(grouping, 20, 20 + 3_020, 70)
    assert add_ms(grouping, 40, 3_060, 100) is None
    assert grouping.current.is_set == 0
