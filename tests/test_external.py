"""Python estimators in the simulator: what they are told, when they are asked, how they fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.action import rate_to_action
from bwe_env.config import (
    AudioConfig,
    CallConfig,
    FeedbackConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    PathConfig,
    VideoConfig,
)
from bwe_env.errors import UnknownNameError
from bwe_env.estimator import NO_TIMEOUT_US, RateDecision
from bwe_env.external import ExternalEstimators
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.observation import ObservationConfig
from bwe_env.reward import RewardConfig
from bwe_env.rollout import run_calls
from bwe_env.sim.call import STATUS_ACTIVE
from bwe_env.sim.flow import CONTROLLER_EXTERNAL
from bwe_env.sim.packet import (
    FATE_DELIVERED,
    KIND_PADDING,
    PACKET,
    REPORT_RECEIVED,
    REPORT_RECEIVED_NOW,
)
from bwe_env.sim.state import World
from bwe_env.trace import constant

REVERSE_US = 30_000

NETWORK = Network(
    trace=constant(2e6),
    forward=PathConfig(propagation_delay_s=0.02, loss=LossConfig(good_loss=0.03)),
    reverse=PathConfig(propagation_delay_s=0.03),
)
CALL = CallConfig(duration_s=5.0)


#: By the number in a packet's row.
KIND_NAMES = ("video", "audio", "retransmission", "padding", "fec")


class Fixed:
    """One answer; keeps what it is told and when."""

    def __init__(self, rate_bps: float = 700_000.0, **decision: float) -> None:
        self.decision = RateDecision(target_rate_bps=rate_bps, **decision)  # type: ignore[arg-type]
        self.sent: list[tuple[SentPacket, int]] = []
        self.reports: list[tuple[FeedbackReport, int]] = []
        self.timeouts_us: list[int] = []
        self.order: list[str] = []
        self.next_us = 0

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        self.sent.append((packet, now_us))
        self.order.append("sent")

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        self.reports.append((report, now_us))
        self.order.append("report")
        return self.decision

    def on_timeout(self, now_us: int) -> RateDecision:
        self.timeouts_us.append(now_us)
        self.next_us = NO_TIMEOUT_US
        return self.decision

    def next_timeout_us(self) -> int:
        return self.next_us


class AtReceiver(Fixed):
    """The same at the other end."""

    side = "receiver"
    interval_s = 0.2


def make_world(
    factory: Callable[[], Any],
    network: Network = NETWORK,
    call: CallConfig = CALL,
    num_envs: int = 1,
) -> tuple[World, ExternalEstimators]:
    world = World.make(
        num_envs,
        [network],
        call,
        gcc=GccParameters(),
        reward=RewardConfig(),
        observation=ObservationConfig(),
        controller=CONTROLLER_EXTERNAL,
    )
    world.packets = np.zeros((num_envs, 1 << 13), dtype=PACKET)
    for env in range(num_envs):
        world.reset(env, 0, 40 + env)
    return world, ExternalEstimators(world, factory, call)


def sent_rows(world: World) -> NDArray[Any]:
    rows: NDArray[Any] = world.packets[0, : int(world.flows[0].history.next_seq)]
    return rows


# --- The sender's side ----------------------------------------------------------------------------


class ConstantPolicy:
    action_mode = "rate"

    def __init__(self, rate_bps: float) -> None:
        self.action = float(rate_to_action(rate_bps, CALL.min_rate_bps, CALL.max_rate_bps))

    def reset(self, num_envs: int) -> None:
        pass

    def act(self, observation: Any, truth: Any) -> Any:
        return np.full((len(observation), 1), self.action)


def test_a_constant_estimator_has_the_target_of_the_constant_policy() -> None:
    networks = (NETWORK, Network(trace=constant(400e3), reverse=NETWORK.forward))
    estimator = run_calls(networks, Fixed, call=CALL, seeds=(0, 1))
    policy = run_calls(networks, ConstantPolicy(700_000.0), call=CALL, seeds=(0, 1))
    for name in ("mean_target_bps", "rate_change_ratio", "mse_mbps2", "error_rate"):
        assert estimator[name] == pytest.approx(policy[name], rel=1e-9), name
    # It is first asked a microsecond after the start: the first key frame is of the start rate.
    assert (estimator["mean_sent_bps"] < policy["mean_sent_bps"]).all()
    assert estimator["mean_sent_bps"] == pytest.approx(policy["mean_sent_bps"], rel=0.05)


def test_an_estimator_hears_of_every_packet_once_in_order_and_before_its_report() -> None:
    estimator = Fixed()
    world, estimators = make_world(lambda: estimator)
    estimators.advance(5_000_000)
    rows = sent_rows(world)
    told = [packet for packet, _ in estimator.sent]
    assert [packet.seq for packet in told] == list(range(len(told)))
    assert len(told) > 0.95 * len(rows)  # the rest was sent after the last report
    for packet, now_us in estimator.sent:
        row = rows[packet.seq]
        assert packet.send_time_us == now_us == row["send_us"]
        assert packet.size_bytes == row["size_bytes"]
        assert packet.probe_cluster == -1
        assert packet.kind == KIND_NAMES[row["kind"]]
    assert {"video", "audio"} <= {packet.kind for packet in told}
    heard = 0
    reports = iter(estimator.reports)
    for what in estimator.order:
        if what == "sent":
            heard += 1
        else:
            report, _ = next(reports)
            assert max(result.sent.seq for result in report.packets) < heard


def test_reports_tell_of_each_arrival_once_truly_and_not_before_they_can() -> None:
    estimator = Fixed()
    world, estimators = make_world(lambda: estimator)
    estimators.advance(5_000_000)
    rows = sent_rows(world)
    received: list[int] = []
    missing: list[int] = []
    assert len(estimator.reports) > 80
    for report, now_us in estimator.reports:
        assert now_us == report.built_us + REVERSE_US
        seqs = [result.sent.seq for result in report.packets]
        assert seqs == sorted(seqs)
        for result in report.received:
            # To the nearest tick that a report can tell.
            assert result.arrival_time_us % 250 == 0
            assert abs(result.arrival_time_us - rows["arrival_us"][result.sent.seq]) <= 125
            assert result.arrival_time_us <= report.built_us
        received += [result.sent.seq for result in report.received]
        missing += [result.sent.seq for result in report.packets if result.arrival_time_us is None]
        newest = seqs[-1]
        in_flight = (rows["send_us"] < now_us) & (np.arange(len(rows)) > newest)
        assert report.bytes_in_flight == rows["size_bytes"][in_flight].sum()
        assert report.loss_ratio == 1.0 - len(report.received) / len(seqs)
    assert len(set(received)) == len(received)
    assert received == np.flatnonzero(rows["fate"][: received[-1] + 1] == FATE_DELIVERED).tolist()
    assert missing == np.flatnonzero(rows["fate"][: received[-1] + 1] != FATE_DELIVERED).tolist()
    assert 0.01 < len(missing) / len(rows) < 0.06


class Clock(Fixed):
    """Wants to be called at odd times."""

    asked_us = (1, 70_123, 70_124, 400_000, 2_345_678)

    def next_timeout_us(self) -> int:
        done = len(self.timeouts_us)
        return self.asked_us[done] if done < len(self.asked_us) else NO_TIMEOUT_US


def test_timers_ring_at_the_asked_microsecond_and_then_no_more() -> None:
    estimator = Clock()
    _, estimators = make_world(lambda: estimator)
    for until_us in range(100_000, 5_000_001, 100_000):
        estimators.advance(until_us)
    assert tuple(estimator.timeouts_us) == Clock.asked_us


def test_a_timer_set_in_the_past_rings_at_the_next_microsecond_instead_of_for_ever() -> None:
    class Late(Fixed):
        def next_timeout_us(self) -> int:
            return 0 if len(self.timeouts_us) < 3 else NO_TIMEOUT_US

    estimator = Late()
    _, estimators = make_world(lambda: estimator)
    estimators.advance(1_000_000)
    assert estimator.timeouts_us == [1, 2, 3]


def test_a_decision_acts_at_once_and_within_the_limits_of_the_call() -> None:
    estimator = Fixed(50e6)
    world, estimators = make_world(lambda: estimator)
    estimators.advance(10)
    assert world.flows[0].target_rate_bps == CALL.max_rate_bps
    estimator.decision = RateDecision(target_rate_bps=1.0)
    estimators.advance(1_000_000)
    assert world.flows[0].target_rate_bps == CALL.min_rate_bps


def test_padding_and_window_of_a_decision_are_kept_on_the_wire() -> None:
    quiet = replace(
        CALL, video=VideoConfig(enabled=False), audio=AudioConfig(enabled=False), duration_s=5.0
    )
    clean = Network(trace=constant(5e6), reverse=NETWORK.reverse)
    padding = Fixed(200_000.0, padding_rate_bps=150_000.0)
    world, estimators = make_world(lambda: padding, clean, quiet)
    estimators.advance(5_000_000)
    rows = sent_rows(world)
    assert (rows["kind"] == KIND_PADDING).all()
    assert 8 * rows["size_bytes"].sum() / 5.0 == pytest.approx(150_000, rel=0.02)

    windowed = Fixed(3e6, cwnd_bytes=10_000)
    world, estimators = make_world(lambda: windowed, clean, replace(CALL, audio=quiet.audio))
    most_bytes = 0
    for until_us in range(10_000, 3_000_001, 10_000):
        estimators.advance(until_us)
        most_bytes = max(most_bytes, int(world.flows[0].history.in_flight_bytes))
    # The last packet goes out when the window has some room left.
    assert 9_000 < most_bytes < 10_000 + 1_228


# --- Failures -------------------------------------------------------------------------------------


class Raises(Fixed):
    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        if now_us > 2_000_000:
            raise RuntimeError("my model is broken")
        return self.decision


class AnswersNaN(Fixed):
    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        if now_us > 2_000_000:
            return RateDecision(target_rate_bps=float("nan"))
        return self.decision


class AnswersANumber(Fixed):
    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        return 500_000.0 if now_us > 2_000_000 else self.decision  # type: ignore[return-value]


class RaisesOnTimeout(Fixed):
    def next_timeout_us(self) -> int:
        return 2_000_000 if not self.timeouts_us else NO_TIMEOUT_US

    def on_timeout(self, now_us: int) -> RateDecision:
        raise ValueError("too late")


@pytest.mark.parametrize("broken", [Raises, AnswersNaN, AnswersANumber, RaisesOnTimeout])
def test_an_estimator_that_fails_drops_its_own_call_with_a_warning_and_no_other(
    broken: type[Fixed], caplog: pytest.LogCaptureFixture
) -> None:
    made = iter([Fixed(), broken(), Fixed()])
    with caplog.at_level(logging.WARNING, logger="bwe_env.external"):
        table = run_calls((NETWORK,), lambda: next(made), call=CALL, seeds=(0, 1, 2))
    assert table["dropped"].tolist() == [False, True, False]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "estimator of call 1 failed" in record.getMessage()
    # Three of five seconds never came.
    assert table["freeze_ratio"][1] >= 2.9 / 5.0
    assert table["mean_reward"][1] < -0.1
    healthy = run_calls((NETWORK,), Fixed, call=CALL, seeds=(0, 2))
    for name, column in healthy.items():
        assert column.tobytes() == table[name][[0, 2]].tobytes(), name


def test_an_estimator_at_an_unknown_side_is_refused() -> None:
    class Beside(Fixed):
        side = "middle"

    with pytest.raises(UnknownNameError, match="sender"):
        make_world(Beside)


# --- The receiver's side --------------------------------------------------------------------------


def test_a_decision_of_the_receiver_arrives_after_the_reverse_delay() -> None:
    estimator = AtReceiver(1_234_567.0)
    world, estimators = make_world(lambda: estimator)
    assert world.flows[0].target_rate_bps == CALL.start_rate_bps
    # Asked first after 200 ms; the answer takes 30 ms.
    estimators.advance(200_000 + REVERSE_US - 1)
    assert [now_us for _, now_us in estimator.reports] == [200_000]
    assert world.flows[0].target_rate_bps == CALL.start_rate_bps
    estimators.advance(200_000 + REVERSE_US)
    assert world.flows[0].target_rate_bps == 1_234_567
    estimators.advance(3_000_000)
    assert [now_us for _, now_us in estimator.reports] == list(range(200_000, 3_000_001, 200_000))
    assert estimator.sent == []  # it stands at the other end
    assert estimator.timeouts_us == []


def test_a_receiver_sees_every_arrival_once_and_gaps_as_losses() -> None:
    estimator = AtReceiver()
    world, estimators = make_world(lambda: estimator)
    estimators.advance(4_000_000)
    rows = sent_rows(world)
    results = [result for report, _ in estimator.reports for result in report.packets]
    assert [result.sent.seq for result in results] == list(range(len(results)))
    for result in results:
        row = rows[result.sent.seq]
        assert (result.arrival_time_us is not None) == (row["fate"] == FATE_DELIVERED)
        if result.arrival_time_us is not None:
            assert result.arrival_time_us == row["arrival_us"]
    for report, now_us in estimator.reports:
        assert report.built_us == now_us
        assert all(p.arrival_time_us <= now_us for p in report.received)  # type: ignore[operator]
        # And nothing that has arrived is held back.
        newest = np.flatnonzero((rows["arrival_us"] <= now_us) & (rows["fate"] == FATE_DELIVERED))
        assert report.packets[-1].sent.seq == newest[-1]


@pytest.mark.parametrize("skew_ppm", [-1_000.0, 1_000.0])
def test_all_times_of_a_report_to_the_sender_are_by_the_receivers_clock(skew_ppm: float) -> None:
    estimator = Fixed()
    call = replace(CALL, feedback=FeedbackConfig(clock_skew_ppm=skew_ppm))
    _, estimators = make_world(lambda: estimator, call=call)
    estimators.advance(5_000_000)
    for report, now_us in estimator.reports:
        shown_us = (now_us - REVERSE_US) * (1.0 + 1e-6 * skew_ppm)
        assert abs(report.built_us - shown_us) <= 1
        waits_us = [report.built_us - (p.arrival_time_us or 0) for p in report.received]
        assert min(waits_us) >= -126  # a report tells of ticks of 250 us
        assert max(waits_us) < 300_000


@pytest.mark.parametrize("skew_ppm", [-1_000.0, 1_000.0])
def test_a_receiver_tells_all_times_by_its_own_clock(skew_ppm: float) -> None:
    estimator = AtReceiver()
    call = replace(CALL, feedback=FeedbackConfig(clock_skew_ppm=skew_ppm))
    world, estimators = make_world(lambda: estimator, call=call)
    estimators.advance(5_000_000)
    rows = sent_rows(world)
    told_us = [p.arrival_time_us for report, _ in estimator.reports for p in report.received]
    # Reports to the sender put some arrivals on that clock before they are told of, others after.
    assert told_us == sorted(told_us)  # type: ignore[type-var]
    for report, now_us in estimator.reports:
        assert abs(report.built_us - now_us * (1.0 + 1e-6 * skew_ppm)) <= 1
        for result in report.received:
            row = rows[result.sent.seq]
            if row["report_state"] in (REPORT_RECEIVED_NOW, REPORT_RECEIVED):
                assert result.arrival_time_us == row["arrival_us"]


@pytest.mark.parametrize("factory", [Fixed, AtReceiver])
def test_a_packet_that_comes_late_is_told_of_as_missing_first_and_then_once_as_received(
    factory: type[Fixed],
) -> None:
    jitter = JitterConfig(distribution="uniform", scale_s=0.05)
    overtaking = replace(
        NETWORK, forward=replace(NETWORK.forward, jitter=jitter, keeps_order=False)
    )
    estimator = factory(700_000.0)
    world, estimators = make_world(lambda: estimator, overtaking)
    estimators.advance(4_000_000)
    rows = sent_rows(world)
    missing: set[int] = set()
    received: list[int] = []
    for report, _ in estimator.reports:
        for result in report.packets:
            seq, at_us = result.sent.seq, result.arrival_time_us
            if at_us is None:
                assert rows["fate"][seq] != FATE_DELIVERED or (
                    rows["arrival_us"][seq] > report.built_us
                )
                missing.add(seq)
                continue
            # By what a report can tell: 250 us.
            assert abs(at_us - rows["arrival_us"][seq]) <= 125
            assert rows["arrival_us"][seq] <= report.built_us
            received.append(seq)
    built_us = estimator.reports[-1][0].built_us
    arrived = np.flatnonzero((rows["fate"] == FATE_DELIVERED) & (rows["arrival_us"] <= built_us))
    assert sorted(received) == arrived.tolist()
    assert len(missing.intersection(received)) > 40  # two for each of the receiver's looks


def test_a_decision_of_the_receiver_can_be_lost_on_the_way() -> None:
    deaf = replace(NETWORK, reverse=PathConfig(loss=LossConfig(good_loss=1.0)))
    estimator = AtReceiver(1_000_000.0)
    world, estimators = make_world(lambda: estimator, deaf)
    estimators.advance(4_000_000)
    assert len(estimator.reports) == 20
    assert world.flows[0].target_rate_bps == CALL.start_rate_bps


@pytest.mark.parametrize("factory", [Fixed, AtReceiver])
def test_estimators_at_either_side_finish_rough_calls(factory: type[Fixed]) -> None:
    rough = Network(
        trace=constant(300e3, name="rough"),
        link=LinkConfig(queue_limit_s=1.0),
        forward=PathConfig(
            loss=LossConfig(good_to_bad=0.05, bad_to_good=0.2),
            jitter=JitterConfig(distribution="normal", scale_s=0.05, correlation=0.5),
        ),
        reverse=PathConfig(
            loss=LossConfig(good_loss=0.3),
            jitter=JitterConfig(distribution="uniform", scale_s=0.05),
        ),
    )
    table = run_calls((rough,), factory, call=CALL, seeds=(0, 1, 2))
    assert not table["dropped"].any()
    assert (table["queue_loss_ratio"] > 0.05).all()
    for name, column in table.items():
        if not name.startswith("last_minute"):  # calls of a few seconds have none
            assert column.dtype.kind != "f" or np.isfinite(column).all(), name


def test_calls_under_an_estimator_are_active_until_they_end() -> None:
    world, estimators = make_world(Fixed, num_envs=3)
    estimators.advance(5_000_000)
    assert (world.calls["status"] == STATUS_ACTIVE).all()
    assert (world.calls["now_us"] == 5_000_000).all()
