"""BBR: the equations of draft-ietf-ccwg-bbr-05 with numbers worked by hand, and calls."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from baselines import bbr_model as model
from baselines import make
from baselines.bbr import MEDIA_RATE_SHARE, Bbr
from baselines.bbr_states import GAINS, State
from baselines.delivery_rate import DeliveryRateSampler, LostPacket, RateSample, delivery_rate_bps
from baselines.flight import Flight
from bwe_env.config import CallConfig
from bwe_env.trace import Trace
from tests.baselines.estimator_calls import OUTAGE, link
from tests.baselines.watched_calls import CALL, packet, play, report
from tests.test_external import make_world

QUEUE_S = 0.5

# --- Constants and equations ----------------------------------------------------------------------


def test_gains_are_those_of_section_5_6_1() -> None:
    assert GAINS == {
        "Startup": (2.77, 2.0),
        "Drain": (0.5, 2.0),
        "ProbeBW_DOWN": (0.9, 2.0),
        "ProbeBW_CRUISE": (1.0, 2.0),
        "ProbeBW_REFILL": (1.0, 2.0),
        "ProbeBW_UP": (1.25, 2.25),
        "ProbeRTT": (1.0, 0.5),
    }
    assert pytest.approx(4 * math.log(2), abs=0.01) == model.STARTUP_PACING_GAIN
    assert (model.LOSS_THRESH, model.BETA, model.HEADROOM) == (0.02, 0.7, 0.15)
    assert (model.MIN_RTT_FILTER_LEN_US, model.PROBE_RTT_INTERVAL_US) == (10_000_000, 5_000_000)
    assert model.PROBE_RTT_DURATION_US == 200_000


def test_the_product_of_bandwidth_and_delay() -> None:
    # 2 Mbps for 50 ms are 100 kbit.
    assert model.bdp_bytes(2e6, 50_000) == pytest.approx(12_500)
    assert model.bdp_bytes(2e6, math.inf) == 12_000  # ten packets before there is a round trip
    assert model.quantization_budget(12_500, False) == 12_500
    assert model.quantization_budget(12_500, True) == 14_900
    assert model.quantization_budget(1_000, False) == 4_800


def test_it_paces_one_percent_below_the_bandwidth() -> None:
    assert model.pacing_rate_bps(1.25, 2e6) == pytest.approx(2.475e6)


def test_more_than_two_percent_lost_is_too_much() -> None:
    assert not model.is_inflight_too_high(1_000, 50_000)
    assert model.is_inflight_too_high(1_001, 50_000)


def test_the_volume_at_which_losses_passed_the_threshold() -> None:
    # 50 packets of 1000 bytes were in flight, the last is lost, none before:
    # (0.02 * 49,000 - 0) / 0.98 = 1000 bytes of it, so exactly at its end.
    assert model.inflight_at_loss(50_000, 1_000, 1_000) == pytest.approx(50_000)
    # With one lost before: (980 - 1000) / 0.98 = -20.4.
    assert model.inflight_at_loss(50_000, 2_000, 1_000) == pytest.approx(49_000 - 20 / 0.98)


def test_a_round_with_loss_leaves_the_latest_delivery_and_seven_tenths_at_least() -> None:
    assert model.short_term_bound(math.inf, 2e6, 1e6) == pytest.approx(1.4e6)
    assert model.short_term_bound(1.4e6, 2e6, 1e6) == 1e6
    assert model.short_term_bound(1.4e6, 2e6, 0.0) == pytest.approx(0.98e6)


def test_headroom_is_15_percent_or_a_packet() -> None:
    assert model.inflight_with_headroom(20_000) == 17_000
    assert model.inflight_with_headroom(7_000) == 5_800
    assert model.inflight_with_headroom(5_000) == 4_800
    assert model.inflight_with_headroom(math.inf) == math.inf


def sample(rate_bps: float, **fields: Any) -> RateSample:
    return RateSample(newly_acked_bytes=1_000, delivery_rate_bps=rate_bps, **fields)


def test_three_rounds_without_a_quarter_more_fill_the_pipe() -> None:
    path = model.PathModel()
    path.round_start = True
    for rate_bps in (1e6, 1.3e6, 1.7e6, 1.8e6, 1.9e6):
        path.check_full_bw(sample(rate_bps))
        assert not path.full_bw_reached
    path.check_full_bw(sample(2.0e6, is_app_limited=True))
    path.round_start = False
    path.check_full_bw(sample(2.0e6))
    assert not path.full_bw_reached
    path.round_start = True
    path.check_full_bw(sample(2.0e6))
    assert path.full_bw_now
    assert path.full_bw_reached
    path.reset_full_bw()
    assert not path.full_bw_now
    assert path.full_bw_reached


def test_the_bandwidth_is_the_maximum_of_two_cycles_without_low_limited_samples() -> None:
    path = model.PathModel()
    path.update_max_bw(sample(2e6))
    path.update_max_bw(sample(1e6, is_app_limited=True))
    assert path.max_bw_bps == 2e6
    path.update_max_bw(sample(3e6, is_app_limited=True))
    assert path.max_bw_bps == 3e6
    path.advance_max_bw_filter()
    path.update_max_bw(sample(1e6))
    assert path.max_bw_bps == 3e6
    path.advance_max_bw_filter()
    assert path.max_bw_bps == 1e6


def test_the_least_round_trip_is_of_ten_seconds_and_looked_for_after_five() -> None:
    path = model.PathModel()
    path.update_min_rtt(sample(1e6, rtt_us=50_000), 1_000_000)
    assert path.min_rtt_us == 50_000
    path.update_min_rtt(sample(1e6, rtt_us=80_000), 6_000_000)
    assert not path.probe_rtt_expired
    path.update_min_rtt(sample(1e6, rtt_us=80_000), 6_000_001)
    assert path.probe_rtt_expired
    assert path.min_rtt_us == 50_000
    path.update_min_rtt(sample(1e6, rtt_us=70_000), 11_000_001)
    assert path.min_rtt_us == 70_000


def test_six_runs_of_losses_in_a_round_above_two_percent_end_startup() -> None:
    path = model.PathModel()
    for seq in (10, 11, 20, 30, 40, 50):  # five runs
        path.note_loss(LostPacket(seq, 1_000, 10_000, 1_000, False), 0)
    path.loss_round_start = True
    path.adapt_to_losses(True, 10_000)
    assert not path.startup_loss_is_high
    for seq in (60, 62, 64, 66, 68, 70):
        path.note_loss(LostPacket(seq, 1_000, 10_000, 1_000, False), 0)
    path.adapt_to_losses(True, 10_000)
    assert path.startup_loss_is_high
    assert math.isinf(path.bw_shortterm_bps)  # while probing losses do not lower it


# --- Delivery rate samples ------------------------------------------------------------------------


def test_a_delivery_rate_is_the_slower_of_sending_and_arriving() -> None:
    # 10 kB in 40 ms and in 80 ms
    assert delivery_rate_bps(10_000, 40_000, 80_000) == pytest.approx(1e6)
    assert delivery_rate_bps(10_000, 160_000, 80_000) == pytest.approx(0.5e6)
    assert delivery_rate_bps(10_000, 0, 0) == 0.0


def test_three_packets_by_hand() -> None:
    """Sent at 0, 10 and 20 ms; arriving 20 ms apart; two reports, each 20 ms after an arrival."""
    sampler = DeliveryRateSampler()
    sent = [packet(seq, 10_000 * seq) for seq in range(3)]
    for seq in range(3):
        sampler.on_sent(seq, 1_000, 10_000 * seq, 1_000 * (seq + 1))
    first = sampler.on_report(report([(sent[0], 520_000)]), 50_000, 0.0)
    # The receiver's clock is 500 ms ahead; 1000 bytes from 0 to 50 ms.
    assert first.rtt_us == 50_000
    assert first.delivery_rate_bps == pytest.approx(8_000 / 0.05)
    second = sampler.on_report(report([(sent[1], 540_000), (sent[2], 560_000)]), 90_000, 0.0)
    # The third arrived 40 ms after the first: at 90 ms on the first's scale; all 3000 since 0.
    assert second.rtt_us == 70_000
    assert second.delivered_bytes == 3_000
    assert second.delivery_rate_bps == pytest.approx(24_000 / 0.09)
    assert second.tx_in_flight_bytes == 3_000


def test_late_reports_do_not_make_a_path_slow_nor_early_ones_fast() -> None:
    sampler = DeliveryRateSampler()
    rates = []
    in_flight = 0
    for round_trip in range(40):
        # Ten packets per 100 ms, 0.8 Mbps, whose reports wait for a different time each.
        now_us = 100_000 * round_trip
        sent = [packet(10 * round_trip + i, now_us + 10_000 * i) for i in range(10)]
        for one in sent:
            in_flight += 1_000
            sampler.on_sent(one.seq, 1_000, one.send_time_us, in_flight + 1)
        wait_us = (0, 3_000, 1_000, 7_000)[round_trip % 4]
        rs = sampler.on_report(
            report([(one, one.send_time_us + 2_000) for one in sent]), now_us + 93_000 + wait_us, 0
        )
        in_flight = 0
        rates.append(rs.delivery_rate_bps)
    assert rates[5:] == pytest.approx([0.8e6] * 35, rel=0.01)


def test_samples_are_limited_until_what_was_in_flight_has_come() -> None:
    sampler = DeliveryRateSampler()
    sampler.mark_app_limited(2_000)
    for seq in range(3):
        sampler.on_sent(seq, 1_000, 1_000 * seq, 1_000 * (seq + 1))
    assert sampler.is_app_limited
    results = [(packet(seq, 1_000 * seq), 10_000 + 1_000 * seq) for seq in range(3)]
    assert sampler.on_report(report(results[:2]), 20_000, 0.0).is_app_limited
    assert sampler.is_app_limited
    sampler.on_report(report(results[2:]), 30_000, 0.0)
    assert not sampler.is_app_limited


def test_a_packet_that_comes_late_was_not_lost() -> None:
    sampler = DeliveryRateSampler()
    for seq in range(2):
        sampler.on_sent(seq, 1_000, 0, 1_000 * (seq + 1))
    late, on_time = packet(0, 0), packet(1, 0)
    first = sampler.on_report(report([(late, None), (on_time, 10_000)]), 20_000, 0.0)
    assert [lost.seq for lost in first.losses] == [0]
    assert sampler.lost_bytes == 1_000
    again = sampler.on_report(report([(late, None)]), 25_000, 0.0)
    assert again.losses == []
    sampler.on_report(report([(late, 30_000)]), 40_000, 0.0)
    assert (sampler.lost_bytes, sampler.delivered_bytes) == (0, 2_000)


def test_a_sender_that_may_send_and_does_not_has_nothing_to_send() -> None:
    flight = Flight()
    flight.decide(0, 3_000, 800_000.0, 0)  # a packet of 1000 bytes per 10 ms
    flight.on_sent(1_000, 0)
    assert not flight.on_sent(1_000, 20_000)  # 10 ms for the pacer, 10 ms for its timers
    assert flight.on_sent(1_000, 50_001)
    assert flight.is_window_full
    assert not flight.is_dry(900_000)
    flight.decide(0, 3_000, 800_000.0, 1_000_000)
    assert not flight.is_dry(1_010_000)
    assert flight.is_dry(1_010_001)


# --- The estimator by hand ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "share"),
    [
        (State.DRAIN, 0.5),
        (State.DOWN, 0.9),
        (State.CRUISE, 1.0),
        (State.REFILL, 1.0),
        (State.UP, 1.0),
        (State.PROBE_RTT, 0.5),
    ],
)
def test_the_media_gets_no_more_than_pacing_or_window_let_through(
    state: State, share: float
) -> None:
    estimator = Bbr(CALL)
    estimator.state = state
    estimator.model.bw_bps = 1e6
    target_bps = estimator.on_timeout(1).target_rate_bps
    assert target_bps == pytest.approx(MEDIA_RATE_SHARE * share * 1e6)


@pytest.mark.parametrize("round_is_over", [False, True])
def test_losses_bound_the_long_term_until_the_round_after_a_probe_is_over(
    round_is_over: bool,
) -> None:
    estimator = Bbr(CALL)
    estimator.model.bw_bps, estimator.model.min_rtt_us = 2e6, 50_000
    estimator.model.full_bw_reached = True
    estimator._start_up(RateSample())
    estimator._start_down(1_000_000)
    estimator.model.round_start = round_is_over
    estimator._adapt_longterm_model(RateSample())
    # One of ten packets in flight: 10 %.
    estimator._on_lost(LostPacket(7, 1_200, 12_000, 1_200, False), RateSample(), 1_100_000)
    assert math.isinf(estimator.model.inflight_longterm) == round_is_over


# --- In calls -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steady() -> Any:
    return play(
        Bbr,
        link(2e6, queue_limit_s=QUEUE_S),
        duration_s=20.0,
        state_of=lambda e: (e.state, e.model.max_bw_bps),
    )


def test_it_knows_the_capacity_and_leaves_a_small_queue(steady: Any) -> None:
    assert steady.estimator.model.max_bw_bps == pytest.approx(2e6, rel=0.02)
    assert 0.85 * 2e6 < steady.mean("receive_rate_bps", 5.0, 20.0) <= 2e6
    # Its window is two products and a report's worth: the queue stays below 2.25 - 1 round trips.
    assert steady.mean("queue_delay_ms", 5.0, 20.0) < 1.25 * 50.0
    # Propagation is 50 ms, and a report does not leave at once.
    assert 50_000 <= steady.estimator.model.min_rtt_us < 65_000


def test_states_follow_each_other_as_the_diagram_says(steady: Any) -> None:
    states = [state for state, _ in steady.states]
    changes = [(a, b) for a, b in pairwise(states) if a != b]
    cycle = [State.DOWN, State.CRUISE, State.REFILL, State.UP, State.DOWN]
    allowed = set(pairwise(cycle))
    allowed |= {(State.STARTUP, State.DRAIN), (State.DRAIN, State.DOWN)}
    # A phase may last less than a report, and so not be seen.
    allowed |= {(State.DRAIN, State.CRUISE), (State.DOWN, State.REFILL)}
    allowed |= {(state, State.PROBE_RTT) for state in State} | {(State.PROBE_RTT, State.CRUISE)}
    assert set(changes) <= allowed
    assert set(cycle) | {State.STARTUP, State.DRAIN, State.PROBE_RTT} == set(states)
    first_probe_s = steady.decisions[states.index(State.PROBE_RTT)][0] / 1e6
    assert 5.0 < first_probe_s < 7.0


def test_it_pads_only_while_it_probes_and_no_further_than_the_calls_maximum(steady: Any) -> None:
    most_bps = CALL.max_rate_bps / MEDIA_RATE_SHARE
    for (state, _), (_, decision) in zip(steady.states, steady.decisions, strict=True):
        is_probing = state in (State.STARTUP, State.REFILL, State.UP)
        assert (decision.padding_rate_bps > 0) == is_probing
        assert decision.padding_rate_bps <= most_bps


def test_it_halves_the_media_while_it_probes_for_the_round_trip(steady: Any) -> None:
    for (state, bw_bps), (_, decision) in zip(steady.states, steady.decisions, strict=True):
        if state == State.PROBE_RTT:
            assert decision.target_rate_bps <= 0.5 * MEDIA_RATE_SHARE * bw_bps * 1.001


def test_it_follows_a_drop_and_is_back_at_once() -> None:
    trace = Trace(
        name="drop",
        network_type="pattern",
        source="this test",
        duration_us=np.array([8_000_000, 16_000_000, 36_000_000]),
        capacity_bps=np.array([2e6, 0.7e6, 2e6]),
    )
    played = play(Bbr, link(trace, queue_limit_s=QUEUE_S), duration_s=32.0)
    # The encoder hears of the full window long before the filter forgets two cycles.
    assert played.mean("target_rate_bps", 9.0, 24.0) < 0.75e6
    assert played.mean("receive_rate_bps", 9.0, 24.0) > 0.62e6
    assert played.mean("receive_rate_bps", 27.0, 32.0) > 1.6e6


def test_random_loss_of_one_percent_bounds_a_small_flight_and_costs_throughput() -> None:
    clean, lossy = (
        play(
            Bbr,
            link(2e6, loss=loss, queue_limit_s=QUEUE_S),
            duration_s=20.0,
            state_of=lambda e: e.model,
        )
        for loss in (0.0, 0.01)
    )
    # Ten to thirty packets are in flight: one lost is more than 2 % of them.
    assert math.isinf(clean.estimator.model.inflight_longterm)
    assert lossy.estimator.model.inflight_longterm < 50 * model.SMSS
    kept = lossy.mean("receive_rate_bps", 8.0, 20.0) / clean.mean("receive_rate_bps", 8.0, 20.0)
    assert 0.45 < kept < 0.95


def test_no_more_than_a_packet_is_in_flight_beyond_the_window() -> None:
    call = replace(CALL, duration_s=10.0, audio=replace(CALL.audio, enabled=False))
    estimator = Bbr(call)
    world, estimators = make_world(lambda: estimator, link(2e6, queue_limit_s=QUEUE_S), call)
    allowed = model.INITIAL_CWND
    for until_us in range(10_000, 10_000_001, 10_000):
        estimators.advance(until_us)
        flow = world.flows[0]
        window, in_flight = int(flow.pacer.cwnd_bytes), int(flow.history.in_flight_bytes)
        # A window that has become smaller since a packet left does not call it back.
        allowed = max(window, min(allowed, in_flight))
        assert in_flight - allowed <= 1_228


def test_an_outage_ends_in_timeouts_and_then_goes_on() -> None:
    played = play(Bbr, link(OUTAGE, queue_limit_s=QUEUE_S), duration_s=20.0)
    assert played.mean("target_rate_bps", 9.0, 10.0) == CALL.min_rate_bps
    assert played.mean("receive_rate_bps", 15.0, 20.0) > 0.75e6


def test_factories_pickle_and_know_the_limits_of_the_call() -> None:
    call = CallConfig(min_rate_bps=50_000, start_rate_bps=200_000, max_rate_bps=400_000)
    factory = pickle.loads(pickle.dumps(make("bbr", call=call).controller))
    estimator = factory()
    assert isinstance(estimator, Bbr)
    first = estimator.on_timeout(1)
    assert first.target_rate_bps == 200_000
    assert first.pacing_rate_bps == pytest.approx(2.77 * 200_000)
    assert first.padding_rate_bps == pytest.approx(400_000 / MEDIA_RATE_SHARE)
    assert first.cwnd_bytes == 12_000


def test_it_never_asks_for_less_or_more_than_the_call_allows() -> None:
    call = replace(CALL, duration_s=8.0, max_rate_bps=800_000)
    estimator = Bbr(call)
    world, estimators = make_world(lambda: estimator, link(3e6, queue_limit_s=QUEUE_S), call)
    estimators.advance(8_000_000)
    assert world.flows[0].target_rate_bps == pytest.approx(800_000, rel=0.05)
    # Frames leave faster than padding, but it does not fill a link that it does not need.
    assert estimator.model.max_bw_bps < 0.5 * 3e6
