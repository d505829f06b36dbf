"""Competing calls under a controller of their own, against twins, and against what was before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from bwe_env.action import CONFIG_PARAMETERS, action_to_rate, rate_to_action
from bwe_env.competition import Competition, Competitor
from bwe_env.config import (
    AudioConfig,
    CallConfig,
    JitterConfig,
    LinkConfig,
    LossConfig,
    PathConfig,
    VideoConfig,
)
from bwe_env.controllers import controller_id, decided
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.estimator import NO_TIMEOUT_US, RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.gcc import GccParameters
from bwe_env.network import Network
from bwe_env.observation import FEATURE_NAMES, NUM_FEATURES, ObservationConfig
from bwe_env.reward import RewardConfig
from bwe_env.rollout import CallSeries, run_calls, run_series
from bwe_env.sim.batch import MODE_NONE, MODE_RATE
from bwe_env.sim.events import EVENT_FRAME, EVENT_PROCESS
from bwe_env.sim.state import World
from bwe_env.trace import constant, square
from bwe_env.truth import GroundTruth
from tests.scripted_models import ScriptedModels

CALL = CallConfig(duration_s=12.0)
INTERVAL_US = 100_000
LOSSY = Network(
    trace=square(2.5e6, 1.2e6, half_period_s=3.0, name="lossy"),
    link=LinkConfig(queue_limit_s=0.2),
    forward=PathConfig(
        loss=LossConfig(good_loss=0.01), jitter=JitterConfig(distribution="normal", scale_s=0.003)
    ),
    reverse=PathConfig(loss=LossConfig(good_loss=0.01)),
)
CROWD = replace(LOSSY, competing_calls=2, competing_start_s=(0.0, 4.3))
PAIR = Network(trace=constant(3e6, name="pair"), competing_calls=1)


class Constant:
    """A policy with one answer."""

    action_mode: Literal["rate", "scale", "config"] = "rate"

    def __init__(self, rate_bps: float) -> None:
        self.action = float(rate_to_action(rate_bps, CALL.min_rate_bps, CALL.max_rate_bps))

    def reset(self, num_envs: int) -> None:
        pass

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        return np.full((len(observation), 1), self.action, dtype=np.float32)


class Backoff:
    """Adds 20 kbps while its queue is short, and gives way by a tenth when it is long.

    It remembers its rate. Additive increase and multiplicative decrease converge to equal shares
    (Chiu and Jain, 1989).
    """

    action_mode: Literal["rate", "scale", "config"] = "rate"

    def reset(self, num_envs: int) -> None:
        self.rates_bps = np.full(num_envs, 300e3)

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        newest = observation.reshape(len(observation), -1, NUM_FEATURES)[:, -1]
        delay = newest[:, FEATURE_NAMES.index("queue_delay")]  # -0.1: 44 ms
        rates_bps = np.where(delay > -0.1, 0.9 * self.rates_bps, self.rates_bps + 20e3)
        low, high = CALL.min_rate_bps, CALL.max_rate_bps
        self.rates_bps = rates_bps.clip(low, high)
        return rate_to_action(self.rates_bps, low, high)[:, None].astype(np.float32)


class Logging(Constant):
    """Tells of all its copies what they were asked."""

    def __init__(self, log: list[tuple[str, Any]]) -> None:
        super().__init__(500e3)
        self.log = log

    def __deepcopy__(self, memo: dict[int, Any]) -> Logging:
        return Logging(self.log)

    def reset(self, num_envs: int) -> None:
        self.log.append(("reset", num_envs))

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        self.log.append(("act", truth.capacity_bps.tolist()))
        return super().act(observation, truth)


class Fixed:
    """An estimator with one answer that keeps the times it is told."""

    def __init__(self, rate_bps: float = 400e3) -> None:
        self.rate_bps = rate_bps
        self.times_us: list[tuple[str, int]] = []

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        self.times_us.append(("sent", now_us))

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        self.times_us.append(("report", now_us))
        self.times_us += [
            ("arrived", p.arrival_time_us) for p in report.packets if p.arrival_time_us
        ]
        return RateDecision(target_rate_bps=self.rate_bps)

    def on_timeout(self, now_us: int) -> RateDecision:
        return RateDecision(target_rate_bps=self.rate_bps)

    def next_timeout_us(self) -> int:
        return NO_TIMEOUT_US


def series(network: Network, own: Any, competitor: Competitor | None, **options: Any) -> CallSeries:
    options = {"call": CALL, "seeds": (5,)} | options
    return run_series(network, own, competitor=competitor, **options)[0]


class Stepped:
    """A world whose own sender is silent or set by hand, and its competition, step by step."""

    def __init__(
        self, network: Network, competitor: Competitor | None, call: CallConfig = CALL
    ) -> None:
        self.call = call
        self.world = World.make(
            1,
            [network],
            call,
            gcc=GccParameters(),
            reward=RewardConfig(),
            observation=ObservationConfig(),
            controller=controller_id(Constant(1e6)),
        )
        self.competition = competitor and Competition(self.world, competitor, call)
        if self.competition:
            self.competition.prepare()
        self.world.reset(0, 0, 77)
        if self.competition:
            self.competition.begin()

    def step(self, rate_bps: float = 0.0) -> None:
        active = np.ones(1, dtype=np.bool_)
        if self.competition:
            self.competition.decide(active)
        self.world.step(
            MODE_RATE if rate_bps else MODE_NONE,
            np.array([rate_bps]),
            active,
            interval_us=INTERVAL_US,
            duration_us=120_000_000,
        )
        if self.competition:
            self.competition.finish(active, interval_us=INTERVAL_US, duration_us=120_000_000)

    @property
    def observation(self) -> NDArray[np.float32]:
        """What the first competing call sees now; without one, the call itself."""
        return self.competition.observations[0, 0] if self.competition else self.world.history[0]


# --- The same as before ---------------------------------------------------------------------------


def test_gcc_as_a_competitor_is_what_competing_calls_were_bit_for_bit() -> None:
    for own in ("gcc", Backoff()):
        before, now = (series(CROWD, own, c) for c in (None, Competitor()))
        assert before.steps.tobytes() == now.steps.tobytes()
        assert before.flow_rates_bps.tobytes() == now.flow_rates_bps.tobytes()
        assert len(before.competing_steps) == 0
        assert now.competing_steps.shape == (2, CALL.steps)


def test_a_competitor_changes_nothing_on_networks_without_competing_calls() -> None:
    tables = [run_calls([LOSSY], Backoff(), call=CALL, competitor=c) for c in (None, Competitor())]
    for name, column in tables[0].items():
        np.testing.assert_array_equal(column, tables[1][name])
    assert series(LOSSY, "gcc", Competitor()).competing_steps.shape == (0, CALL.steps)


def test_rows_of_competing_calls_have_the_rates_that_arrive_and_no_time_before_they_begin() -> None:
    played = series(CROWD, "gcc", Competitor())
    has_begun = ~np.isnan(played.competing_steps["time_s"])
    assert has_begun[0].all()
    assert (has_begun[1] == (played.time_s > 4.3 + 1e-9)).all()
    rates = np.where(has_begun, played.competing_steps["receive_rate_bps"], 0.0)
    np.testing.assert_allclose(rates, played.flow_rates_bps[1:])
    for name in ("time_s", "capacity_bps"):
        np.testing.assert_array_equal(played.competing_steps[name][0], played.steps[name])
    # Of a flow that has settled, one second's score is that of any call.
    assert (played.competing_steps["call_score"][1, 70:] > 1.5).any()


# --- Policies -------------------------------------------------------------------------------------


def test_policies_that_always_answer_the_same_give_each_flow_its_rate() -> None:
    played = series(PAIR, Constant(900e3), Competitor(controller=Constant(600e3)))
    assert played.steps["target_rate_bps"] == pytest.approx(900e3, rel=1e-6)
    assert played.competing_steps["target_rate_bps"][0] == pytest.approx(600e3, rel=1e-6)
    own_bps, other_bps = played.flow_rates_bps[:, 50:].mean(axis=1)
    assert own_bps == pytest.approx(900e3, rel=0.08)  # the encoder's noise
    assert other_bps == pytest.approx(600e3, rel=0.08)


def test_two_identical_policies_share_a_link_alike() -> None:
    call = replace(CALL, duration_s=60.0)
    network = replace(PAIR, trace=constant(2e6, name="even"))
    competitor = Competitor(controller=Backoff())
    played = run_series(network, Backoff(), competitor=competitor, call=call, seeds=tuple(range(6)))
    shares = np.array([s.flow_rates_bps[:, 300:].mean(axis=1) for s in played])
    assert (shares.sum(axis=1) > 0.7 * 2e6).all()  # the saw-tooth of giving way
    # Both react to the same queue; what is left is the phase of the cameras.
    assert (shares.min(axis=1) / shares.max(axis=1) > 0.75).all()
    assert shares[:, 0].mean() == pytest.approx(shares[:, 1].mean(), rel=0.1)


def test_beside_a_muted_call_a_competing_one_sees_what_it_would_see_alone_bit_for_bit() -> None:
    muted = replace(
        CALL,
        audio=AudioConfig(enabled=False),
        consent_interval_s=0.0,
        video=VideoConfig(pause_from_s=0.0, pause_until_s=60.0),
    )
    alone = replace(muted, video=VideoConfig())
    network = replace(LOSSY, reverse=PathConfig())
    pair = Stepped(replace(network, competing_calls=1), Competitor(controller=Backoff()), muted)
    twin = Stepped(network, None, alone)
    own, other = twin.world.flows[0], pair.world.flows[1]
    # The twin is the same sender: its camera, and the chances that are its own.
    own["key"], own["camera_phase_us"] = other["key"], other["camera_phase_us"]
    own["timers_us"][EVENT_FRAME] = other["camera_phase_us"]
    policy = Backoff()
    policy.reset(1)
    for _ in range(CALL.steps):
        np.testing.assert_array_equal(twin.observation, pair.observation)
        truth = GroundTruth(twin.world)
        rate = decided(policy, twin.world.history, truth, alone, GccParameters())
        pair.step(150e3)
        twin.step(float(rate[0]))
    sent = pair.world.flows["totals"]["sent_packets"].sum(axis=1)
    assert sent[0] == 0
    assert sent[1] > 500
    assert pair.world.flows["totals"]["fate_packets"][1, 2:].sum() > 0  # some were lost


def test_a_flow_that_begins_later_sees_itself_as_one_that_began_with_the_call() -> None:
    wide = replace(PAIR, trace=constant(8e6, name="wide"))
    call = replace(CALL, audio=AudioConfig(enabled=False))
    early, late = (
        Stepped(
            replace(wide, competing_start_s=(start_s,)),
            Competitor(controller=Constant(700e3)),
            replace(call, video=VideoConfig(pause_until_s=60.0, frame_size_sd=0.0)),
        )
        for start_s in (0.0, 3.0)
    )
    before = late.observation
    for _ in range(30):
        late.step(150e3)
        np.testing.assert_array_equal(late.observation, before)
    for _ in range(60):
        # GCC's shadow counts in seconds of the call: the last bits of its features differ.
        np.testing.assert_allclose(late.observation, early.observation, atol=2e-3)
        late.step(150e3)
        early.step(150e3)
    assert late.observation[-1, FEATURE_NAMES.index("acked_rate")] > 0.0


def test_a_flow_that_begins_within_an_interval_is_first_judged_by_what_is_left_of_it() -> None:
    network = replace(PAIR, competing_start_s=(1.05,))
    played = series(network, "gcc", Competitor(controller=Constant(700e3)))
    rows = played.competing_steps[0]
    assert np.isnan(rows["time_s"][9])
    assert rows["time_s"][10] == pytest.approx(1.1)
    # What was sent in 50 ms of the interval of 100 ms; then the policy's rate is in force.
    assert rows["sent_rate_bps"][10] <= 20e6
    assert rows["target_rate_bps"][10] == CALL.start_rate_bps
    assert rows["target_rate_bps"][11] == pytest.approx(700e3, rel=1e-6)


def test_calls_that_begin_together_share_a_copy_of_the_policy_and_others_have_their_own() -> None:
    networks = [
        replace(CROWD, trace=constant(1e6, name="a"), competing_start_s=(0.0, 2.0)),
        replace(CROWD, trace=constant(2e6, name="b"), competing_calls=1, competing_start_s=()),
        replace(LOSSY, trace=constant(4e6, name="c")),
    ]
    log: list[tuple[str, Any]] = []
    competitor = Competitor(controller=Logging(log))
    run_calls(
        networks, "gcc", call=replace(CALL, duration_s=3.0), seeds=(0,), competitor=competitor
    )
    assert log[:2] == [("reset", 2), ("reset", 1)]
    asked = [capacities for what, capacities in log[2:]]
    assert asked[:20] == [[1e6, 2e6]] * 20
    assert asked[20:] == [[1e6, 2e6], [1e6]] * 10


def test_a_policy_that_cannot_be_copied_is_refused() -> None:
    class Unique(Constant):
        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            raise TypeError("there is only one")

    with pytest.raises(ConfigError, match="Unique cannot drive competing calls.*only one"):
        series(PAIR, "gcc", Competitor(controller=Unique(1e6)))


def test_an_unknown_controller_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown controller 'bbr'"):
        series(PAIR, "gcc", Competitor(controller="bbr"))  # type: ignore[arg-type]


def test_a_competing_call_that_has_hung_up_is_not_called_back_by_its_policy() -> None:
    pair = Stepped(PAIR, Competitor(controller=Constant(900e3)))
    for _ in range(30):
        pair.step(500e3)
    other = pair.world.flows[1]
    other["drop_timeout_us"] = 1  # the next consent response makes it expire at once
    while other["timers_us"][EVENT_PROCESS] < 1 << 60:
        pair.step(500e3)
    sent = int(other["totals"]["sent_packets"].sum())
    for _ in range(30):
        pair.step(500e3)
    assert int(other["totals"]["sent_packets"].sum()) == sent > 0


# --- The other modes, and network models ----------------------------------------------------------


@pytest.mark.parametrize("mode", ["scale", "config"])
def test_neutral_actions_on_gcc_leave_it_as_it_is(mode: Literal["scale", "config"]) -> None:
    class Neutral(Constant):
        action_mode = mode

        def act(self, observation: Any, truth: Any) -> NDArray[np.float32]:
            size = 1 if mode == "scale" else len(CONFIG_PARAMETERS)
            return np.zeros((len(observation), size), dtype=np.float32)

    plain, neutral = (series(PAIR, "gcc", Competitor(controller=c)) for c in ("gcc", Neutral(1e6)))
    plain_bps, neutral_bps = (s.flow_rates_bps[1].mean() for s in (plain, neutral))
    assert neutral_bps == pytest.approx(plain_bps, rel=0.02 if mode == "config" else 1e-12)


def test_parameters_that_a_competitor_sets_are_its_own_and_end_with_its_calls() -> None:
    class Daring(Constant):
        action_mode = "config"

        def act(self, observation: Any, truth: Any) -> NDArray[np.float32]:
            return np.ones((len(observation), len(CONFIG_PARAMETERS)), dtype=np.float32)

    pair = Stepped(PAIR, Competitor(controller=Daring(1e6)))
    for _ in range(3):
        pair.step()
    gains = pair.world.flows["gcc_parameters"]["trendline_gain"]
    usual = GccParameters().trendline_gain
    assert gains.tolist() == [usual, 10.0]
    assert pair.competition is not None
    pair.competition.prepare()
    assert gains.tolist() == [usual, usual]


def test_network_models_of_a_competitor_count_its_own_bins() -> None:
    said = np.linspace(0.0, 1.0, 101)[:, None]
    competitor = Competitor(
        controller=Backoff(), network_models=ScriptedModels(said, ("congestion",))
    )

    class Blind(Backoff):
        def act(self, observation: Any, truth: Any) -> NDArray[np.float32]:
            return np.zeros((len(observation), 1), dtype=np.float32)

    network = replace(CROWD, competing_start_s=(0.0, 1.0))
    stepped = Stepped(network, replace(competitor, controller=Blind()))
    assert stepped.competition is not None
    for _ in range(15):
        stepped.step(500e3)
    answers = stepped.competition.observations[0, :, -1, NUM_FEATURES]
    # After 15 and after 5 bins, the answers to the 15th and the 5th: 0.14 and 0.04, as 2 p - 1.
    np.testing.assert_allclose(answers, [2 * 0.14 - 1, 2 * 0.04 - 1], atol=1e-6)
    with pytest.raises(ConfigError, match="interval_s"):
        series(PAIR, "gcc", competitor, call=replace(CALL, interval_s=0.06))


# --- Estimators -----------------------------------------------------------------------------------


def test_an_estimator_as_a_competitor_has_its_rate_and_a_clock_of_its_own() -> None:
    made: list[Fixed] = []

    def factory() -> Fixed:
        made.append(Fixed())
        return made[-1]

    network = replace(PAIR, competing_start_s=(5.0,))
    played = series(network, Constant(900e3), Competitor(controller=factory))
    assert len(made) == 1
    assert played.competing_steps["target_rate_bps"][0, 60:] == pytest.approx(400e3)
    assert played.steps["target_rate_bps"] == pytest.approx(900e3, rel=1e-6)
    times_us = made[0].times_us
    assert times_us[0] == ("sent", 0)
    for kind, (low, high) in {"sent": (0, 7e6), "report": (1, 7e6), "arrived": (1, 7e6)}.items():
        told = [at_us for what, at_us in times_us if what == kind]
        assert low <= min(told) < 3e5
        assert 6.5e6 < max(told) <= high


def receiving(rate_bps: float) -> Callable[[], Fixed]:
    class AtReceiver(Fixed):
        side = "receiver"
        interval_s = 0.2

    return lambda: AtReceiver(rate_bps)


def test_estimators_of_both_sides_drive_a_call_and_its_competitor_at_once() -> None:
    played = series(PAIR, lambda: Fixed(700e3), Competitor(controller=receiving(500e3)))
    assert played.steps["target_rate_bps"][20:] == pytest.approx(700e3)
    assert played.competing_steps["target_rate_bps"][0, 20:] == pytest.approx(500e3)
    # As a competitor an estimator is what it is as the call's own.
    turned = series(PAIR, receiving(500e3), Competitor(controller=lambda: Fixed(700e3)))
    assert turned.flow_rates_bps[:, 40:].mean(axis=1) == pytest.approx([500e3, 700e3], rel=0.1)


def test_an_estimator_that_fails_hangs_up_its_own_competing_call_alone() -> None:
    class Failing(Fixed):
        def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
            if now_us > 3_000_000:
                raise RuntimeError("lost")
            return super().on_feedback(report, now_us)

    played = series(PAIR, "gcc", Competitor(controller=Failing))
    assert not played.dropped
    assert len(played.steps) == CALL.steps
    assert played.flow_rates_bps[1, 10:30].min() > 0.0
    assert played.flow_rates_bps[1, 40:].max() == 0.0


def test_a_policy_beside_an_estimator_decides_as_it_does_beside_gcc() -> None:
    class Climbing(Constant):
        def act(self, observation: Any, truth: Any) -> NDArray[np.float32]:
            return observation[:, -1:].clip(-1.0, 1.0)  # the call's age

    played = series(PAIR, Climbing(1e6), Competitor(controller=Fixed))
    ages = np.concatenate([[0.0], played.time_s[:-1]]).clip(0.1, 120.0)
    actions = 2.0 * np.log(ages / 0.1) / np.log(120.0 / 0.1) - 1.0
    expected = action_to_rate(actions, CALL.min_rate_bps, CALL.max_rate_bps)
    assert played.steps["target_rate_bps"] == pytest.approx(expected, rel=1e-4)


def test_targeting_beside_a_competing_estimator_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not simulated"):
        run_calls(
            [Network(trace=constant(1e6), competing_calls=1)],
            "gcc",
            targeting=object(),  # type: ignore[arg-type]
            competitor=Competitor(controller=lambda: None),  # type: ignore[arg-type,return-value]
        )
