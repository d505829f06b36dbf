"""SCReAM: the equations of RFC 8298 with numbers worked by hand, and what it does in calls."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines import make, scream
from baselines import scream_equations as eq
from baselines.scream import Scream
from bwe_env.config import CallConfig
from bwe_env.trace import Trace
from tests.baselines.estimator_calls import OUTAGE, link
from tests.baselines.watched_calls import CALL, packet, play, report
from tests.test_external import make_world

QUEUE_S = 0.5

# --- Section 4.1.1.1 ------------------------------------------------------------------------------


def test_the_constants_are_those_of_section_4_1_1_1() -> None:
    assert (eq.QDELAY_TARGET_LO, eq.QDELAY_TARGET_HI) == (0.1, 0.4)
    assert (eq.QDELAY_WEIGHT, eq.QDELAY_TREND_TH, eq.QDELAY_TREND_LO) == (0.1, 0.2, 0.2)
    assert (eq.MIN_CWND, eq.MSS, eq.MAX_BYTES_IN_FLIGHT_HEAD_ROOM) == (3000, 1000, 1.1)
    assert (eq.GAIN, eq.BETA_LOSS, eq.BETA_R) == (1.0, 0.8, 0.9)
    assert (eq.RATE_ADJUST_INTERVAL, eq.RAMP_UP_SPEED, eq.RATE_PACE_MIN) == (0.2, 200e3, 50e3)
    assert (eq.PRE_CONGESTION_GUARD, eq.TX_QUEUE_SIZE_FACTOR) == (0.1, 1.0)
    assert (eq.RTP_QDELAY_TH, eq.TARGET_RATE_SCALE_RTP_QDELAY) == (0.02, 0.95)
    assert eq.T_RESUME_FAST_INCREASE == 5.0


# --- Section 4.1.2 --------------------------------------------------------------------------------


def test_the_trend_is_the_autocorrelation_times_the_average() -> None:
    # Mean 2; deviations -2 -1 0 1 2: R(0) = 10, R(1) = 2 + 0 + 0 + 2 = 4.
    ramp = [0.0, 1.0, 2.0, 3.0, 4.0]
    assert eq.autocorrelation_ratio(ramp) == pytest.approx(0.4)
    assert eq.qdelay_trend(ramp, 0.5) == pytest.approx(0.2)
    assert eq.qdelay_trend(ramp, 5.0) == 1.0
    # Deviations -1 1 -1 1: R(0) = 4, R(1) = -3. What alternates is no trend.
    assert eq.autocorrelation_ratio([0.0, 2.0, 0.0, 2.0]) == pytest.approx(-0.75)
    assert eq.qdelay_trend([0.0, 2.0, 0.0, 2.0], 0.5) == 0.0
    assert eq.qdelay_trend([1.0] * 20, 0.5) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=20), st.floats(0.0, 10.0))
def test_the_trend_is_numpys_within_its_bounds(values: list[float], average: float) -> None:
    deviation = np.array(values) - np.mean(values)
    r0 = float(deviation @ deviation)
    trend = eq.qdelay_trend(values, average)
    assert 0.0 <= trend <= 1.0
    if r0 > 1e-6:
        ratio = float(deviation[1:] @ deviation[:-1]) / r0
        assert trend == pytest.approx(min(1.0, max(0.0, ratio * average)), abs=1e-6)


def test_average_and_memory_of_the_queue_delay() -> None:
    # 0.9 * 0.5 + 0.1 * (0.05 / 0.1)
    assert eq.qdelay_fraction_average(0.5, 0.05, 0.1) == pytest.approx(0.5)
    assert eq.qdelay_fraction_average(0.0, 0.2, 0.1) == pytest.approx(0.2)
    assert eq.qdelay_trend_memory(0.5, 0.1) == pytest.approx(0.495)
    assert eq.qdelay_trend_memory(0.5, 0.6) == 0.6


def test_a_loss_event_leaves_four_fifths_of_the_window_and_nine_tenths_of_the_target() -> None:
    assert eq.cwnd_after_loss(20_000.0) == 16_000.0
    assert eq.cwnd_after_loss(3_100.0) == 3_000.0
    assert eq.target_bitrate_after_loss(1e6, 30e3) == 0.9e6
    assert eq.target_bitrate_after_loss(31e3, 30e3) == 30e3


def test_fast_increase_adds_what_is_acknowledged_while_the_window_is_used() -> None:
    # 6000 * 1.5 + 2000 = 11,000 > 10,000
    assert eq.cwnd_in_fast_increase(10_000.0, 6_000, 2_000) == 12_000.0
    # 5000 * 1.5 + 2000 = 9,500
    assert eq.cwnd_in_fast_increase(10_000.0, 5_000, 2_000) == 10_000.0


def updated(qdelay_s: float, bytes_in_flight: int = 10_000, most: int = 100_000) -> float:
    return eq.cwnd_update(
        10_000.0,
        qdelay_s=qdelay_s,
        qdelay_target_s=0.1,
        bytes_in_flight=bytes_in_flight,
        bytes_newly_acked=2_000,
        max_bytes_in_flight=most,
    )


def test_the_window_goes_towards_the_queue_delay_target() -> None:
    # off_target 0.5: 0.5 * 2000 * 1000 / 10,000 = 100
    assert updated(0.05) == pytest.approx(10_100.0)
    assert updated(0.1) == pytest.approx(10_000.0)
    # off_target -1
    assert updated(0.2) == pytest.approx(9_800.0)


def test_a_window_that_is_not_used_does_not_grow_and_may_shrink() -> None:
    # 6400 * 1.25 + 2000 = 10,000 <= cwnd
    assert updated(0.05, bytes_in_flight=6_400) == 10_000.0
    assert updated(0.05, bytes_in_flight=6_401) > 10_000.0
    assert updated(0.2, bytes_in_flight=0) == pytest.approx(9_800.0)


def test_the_window_stays_between_its_minimum_and_what_was_in_flight() -> None:
    assert updated(0.05, most=8_000) == pytest.approx(8_800.0)
    assert updated(0.05, most=1_000) == 3_000.0


def test_the_target_delay_follows_competing_flows_in_four_ways() -> None:
    # (2 + sqrt(0.09)) * 0.1 = 0.23
    assert eq.adjusted_qdelay_target(0.1, 2.0, 0.09, 0.0) == pytest.approx(0.23)
    assert eq.adjusted_qdelay_target(0.1, 2.0, 0.09, 0.01) == pytest.approx(0.345)
    # Variance too large: new target (0.2 + 0.6) * 0.1 = 0.08 below the least: halved.
    assert eq.adjusted_qdelay_target(0.3, 0.2, 0.36, 0.0) == pytest.approx(0.15)
    # (2 + 1) * 0.1 above it: a tenth less.
    assert eq.adjusted_qdelay_target(0.3, 2.0, 1.0, 0.0) == pytest.approx(0.27)
    assert eq.adjusted_qdelay_target(0.1, 9.0, 0.0, 0.01) == 0.4
    assert eq.adjusted_qdelay_target(0.4, 0.0, 0.0, 0.0) == 0.1


def test_above_the_target_delay_the_window_is_strict() -> None:
    assert eq.send_limit(10_000.0, 0.1, 0.1) == 11_000.0
    assert eq.send_limit(10_000.0, 0.11, 0.1) == 10_000.0


def test_the_pacing_rate_is_a_window_per_round_trip() -> None:
    assert eq.pace_bitrate(10_000.0, 0.1) == pytest.approx(800e3)
    assert eq.pace_bitrate(3_000.0, 1.0) == 50e3


# --- Section 4.1.3 --------------------------------------------------------------------------------


def test_the_ramp_is_slow_near_the_last_maximum() -> None:
    assert eq.ramp_up_scale(1e6, 1e6) == 0.2
    # (-0.2 * 4)^2
    assert eq.ramp_up_scale(0.8e6, 1e6) == pytest.approx(0.64)
    assert eq.ramp_up_scale(0.5e6, 1e6) == 1.0
    assert eq.ramp_up_scale(300e3, 1.0) == 1.0


def adjusted(target: float, *, fast: bool, queue_bits: float = 0.0, trend: float = 0.0) -> float:
    return eq.target_bitrate_update(
        target,
        target_bitrate_last_max=1.0,
        in_fast_increase=fast,
        current_rate=1e6,
        trend=trend,
        rtp_queue_bits=queue_bits,
    )


def test_the_target_rises_by_the_ramp_up_speed_or_half_of_itself_per_second() -> None:
    assert adjusted(1e6, fast=True) == pytest.approx(1.04e6)
    assert adjusted(200e3, fast=True) == pytest.approx(220e3)
    # Out of fast increase 1e6 * (1 - 0.1 * 0.5) is much more than the ramp allows.
    assert adjusted(1e6, fast=False, trend=0.5) == pytest.approx(1.04e6)


def test_an_rtp_queue_of_more_than_20_ms_takes_a_twentieth() -> None:
    # 30 ms at 1 Mbps: still a rise of 40 kbps, then 5 % less.
    assert adjusted(1e6, fast=False, queue_bits=30e3) == pytest.approx(0.95 * 1.04e6)
    assert adjusted(1e6, fast=False, queue_bits=20e3) == pytest.approx(1.04e6)
    # More queued than the path carries in a second: 1e6 - 1.3e6.
    assert adjusted(1e6, fast=False, queue_bits=1.3e6) == pytest.approx(0.95 * 0.7e6)
    assert adjusted(1e6, fast=True, queue_bits=1.3e6) == pytest.approx(1.04e6)


def test_the_target_stays_near_what_is_made_and_carried() -> None:
    assert eq.rate_media_limit(1.0e6, 0.9e6, 0.8e6, 0.0) == 2.0e6
    assert eq.rate_media_limit(0.5e6, 0.6e6, 0.8e6, 1.0) == pytest.approx(0.8e6)


# --- The estimator by hand ------------------------------------------------------------------------


def acknowledged(
    estimator: Scream, seq: int, at_us: int, *, delay_us: int = 20_000, lost: bool = False
) -> None:
    """A packet of 1000 bytes leaves 40 ms before its report comes; the one before may be lost."""
    sent = packet(seq, at_us - 40_000)
    estimator.on_packet_sent(sent, at_us - 40_000)
    results: list[Any] = [(sent, at_us - 40_000 + delay_us)]
    if lost:
        results.insert(0, (packet(seq - 1, at_us - 41_000), None))
    estimator.on_feedback(report(results), at_us)


def test_round_trip_and_queue_delay_are_of_the_newest_arrival() -> None:
    estimator = Scream(CALL)
    acknowledged(estimator, 0, 100_000)
    assert estimator.s_rtt_s == pytest.approx(0.04)
    assert estimator.qdelay_s == 0.0
    acknowledged(estimator, 1, 200_000, delay_us=35_000)
    assert estimator.qdelay_s == pytest.approx(0.015)
    # The base is the least, whenever it came, and of a clock of its own.
    acknowledged(estimator, 2, 300_000, delay_us=15_000)
    acknowledged(estimator, 3, 400_000, delay_us=20_000)
    assert estimator.qdelay_s == pytest.approx(0.005)


def test_losses_of_one_round_trip_are_one_event() -> None:
    estimator = Scream(CALL)
    estimator.cwnd = 20_000.0
    acknowledged(estimator, 1, 100_000, lost=True)
    assert (estimator.loss_events, estimator.cwnd) == (1, 16_000.0)
    assert not estimator.in_fast_increase
    assert estimator.target_bitrate == pytest.approx(0.9 * CALL.start_rate_bps)
    assert estimator.target_bitrate_last_max == CALL.start_rate_bps
    acknowledged(estimator, 3, 120_000, lost=True)  # within 40 ms
    assert estimator.loss_events == 1
    acknowledged(estimator, 5, 141_000, lost=True)
    assert estimator.loss_events == 2


def test_a_packet_that_comes_late_opens_the_reordering_window() -> None:
    estimator = Scream(CALL)
    for seq in range(2):
        estimator.on_packet_sent(packet(seq, 0), 0)
    late = packet(0, 0)
    estimator.on_feedback(report([(late, None), (packet(1, 0), 20_000)]), 40_000)
    assert estimator.loss_events == 1  # no reordering was known
    estimator.on_feedback(report([(late, 60_000)]), 70_000)
    # 30 ms after it was missing; the next one is given as long.
    estimator.on_packet_sent(packet(2, 100_000), 100_000)
    estimator.on_packet_sent(packet(3, 100_000), 100_000)
    missing = packet(2, 100_000)
    estimator.on_feedback(report([(missing, None), (packet(3, 100_000), 120_000)]), 140_000)
    assert estimator.loss_events == 1
    estimator.on_feedback(report([]), 169_000)
    assert estimator.loss_events == 1
    estimator.on_feedback(report([]), 170_000)
    assert estimator.loss_events == 2


def test_without_reports_a_full_window_lets_the_minimum_rate_go() -> None:
    estimator = Scream(CALL)
    estimator.on_timeout(1)
    for seq in range(5):
        estimator.on_packet_sent(packet(seq, 2), 2)
    allowed = []
    for number in range(1, 11):
        decision = estimator.on_timeout(1 + 200_000 * number)
        allowed.append(decision.cwnd_bytes)
    # Silent for more than 0.8 s from the fifth on: 50 kbps for 0.2 s are 1250 bytes more.
    assert allowed[:3] == [4_000] * 3
    assert allowed[-1] == 5_000 + 1_250


def test_factories_pickle_and_know_the_limits_of_the_call() -> None:
    call = CallConfig(min_rate_bps=50_000, start_rate_bps=200_000, max_rate_bps=400_000)
    factory = pickle.loads(pickle.dumps(make("scream", call=call).controller))
    estimator = factory()
    assert isinstance(estimator, Scream)
    assert estimator.on_timeout(1).target_rate_bps == 200_000


def test_a_frame_in_the_making_is_as_long_as_the_call_says_and_no_queue() -> None:
    # 1/15 s at the target of 300 kbps are 20 kbit: no queue at 15 frames per second, but one of
    # 10 kbit, 33 ms, at 30.
    targets = {}
    for rate_hz in (15.0, 30.0):
        call = replace(CALL, video=replace(CALL.video, frame_rate_hz=rate_hz))
        estimator = Scream(call)
        estimator.in_fast_increase = False
        estimator.on_timeout(1)
        estimator.on_packet_sent(packet(0, 200_001 - 66_667, 7_500), 200_001 - 66_667)
        estimator.flight.is_window_full = True
        targets[rate_hz] = estimator.on_timeout(200_001).target_rate_bps
    assert targets[30.0] < targets[15.0]


# --- In calls -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steady() -> Any:
    return play(
        Scream,
        link(1e6, queue_limit_s=QUEUE_S),
        state_of=lambda e: (e.in_fast_increase, e.qdelay_trend),
    )


def test_it_fills_a_constant_link_at_the_target_delay(steady: Any) -> None:
    assert 0.93e6 < steady.mean("receive_rate_bps", 10.0, 30.0) <= 1.0e6
    # Between the lower and the upper queue delay target.
    assert 60.0 < steady.mean("queue_delay_ms", 10.0, 30.0) < 250.0


def test_it_leaves_fast_increase_when_the_trend_says_so(steady: Any) -> None:
    modes = [is_fast for is_fast, _ in steady.states]
    first = modes.index(False)
    assert all(modes[:first])
    assert steady.states[first][1] >= eq.QDELAY_TREND_TH
    assert all(trend < eq.QDELAY_TREND_TH for _, trend in steady.states[: first - 1])
    # From 300 kbps at 200 kbps per second at most (less below 400 kbps).
    assert 3.0 < steady.decisions[first][0] / 1e6 < 6.0


def test_without_competing_flows_compensation_the_delay_target_stays_at_its_least() -> None:
    fixed = play(
        Scream,
        link(1e6, queue_limit_s=QUEUE_S),
        state_of=lambda e: e.qdelay_target_s,
    )
    assert set(fixed.states) == {eq.QDELAY_TARGET_LO}
    assert 60.0 < fixed.mean("queue_delay_ms", 10.0, 30.0) < 140.0


def test_it_follows_a_drop_and_resumes_fast_increase_afterwards() -> None:
    trace = Trace(
        name="drop",
        network_type="pattern",
        source="this test",
        duration_us=np.array([12_000_000, 8_000_000, 40_000_000]),
        capacity_bps=np.array([1e6, 0.4e6, 2e6]),
    )
    played = play(
        Scream,
        link(trace, queue_limit_s=QUEUE_S),
        duration_s=40.0,
        state_of=lambda e: e.in_fast_increase,
    )
    assert played.mean("target_rate_bps", 14.0, 20.0) < 0.5e6
    assert 0.38e6 < played.mean("receive_rate_bps", 14.0, 20.0) <= 0.401e6
    assert played.mean("receive_rate_bps", 34.0, 40.0) > 1.4e6
    modes = np.array(played.states)
    times_s = np.array([now_us for now_us, _ in played.decisions]) / 1e6
    assert not modes[(times_s > 12.5) & (times_s < 20.0)].any()
    assert modes[(times_s > 24.0) & (times_s < 30.0)].any()


def test_random_loss_makes_it_back_off_at_each_event() -> None:
    rates = {}
    for loss in (0.0, 0.02):
        played = play(Scream, link(2e6, loss=loss, queue_limit_s=QUEUE_S), duration_s=20.0)
        rates[loss] = played.mean("receive_rate_bps", 12.0, 20.0)
        if loss:
            assert played.estimator.loss_events > 15
    assert rates[0.02] < 0.6 * rates[0.0]


@pytest.mark.parametrize("capacity_bps", [0.3e6, 2e6])
def test_no_more_than_a_packet_is_in_flight_beyond_the_window(capacity_bps: float) -> None:
    call = replace(CALL, duration_s=10.0, audio=replace(CALL.audio, enabled=False))
    estimator = Scream(call)
    world, estimators = make_world(
        lambda: estimator, link(capacity_bps, queue_limit_s=QUEUE_S), call
    )
    beyond = []
    largest = eq.MIN_CWND + eq.MSS
    for until_us in range(10_000, 10_000_001, 10_000):
        estimators.advance(until_us)
        flow = world.flows[0]
        # A window that has become smaller since a packet left does not call it back.
        window = int(flow.pacer.cwnd_bytes)
        in_flight = int(flow.history.in_flight_bytes)
        largest = window if window >= largest else max(window, min(largest, in_flight))
        beyond.append(in_flight - largest)
    assert max(beyond) <= 1_228


@pytest.mark.parametrize("capacity_bps", [0.5e6, 1e6])
def test_the_reckoned_rtp_queue_is_the_pacers(capacity_bps: float) -> None:
    call = replace(CALL, duration_s=20.0)
    estimator = Scream(call)
    world, estimators = make_world(
        lambda: estimator, link(capacity_bps, queue_limit_s=QUEUE_S), call
    )
    pairs = []
    for until_us in range(200_000, 20_000_001, 200_000):
        estimators.advance(until_us)
        pairs.append((estimator.rtp_queue_bits, 8 * int(world.flows[0].pacer.queue_bytes)))
    reckoned, true = np.array(pairs, dtype=float).T
    assert true.max() > 0.1 * capacity_bps  # there is something to reckon
    assert np.corrcoef(reckoned, true)[0, 1] > 0.9
    assert np.abs(reckoned - true).mean() < 0.1 * capacity_bps  # a tenth of a second


def test_lost_feedback_for_seconds_does_not_stop_it_for_ever() -> None:
    played = play(Scream, link(OUTAGE, queue_limit_s=QUEUE_S), duration_s=25.0)
    assert played.mean("target_rate_bps", 9.0, 10.0) < 0.2e6
    assert played.mean("receive_rate_bps", 18.0, 25.0) > 0.4e6


def test_an_rtp_queue_never_counts_more_than_two_seconds() -> None:
    estimator = Scream(CALL)
    estimator.on_timeout(1)
    for number in range(1, 30):
        estimator.flight.is_window_full = True
        most = scream.RTP_QUEUE_LIMIT * estimator.target_bitrate
        estimator.on_timeout(1 + 200_000 * number)
        assert 0.0 <= estimator.rtp_queue_bits <= most + 1.0
