"""Copa: its rules by hand, and what the paper promises of a call."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.copa import (
    Copa,
    CopaParameters,
    QueueSignals,
    WindowedMinimum,
    competitive_delta,
    next_velocity,
    target_rate_pps,
    window_step_bytes,
)
from baselines.report_reading import MIN_NO_FEEDBACK_US
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.feedback import SentPacket
from bwe_env.trace import square
from tests.baselines.estimator_calls import link, play, report, settled_mean

P = CopaParameters()

# --- Rules ----------------------------------------------------------------------------------------


def test_the_target_rate_is_one_over_delta_times_queueing_delay() -> None:
    assert target_rate_pps(0.02, 0.5) == pytest.approx(100.0)
    assert target_rate_pps(0.0, 0.5) == math.inf


def test_the_window_moves_by_v_over_delta_packets_in_a_loop() -> None:
    step = partial(window_step_bytes, cwnd_bytes=20_000, packet_bytes=1_000)
    assert step(1.0, 0.5, loop_share=1.0) == 2_000
    assert step(4.0, 0.5, loop_share=1.0) == 8_000
    assert step(1.0, 0.5, loop_share=0.1) == 200
    assert step(1_024.0, 0.5, loop_share=1.0) == 20_000  # at most itself


def test_the_velocity_doubles_once_the_direction_has_lasted_three_windows() -> None:
    velocity, seen = 1.0, []
    for same_windows in (0, 1, 2, 3, 4, 5, 0, 1):
        velocity = next_velocity(velocity, same_windows, P)
        seen.append(velocity)
    assert seen == [1, 1, 1, 2, 4, 8, 1, 1]


def test_competitive_mode_raises_one_over_delta_by_one_and_halves_it_on_loss() -> None:
    # 1/delta: 2, 3, 4, 5, 2.5, and never below that of the default mode.
    inverse, delta = [], 0.5
    for has_lost in (False, False, False, True, True, True):
        delta = competitive_delta(delta, has_lost=has_lost, p=P)
        inverse.append(1 / delta)
    assert inverse == pytest.approx([3, 4, 5, 2.5, 2, 2])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 50), st.floats(-10, 10)), min_size=1), st.integers(1, 100))
def test_the_windowed_minimum_is_that_of_a_plain_list(
    samples: list[tuple[int, float]], window_us: int
) -> None:
    minimum, kept, now_us = WindowedMinimum(), [], 0
    for later_us, value in samples:
        now_us += later_us
        kept.append((now_us, value))
        expected = min(v for at_us, v in kept if at_us >= now_us - window_us)
        assert minimum.update(value, now_us, window_us) == expected


def test_a_parameter_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"CopaParameters\.delta=0"):
        CopaParameters(delta=0.0)


# --- Signals --------------------------------------------------------------------------------------


def ack(signals: QueueSignals, rtt_ms: float, at_ms: float) -> None:
    rtt_us = int(1_000 * rtt_ms)
    signals.on_ack(rtt_us, loop_us=rtt_us, packet_us=0.0, ack_us=int(1_000 * at_ms))


def test_the_standing_queue_is_the_minimum_of_half_a_round_trip_or_a_frame() -> None:
    signals = QueueSignals(P, frame_interval_us=33_000)
    for index in range(100):
        # Frames of three packets each 33 ms, the last of which queue behind the first.
        ack(signals, 50 + 10 * (index % 3), 11.0 * index)
    assert signals.standing_us == 50_000
    assert signals.queue_us == 0
    for index in range(100, 110):
        ack(signals, 70 + 10 * (index % 3), 11.0 * index)
    assert signals.queue_us == 20_000


def test_competing_means_that_the_queue_has_not_run_empty_for_five_loops() -> None:
    signals = QueueSignals(P, frame_interval_us=10_000)
    for index in range(50):
        ack(signals, 50, 10.0 * index)
    for index in range(50, 70):  # 200 ms, four loops: not yet
        ack(signals, 90 + index % 10, 10.0 * index)
    assert not signals.is_competing
    for index in range(70, 110):
        ack(signals, 90 + index % 10, 10.0 * index)
    assert signals.is_competing
    for index in range(110, 115):
        ack(signals, 50, 10.0 * index)
    assert not signals.is_competing


def test_the_wait_for_the_report_is_no_part_of_a_round_trip() -> None:
    copa = Copa(call=CallConfig(start_rate_bps=400_000))
    sent_us = [10_000 * index for index in range(10)]
    told = report(0, [send_us + 20_000 for send_us in sent_us], sent_us=sent_us, built_us=130_000)
    decision = copa.on_feedback(told, 160_000)
    # 20 ms there, 30 ms back; the first packet waited 110 ms for the report.
    assert copa._signals.srtt_us == pytest.approx(50_000)
    assert copa._signals.queue_us == 0
    assert decision.target_rate_bps > 400_000  # slow start
    assert decision.pacing_rate_bps == pytest.approx(2 * decision.target_rate_bps)


def test_silence_halves_the_rate_down_to_the_calls_minimum_unless_nothing_is_out() -> None:
    copa = Copa(call=CallConfig(min_rate_bps=100_000, start_rate_bps=300_000))
    told = report(0, [20_000], sent_us=[0], built_us=25_000)
    before_bps = copa.on_feedback(told, 50_000).target_rate_bps
    due_us = 50_000 + MIN_NO_FEEDBACK_US
    assert copa.next_timeout_us() == due_us
    assert copa.on_timeout(due_us).target_rate_bps == before_bps
    copa.on_packet_sent(SentPacket(1, due_us, 1_000), due_us)
    rates = [copa.on_timeout(copa.next_timeout_us()).target_rate_bps for _ in range(3)]
    assert rates[0] == pytest.approx(before_bps / 2)
    assert rates[1:] == pytest.approx([100_000, 100_000])


# --- In calls -------------------------------------------------------------------------------------


class Watched(Copa):
    """Keeps the standing queue in packets, as of each report."""

    def __init__(self, *, queue_packets: list[float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._queue_packets = queue_packets

    def _set_rate(self, now_us: int) -> None:
        super()._set_rate(now_us)
        bytes_per_us = self._delivery.rate_bps / 8e6
        packets = self._signals.queue_us * bytes_per_us / self._delivery.packet_bytes
        self._queue_packets.append(packets)


@pytest.mark.parametrize("delta", [0.5, 0.2])
def test_the_standing_queue_swings_about_one_over_delta_packets(delta: float) -> None:
    queue: list[float] = []
    parameters = CopaParameters(delta=delta, switches_mode=False)
    watched = partial(Watched, queue_packets=queue, parameters=parameters)
    (played,) = play(watched, [link(2.5e6, queue_limit_s=1.0)])
    settled = np.array(queue[len(queue) // 2 :])
    # Section 3: between 0 and 2.5/delta, 1.25/delta on average where the link never idles. The rate
    # of delivery, which turns time into packets, is of few frames: its outliers do not count.
    assert 0.4 / delta < settled.mean() < 1.6 / delta
    assert np.quantile(settled, 0.05) < 0.5 / delta
    assert np.quantile(settled, 0.9) < 2.5 / delta
    assert settled_mean(played, "utilisation") > 0.85


def test_links_are_filled_with_little_queue_and_random_loss_changes_nothing() -> None:
    networks = (link(1e6), link(2.5e6), link(2.5e6, one_way_s=0.1), link(2.5e6, loss=0.05))
    for played in play(Copa, networks):
        assert settled_mean(played, "utilisation") > 0.85
        assert settled_mean(played, "queue_delay_ms") < 60.0
        assert played.steps["queue_loss_ratio"][200:].mean() < 0.001


def test_the_encoder_gets_the_mean_of_a_window_that_swings() -> None:
    (played,) = play(Copa, [link(1e6)])
    target_bps = played.steps["target_rate_bps"][200:]
    assert target_bps.std() < 0.2 * target_bps.mean()


def test_a_drop_of_capacity_is_followed_within_seconds() -> None:
    (played,) = play(Copa, [link(square(2.5e6, 1e6, half_period_s=20.0))])
    assert played.steps["target_rate_bps"][100:200].mean() > 2e6
    assert played.steps["target_rate_bps"][230:].mean() == pytest.approx(0.95e6, rel=0.15)
    assert played.steps["queue_delay_ms"][230:].mean() < 60.0


def test_competitive_mode_shares_with_tcp_which_starves_the_default_mode() -> None:
    shared = [link(2.5e6, has_tcp=True)]
    (switching,) = play(Copa, shared)
    (default,) = play(partial(Copa, parameters=CopaParameters(switches_mode=False)), shared)
    assert settled_mean(switching, "receive_rate_bps") > 0.25e6
    assert settled_mean(default, "receive_rate_bps") < 0.5 * settled_mean(
        switching, "receive_rate_bps"
    )
