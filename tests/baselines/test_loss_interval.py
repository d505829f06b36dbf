"""RFC 5348 section 5.4 by hand."""

from __future__ import annotations

import math

import pytest

from baselines.loss_interval import LossIntervals, average_loss_interval


def test_the_four_newest_intervals_weigh_full_and_older_ones_less() -> None:
    closed = (10, 20, 30, 40, 50, 60, 70, 80)
    # 10 + 20 + 30 + 40 + 0.8·50 + 0.6·60 + 0.4·70 + 0.2·80 = 220; the weights make 6.
    assert average_loss_interval(5, closed) == pytest.approx(220 / 6)


def test_the_open_interval_counts_only_once_it_makes_the_mean_longer() -> None:
    assert average_loss_interval(50, (100, 100)) == 100  # (50 + 100) / 2 would be shorter
    assert average_loss_interval(300, (100, 100)) == 200  # (300 + 100) / 2


def test_more_than_eight_intervals_are_forgotten() -> None:
    assert average_loss_interval(0, (7,) * 8 + (1_000,) * 5) == pytest.approx(7)


def test_without_loss_the_interval_has_no_end() -> None:
    losses = LossIntervals()
    for index in range(10):
        losses.on_packet(is_lost=False, send_time_us=index * 1_000, rtt_us=50_000)
    assert losses.packets_since_loss is None
    assert losses.average_packets() == math.inf


def test_losses_within_a_round_trip_are_one_event() -> None:
    losses = LossIntervals()
    # A packet each 10 ms; the 10th, 12th and 30th are lost; a round trip takes 50 ms.
    for number in range(1, 36):
        losses.on_packet(
            is_lost=number in (10, 12, 30), send_time_us=number * 10_000, rtt_us=50_000
        )
    assert losses.packets_since_loss == 5
    # Events at 10 and 30: intervals of 10 (up to the first) and 20 packets.
    assert losses.average_packets() == (20 + 10) / 2
