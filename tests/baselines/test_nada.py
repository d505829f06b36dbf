"""NADA: the equations of RFC 8698 by hand, and what they promise of a call."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from baselines.nada import (
    Nada,
    NadaParameters,
    NadaReceiver,
    Observation,
    accelerated_rate_bps,
    congestion_signal_ms,
    equilibrium_signal_ms,
    gradual_rate_bps,
    ramp_up_gain,
    warped_delay_ms,
    warping_share,
)
from baselines.report_reading import MIN_NO_FEEDBACK_US
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.feedback import SentPacket
from bwe_env.trace import square
from tests.baselines.estimator_calls import CALL, link, play, report, settled_mean

P = NadaParameters()

# --- Equations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue_delay_ms", "d_tilde_ms"),
    [(0, 0), (49.9, 49.9), (50, 50), (100, 50 * math.exp(-0.5)), (350, 50 * math.exp(-3))],
)
def test_equation_1_warps_delay_beyond_qth(queue_delay_ms: float, d_tilde_ms: float) -> None:
    assert warped_delay_ms(queue_delay_ms, P) == pytest.approx(d_tilde_ms)


@pytest.mark.parametrize(
    ("packets_since_loss", "share"),
    [(None, 0), (0, 1), (700, 1), (750, 0.5), (800, 0), (5_000, 0)],
)
def test_warping_lasts_seven_loss_intervals_and_fades_within_another(
    packets_since_loss: int | None, share: float
) -> None:
    assert warping_share(packets_since_loss, 100.0, P) == pytest.approx(share)


def test_equation_2_adds_the_squares_of_loss_and_marking() -> None:
    # 20 + 2·(2 %/1 %)² + 10·(3 %/1 %)² = 20 + 8 + 90
    assert congestion_signal_ms(20.0, 0.02, 0.03, P) == pytest.approx(118.0)


def test_equation_3_limits_ramp_up_by_the_queue_it_may_cause() -> None:
    assert ramp_up_gain(50.0, P) == pytest.approx(50 / (50 + 100 + 120))
    assert ramp_up_gain(0.0, P) < P.gamma_max  # never reached with the values of Figure 3
    assert ramp_up_gain(0.0, NadaParameters(q_bound_ms=200.0)) == 0.5


def test_equation_4_ramps_up_from_what_arrives_and_never_down() -> None:
    assert accelerated_rate_bps(1e6, 1e6, 50.0, P) == pytest.approx(1e6 * (1 + 5 / 27))
    assert accelerated_rate_bps(1e6, 0.5e6, 50.0, P) == 1e6


def test_equations_5_to_7_weigh_offset_and_change_of_the_signal() -> None:
    # x_offset = 25 - 10·1.5/1 = 10, x_diff = 5:
    # 1 - 0.5·(100/500)·(10/500) - 0.5·2·(5/500) = 1 - 0.002 - 0.01
    rate_bps = gradual_rate_bps(1e6, 25.0, 20.0, delta_ms=100.0, r_max_bps=1.5e6, p=P)
    assert rate_bps == pytest.approx(0.988e6)


@pytest.mark.parametrize("prio", [0.5, 1.0, 2.0])
def test_a_rate_rests_where_the_signal_is_prio_xref_rmax_over_it(prio: float) -> None:
    p = NadaParameters(prio=prio)
    x_ms = equilibrium_signal_ms(1e6, 6e6, p)
    assert x_ms == pytest.approx(60 * prio)
    assert gradual_rate_bps(1e6, x_ms, x_ms, delta_ms=100.0, r_max_bps=6e6, p=p) == 1e6


def test_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"NadaParameters\.tau_ms=0"):
        NadaParameters(tau_ms=0)


# --- The receiver's half --------------------------------------------------------------------------


def arrivals(
    receiver: NadaReceiver, delays_ms: list[float | None], interval_us: int = 10_000
) -> int:
    """Packets of 1000 bytes each 10 ms, None for a missing one; returns the end of it in us."""
    for seq, delay_ms in enumerate(delays_ms):
        send_us = seq * interval_us
        if delay_ms is None:
            receiver.on_loss()
        else:
            receiver.on_packet(SentPacket(seq, send_us, 1_000), int(send_us + 1_000 * delay_ms))
    return len(delays_ms) * interval_us


def test_the_minimum_of_15_packets_filters_spikes() -> None:
    spike = NadaReceiver(P)
    end_us = arrivals(spike, [20.0] * 20 + [50.0] * 14)
    assert spike.observe(end_us + 50_000).x_curr_ms == 0.0
    queue = NadaReceiver(P)
    end_us = arrivals(queue, [20.0] * 20 + [50.0] * 15)
    assert queue.observe(end_us + 50_000).x_curr_ms == pytest.approx(30.0)


def test_the_receive_rate_is_what_arrived_in_half_a_second() -> None:
    receiver = NadaReceiver(P)
    end_us = arrivals(receiver, [0.0] * 200)
    # 50 packets of 8000 bits, less the one at the edge that is as old as the window.
    assert receiver.observe(end_us).r_recv_bps == pytest.approx(49 * 8_000 / 0.5)


def test_equation_10_smooths_the_loss_ratio_of_the_window() -> None:
    receiver = NadaReceiver(P)
    end_us = arrivals(receiver, [0.0] * 20 + [None] * 2 + [0.0] * 18)
    observed = receiver.observe(end_us)
    assert not observed.is_ramping_up
    # p_inst = 2/40, p_loss = 0.1·0.05 = 0.005, 10·(0.5)² = 2.5 ms; and then 0.1·0.05 + 0.9·0.005.
    assert observed.x_curr_ms == pytest.approx(2.5)
    assert receiver.observe(end_us).x_curr_ms == pytest.approx(10 * 0.95**2)


@pytest.mark.parametrize(("queue_delay_ms", "is_ramping_up"), [(9.0, True), (11.0, False)])
def test_ramp_up_ends_where_a_queue_of_qeps_builds_up(
    queue_delay_ms: float, is_ramping_up: bool
) -> None:
    receiver = NadaReceiver(P)
    end_us = arrivals(receiver, [20.0] * 10 + [20.0 + queue_delay_ms] * 20)
    assert receiver.observe(end_us).is_ramping_up is is_ramping_up


def test_the_offset_between_the_clocks_does_not_matter() -> None:
    receiver = NadaReceiver(P)
    end_us = arrivals(receiver, [-70_000.0] * 20 + [-69_960.0] * 15)
    observed = receiver.observe(end_us - 70_000_000 + 50_000)
    assert observed.x_curr_ms == pytest.approx(40.0)


# --- The sender's half ----------------------------------------------------------------------------


def test_the_rate_moves_when_delta_is_over_and_not_at_every_report() -> None:
    nada = Nada(call=CallConfig(start_rate_bps=300_000))
    rates = []
    for tenth in range(20):  # a report each 50 ms of 5 packets each: 800 kbps, no queue
        sent_us = [50_000 * tenth + 10_000 * index for index in range(5)]
        told = report(
            5 * tenth,
            [send_us + 20_000 for send_us in sent_us],
            sent_us=sent_us,
            built_us=50_000 * (tenth + 1) + 20_000,
        )
        rates.append(nada.on_feedback(told, told.built_us + 20_000).target_rate_bps)
    assert rates[0] == rates[1] == 300_000
    assert all(first == second for first, second in zip(rates[2::2], rates[3::2], strict=True))
    # In the end (4): 49 packets of 8000 bits in 0.5 s, and a round trip of 40 ms.
    assert rates[-1] == pytest.approx(784e3 * (1 + 50 / 260))


def test_silence_halves_the_rate_down_to_rmin_unless_nothing_is_out() -> None:
    nada = Nada(call=CallConfig(min_rate_bps=100_000, start_rate_bps=300_000))
    nada.on_feedback(report(0, [20_000], sent_us=[0], built_us=25_000), 50_000)
    due_us = 50_000 + MIN_NO_FEEDBACK_US
    assert nada.next_timeout_us() == due_us
    assert nada.on_timeout(due_us).target_rate_bps == 300_000
    nada.on_packet_sent(SentPacket(1, due_us, 1_000), due_us)
    rates = [nada.on_timeout(nada.next_timeout_us()).target_rate_bps for _ in range(3)]
    assert rates == [150_000, 100_000, 100_000]


# --- In calls -------------------------------------------------------------------------------------


class Watched(Nada):
    """Keeps what its receiver's half says."""

    def __init__(self, *, observed: list[Observation], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._observed = observed

    def _update(self, observed: Observation, delta_ms: float) -> None:
        self._observed.append(observed)
        super()._update(observed, delta_ms)


# Nearer to QEPS, ramp-up comes in between and raises the mean: 26 ms for PRIO 1 and 1.5 Mbps,
# instead of 15.
@pytest.mark.parametrize(
    ("prio", "max_rate_bps", "x_ms"),
    [(1.0, 6_000_000, 60.0), (1.0, 3_000_000, 30.0), (2.0, 1_500_000, 30.0)],
)
def test_a_link_of_1_mbps_is_filled_and_the_signal_rests_where_it_should(
    prio: float, max_rate_bps: int, x_ms: float
) -> None:
    call = CallConfig(duration_s=40.0, max_rate_bps=max_rate_bps)
    observed: list[Observation] = []
    watched = partial(Watched, observed=observed, parameters=NadaParameters(prio=prio))
    (played,) = play(watched, [link(1e6)], call)
    assert settled_mean(played, "target_rate_bps") == pytest.approx(1e6, rel=0.07)
    assert settled_mean(played, "utilisation") > 0.93
    assert played.steps["queue_loss_ratio"][200:].max() == 0.0
    settled = [observation.x_curr_ms for observation in observed[len(observed) // 2 :]]
    # The rate swings, and 1/rate is no straight line.
    assert sum(settled) / len(settled) == pytest.approx(x_ms, rel=0.35)


def test_ramp_up_causes_no_more_queue_than_qbound_allows() -> None:
    observed: list[Observation] = []
    (played,) = play(partial(Watched, observed=observed), [link(2.5e6)])
    first_gradual = next(i for i, o in enumerate(observed) if not o.is_ramping_up and i > 5)
    until_settled = observed[first_gradual : first_gradual + 5]
    assert max(o.x_curr_ms for o in until_settled) < P.q_bound_ms + P.q_eps_ms
    assert played.steps["target_rate_bps"][:100].max() > 2e6


def test_a_drop_of_capacity_is_followed_where_the_queue_holds_a_second() -> None:
    (played,) = play(Nada, [link(square(2.5e6, 1e6, half_period_s=20.0), queue_limit_s=1.0)])
    target_bps = played.steps["target_rate_bps"]
    assert target_bps[150:200].mean() > 2e6
    assert target_bps[240:].mean() == pytest.approx(1e6, rel=0.15)


def test_random_loss_costs_what_equations_2_and_5_say() -> None:
    two, five = play(Nada, [link(2.5e6, loss=0.02), link(2.5e6, loss=0.05)])
    # 2 %: 10·2² = 40 ms rest at 10·6/40 = 1.5 Mbps, and between losses there is ramp-up.
    assert 1.0e6 < settled_mean(two, "target_rate_bps") < 2.4e6
    # 5 %: 10·5² = 250 ms rest at 10·6/250 = 0.24 Mbps.
    assert 0.1e6 < settled_mean(five, "target_rate_bps") < 0.3e6


def test_warping_holds_its_ground_beside_tcp_which_starves_it_otherwise() -> None:
    shared = [link(2.5e6, has_tcp=True)]
    (warping,) = play(Nada, shared)
    plain = partial(Nada, parameters=NadaParameters(q_th_ms=1e6))
    (without,) = play(plain, shared)
    assert settled_mean(warping, "receive_rate_bps") > 0.6e6
    assert settled_mean(without, "receive_rate_bps") < 0.5 * settled_mean(
        warping, "receive_rate_bps"
    )


def test_a_link_below_the_start_rate_does_not_drop_the_call() -> None:
    (played,) = play(Nada, [link(200e3)])
    assert not played.dropped
    assert CALL.min_rate_bps <= played.steps["target_rate_bps"].min()
