"""Targeting for one call from outside: as the simulator does it, and GCC left as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import bwe_env
from bwe_env.config import CallConfig, LinkConfig, LossConfig, PathConfig
from bwe_env.errors import ConfigError
from bwe_env.estimator import BandwidthEstimator, RateDecision
from bwe_env.feedback import FeedbackReport, PacketResult, SentPacket
from bwe_env.gcc import GccParameters, GoogCc
from bwe_env.gcc.goog_cc import PROCESS_INTERVAL_US
from bwe_env.metrics import CALL_COLUMNS
from bwe_env.network import Network
from bwe_env.rollout import record_calls, run_calls
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeted_gcc import TargetedGcc
from bwe_env.targeting import (
    AlarmResponse,
    SettingsPolicy,
    Targeting,
    TargetingPlan,
    TypeResponse,
)
from bwe_env.telemetry import TELEMETRY_NAMES
from bwe_env.trace import constant, square
from tests.scripted_models import ALL_OUTPUTS, ScriptedModels

LOSSY = PathConfig(loss=LossConfig(good_loss=0.02, good_to_bad=0.01, bad_to_good=0.3))
NETWORKS = (
    Network(trace=square(2e6, 0.4e6, half_period_s=1.5), link=LinkConfig(queue_limit_s=0.2)),
    Network(trace=constant(1e6), forward=LOSSY),
)
#: Nobody sends an estimator's probes: the usual start rate would not fill these links in time.
CALL = CallConfig(duration_s=6.0, start_rate_bps=1_000_000)
BIN_US = 100_000
RATES: dict[str, int] = {
    "min_rate_bps": CALL.min_rate_bps,
    "start_rate_bps": CALL.start_rate_bps,
    "max_rate_bps": CALL.max_rate_bps,
}
#: Nothing of a call's first interval reads these: nothing has been lost, or told of, yet.
LATE: dict[str, Any] = {
    "gcc.decrease_factor": 0.6,
    "gcc.loss_candidate_down": 0.8,
    "gcc.increase_factor_per_s": 1.3,
}


class PlainGcc:
    """GCC behind the door and nothing else: the twin, and the one who writes events down."""

    def __init__(self, parameters: GccParameters | None = None, **rates: int) -> None:
        self.controller = GoogCc(parameters=parameters, **(RATES | rates))
        self.controller.on_network_availability(True, 0)
        self.next_process_us = PROCESS_INTERVAL_US
        self.events: list[Event] = []

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        self.events.append((now_us, packet))
        self.controller.on_packet_sent(
            packet.size_bytes, now_us, probe_cluster=packet.probe_cluster
        )

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        self.events.append((now_us, report))
        first, last = report.packets[0].sent.seq, report.packets[-1].sent.seq
        told = {one.sent.seq: one.arrival_time_us for one in report.packets}
        self.controller.on_feedback(first, [told.get(s) for s in range(first, last + 1)], now_us)
        return self.decision()

    def on_timeout(self, now_us: int) -> RateDecision:
        self.controller.on_process_interval(now_us)
        self.next_process_us = now_us + PROCESS_INTERVAL_US
        return self.decision()

    def next_timeout_us(self) -> int:
        return self.next_process_us

    def decision(self) -> RateDecision:
        return RateDecision(
            target_rate_bps=self.controller.target_rate_bps,
            pacing_rate_bps=self.controller.pacing_rate_bps,
            padding_rate_bps=self.controller.padding_rate_bps,
        )


Event = tuple[int, SentPacket | FeedbackReport]


class TelemetryModels:
    """Random loss where a packet was reported missing, congestion above 50 ms of queue."""

    outputs = ("random_loss", "congestion")

    def reset(self, num_envs: int) -> None:
        pass

    def restart(self, env: int) -> None:
        pass

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        said = (telemetry["lost_packets"] > 0, telemetry["queue_delay_ms"] > 50.0)
        return np.stack(said, axis=1).astype(np.float32)


class Watched:
    """A settings policy that writes down what it is shown and what it chooses."""

    def __init__(self, policy: SettingsPolicy) -> None:
        self.policy = policy
        self.settings = policy.settings
        self.reset = policy.reset
        self.restart = policy.restart
        self.call_columns = policy.call_columns
        self.rows: list[NDArray[Any]] = []
        self.choices: list[int] = []
        self.scales: list[float] = []

    def update(
        self, telemetry: NDArray[Any], active: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        choices, scales = self.policy.update(telemetry, active)
        self.rows.append(telemetry.copy())
        self.choices.append(int(choices[0]))
        self.scales.append(float(scales[0]))
        return choices, scales


class Script:
    """A settings policy that does what is written, bin by bin; what comes last stands for ever."""

    def __init__(
        self,
        *settings: SenderSettings,
        choices: Sequence[int] = (0,),
        factors: Sequence[float] = (1.0,),
    ) -> None:
        self.settings = settings or (SenderSettings(),)
        self.choices, self.factors = choices, factors
        self.reset(0)

    def reset(self, num_envs: int) -> None:
        self.bins = 0

    def restart(self, env: int) -> None:
        self.reset(0)

    def update(
        self, telemetry: NDArray[Any], active: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        choice = self.choices[min(self.bins, len(self.choices) - 1)]
        factor = self.factors[min(self.bins, len(self.factors) - 1)]
        self.bins += 1
        return np.array([choice]), np.array([factor])

    def call_columns(self) -> dict[str, NDArray[Any]]:
        return {}


CHANGING = TargetingPlan(
    base={"gcc.decrease_factor": 0.8},
    random_loss=AlarmResponse(settings={"fec.enabled": True, **LATE}, hold_s=0.5),
    congestion=AlarmResponse(settings={"gcc.pacing_factor": 1.5}, rate_scale=0.7, hold_s=0.3),
)


def changing() -> Targeting:
    return Targeting(CHANGING, TelemetryModels())


def targeted(plan: TargetingPlan, said: float = 1.0) -> TargetedGcc:
    """Follows a plan whose models always say the same of everything."""
    return TargetedGcc(Targeting(plan, ScriptedModels([[said] * len(ALL_OUTPUTS)])), **RATES)


def assert_same_calls(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> None:
    for name in CALL_COLUMNS:
        assert one[name].tobytes() == other[name].tobytes(), name


@pytest.fixture(scope="module")
def plain() -> dict[str, NDArray[Any]]:
    return run_calls(NETWORKS, PlainGcc, call=CALL, seeds=(0, 1))


@pytest.fixture(scope="module")
def events() -> Sequence[Event]:
    """All that the sender of a call with over-use and losses told a plain GCC."""
    estimators: list[PlainGcc] = []

    def make() -> PlainGcc:
        estimators.append(PlainGcc())
        return estimators[-1]

    network = dataclasses.replace(NETWORKS[0], forward=LOSSY)
    run_calls([network], make, call=CALL, seeds=(3,))
    assert sum(isinstance(event, FeedbackReport) for _, event in estimators[0].events) > 60
    return estimators[0].events


def replay(
    estimator: BandwidthEstimator,
    events: Sequence[Event],
    *,
    until_us: int = 6_000_001,
    late_us: Callable[[], int] = lambda: 0,
) -> list[tuple[int, RateDecision]]:
    """Tell an estimator of a call, its timers between what happens; returns its decisions."""
    decisions = []
    timer_us = estimator.next_timeout_us() + late_us()
    for now_us, event in [*events, (until_us, None)]:
        while timer_us <= now_us and timer_us <= until_us:
            decisions.append((timer_us, estimator.on_timeout(timer_us)))
            timer_us = max(timer_us, estimator.next_timeout_us() + late_us())
        if isinstance(event, SentPacket):
            estimator.on_packet_sent(event, now_us)
        elif isinstance(event, FeedbackReport):
            decisions.append((now_us, estimator.on_feedback(event, now_us)))
    return decisions


def moved(events: Sequence[Event], by_us: int, by_seq: int) -> list[Event]:
    """The same call on another clock of the sender, with other numbers."""

    def sent(packet: SentPacket) -> SentPacket:
        return dataclasses.replace(
            packet, seq=packet.seq + by_seq, send_time_us=packet.send_time_us + by_us
        )

    def event(one: SentPacket | FeedbackReport) -> SentPacket | FeedbackReport:
        if isinstance(one, SentPacket):
            return sent(one)
        results = tuple(PacketResult(sent(r.sent), r.arrival_time_us) for r in one.packets)
        return dataclasses.replace(one, packets=results)

    return [(now_us + by_us, event(one)) for now_us, one in events]


# --- A plan that changes nothing ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (TargetingPlan(), 1.0),
        (TargetingPlan(base={"gcc.decrease_factor": 0.85}), 1.0),
        # Alarms that ask for nothing of GCC, and alarms that are never raised.
        (TargetingPlan(congestion=AlarmResponse(), random_loss=AlarmResponse()), 1.0),
        (TargetingPlan(random_loss=AlarmResponse(settings={"fec.enabled": True})), 1.0),
        (TargetingPlan(congestion=AlarmResponse(settings=LATE, rate_scale=0.5)), 0.4),
        # A type that is detected, and for which nothing was tuned.
        (TargetingPlan(network_type=TypeResponse(earliest_s=0.0, smoothing_s=0.0)), 1.0),
    ],
)
def test_calls_under_a_plan_that_changes_nothing_of_gcc_are_those_of_gcc_behind_the_door(
    plan: TargetingPlan, said: float, plain: dict[str, NDArray[Any]]
) -> None:
    table = run_calls(NETWORKS, lambda: targeted(plan, said), call=CALL, seeds=(0, 1))
    assert_same_calls(table, plain)


def test_every_decision_is_gccs_where_the_plan_changes_nothing(events: Sequence[Event]) -> None:
    twin = PlainGcc()
    expected = dict(replay(twin, events))
    estimator = targeted(TargetingPlan(random_loss=AlarmResponse(settings={"fec.enabled": True})))
    decided = dict(replay(estimator, events))
    assert {now_us: decided[now_us] for now_us in expected} == expected
    # Between GCC's own moments there is one more after every bin, which says the same again.
    times_us = sorted(decided)
    between = [now_us for now_us in times_us if now_us not in expected]
    assert between == [BIN_US * number + 1 for number in range(1, 61)]
    for now_us in between:
        assert decided[now_us] == decided[times_us[times_us.index(now_us) - 1]]
    assert estimator.controller.state.tobytes() == twin.controller.state.tobytes()
    assert len({one.target_rate_bps for one in expected.values()}) > 50


# --- Telemetry and what is made of it -------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded() -> list[tuple[Watched, NDArray[Any]]]:
    """What targeting saw of each call, and the bins of the simulator."""
    watched: list[Watched] = []

    def make() -> TargetedGcc:
        watched.append(Watched(changing()))
        return TargetedGcc(watched[-1], **RATES)

    calls = list(record_calls(NETWORKS, make, call=CALL, seeds=(0, 1)))
    return [(one, call.telemetry) for one, call in zip(watched, calls, strict=True)]


@pytest.mark.parametrize("name", TELEMETRY_NAMES)
def test_bins_are_those_that_the_simulator_computes_for_the_same_call(
    name: str, recorded: list[tuple[Watched, NDArray[Any]]]
) -> None:
    known = 0
    for watched, expected in recorded:
        rows = np.concatenate(watched.rows)
        # The last bin ends with the call: nothing later is told, so nobody knows that it is over.
        assert len(rows) == len(expected) - 1 == 59
        assert rows[name].tobytes() == expected[name][:-1].tobytes()
        known += int(np.isfinite(rows[name]).sum())
    assert known > 20, "there is something to compare"


def test_choices_are_those_of_targeting_fed_with_the_simulators_bins(
    recorded: list[tuple[Watched, NDArray[Any]]],
) -> None:
    seen = set()
    for watched, expected in recorded:
        twin = changing()
        twin.reset(1)
        for index, (choice, scale) in enumerate(zip(watched.choices, watched.scales, strict=True)):
            choices, scales = twin.update(expected[index : index + 1], np.ones(1, np.bool_))
            assert (choice, scale) == (choices[0], scales[0])
        seen |= set(watched.choices)
    assert seen == {0, 1, 2, 3}, "every combination of alarms has been in force"


@settings(max_examples=10)
@given(st.lists(st.integers(0, 230_000), min_size=1, max_size=40))
def test_a_timer_that_goes_off_late_changes_no_bin(
    events: Sequence[Event], late_us: list[int]
) -> None:
    """But for the target: who looks late decides late."""
    exact, late = Watched(Script()), Watched(Script())
    replay(TargetedGcc(exact, **RATES), events)
    position = iter(late_us * 1000)
    replay(TargetedGcc(late, **RATES), events, late_us=lambda: next(position))
    assert len(exact.rows) == 60
    assert len(late.rows) >= 57
    for name in set(TELEMETRY_NAMES) - {"target_rate_bps"}:
        for one, other in zip(exact.rows, late.rows, strict=False):
            assert one[name].tobytes() == other[name].tobytes(), name


def test_a_clock_that_reads_otherwise_and_numbers_from_anywhere_make_the_same_call(
    events: Sequence[Event],
) -> None:
    by_us = 86_400_000_000
    here, there = Watched(changing()), Watched(changing())
    decided = replay(TargetedGcc(here, **RATES), events)
    estimator = TargetedGcc(there, now_us=by_us, **RATES)
    elsewhere = replay(estimator, moved(events, by_us, 40_000), until_us=by_us + 6_000_001)
    assert [(now_us - by_us, one) for now_us, one in elsewhere] == decided
    assert there.choices == here.choices
    for name in TELEMETRY_NAMES:
        one, other = np.concatenate(here.rows)[name], np.concatenate(there.rows)[name]
        # Sums of delays by the clocks are larger, and so is what a float leaves of a microsecond.
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-4, err_msg=name)


# --- What a choice does ---------------------------------------------------------------------------


def test_parameters_from_the_first_bin_on_are_a_configuration_if_the_first_bin_reads_none(
    plain: dict[str, NDArray[Any]],
) -> None:
    alarm = TargetingPlan(random_loss=AlarmResponse(settings=LATE))
    tables = [
        run_calls(NETWORKS, factory, call=CALL, seeds=(0, 1))
        for factory in (
            lambda: targeted(alarm),
            lambda: targeted(TargetingPlan(base=LATE)),
            lambda: PlainGcc(SenderSettings().with_overrides(LATE).gcc),
        )
    ]
    assert_same_calls(tables[0], tables[1])
    assert_same_calls(tables[0], tables[2])
    assert any(tables[0][name].tobytes() != plain[name].tobytes() for name in CALL_COLUMNS)


def test_other_parameters_act_from_the_end_of_their_bin_on_and_not_before(
    events: Sequence[Event],
) -> None:
    """The twin is told of them by hand, 3 s into the call."""
    other = SenderSettings().with_overrides(LATE | {"gcc.pacing_factor": 1.5})
    policy = Script(SenderSettings(), other, choices=[0] * 29 + [1])
    decided = dict(replay(TargetedGcc(policy, **RATES), events))
    twin = PlainGcc()
    before = [one for one in events if one[0] <= 3_000_000]
    expected = dict(replay(twin, before, until_us=3_000_000))
    twin.controller.set_parameters(other.gcc, 3_000_001)
    expected[3_000_001] = twin.decision()
    expected |= dict(replay(twin, events[len(before) :]))
    assert {now_us: decided[now_us] for now_us in expected} == expected
    unchanged = dict(replay(PlainGcc(), events))
    assert min(t for t in expected if expected[t] != unchanged.get(t)) == 3_000_001
    # The last over-use is a deeper cut.
    assert expected[6_000_000].target_rate_bps != unchanged[6_000_000].target_rate_bps


def test_a_factor_scales_the_target_and_pacing_follows_it_within_the_bounds(
    events: Sequence[Event],
) -> None:
    """By hand, from GCC's own decisions, which know nothing of it."""
    pacing_factor = GccParameters().pacing_factor
    own = dict(replay(PlainGcc(), events))
    factors = [1.0] * 9 + [0.5] * 10 + [0.001] * 10 + [2.0] * 10 + [1.0]
    decided = dict(replay(TargetedGcc(Script(factors=factors), **RATES), events))
    checked = set()
    for now_us, one in own.items():
        ended = (now_us - 1) // BIN_US
        factor = 1.0 if ended == 0 else factors[min(ended, len(factors)) - 1]
        target_bps = int(factor * one.target_rate_bps + 0.5)
        target_bps = min(CALL.max_rate_bps, max(CALL.min_rate_bps, target_bps))
        expected = RateDecision(
            target_rate_bps=target_bps,
            pacing_rate_bps=int(pacing_factor * target_bps + 0.5),
            padding_rate_bps=one.padding_rate_bps,
        )
        assert decided[now_us] == (one if factor == 1.0 else expected)
        checked.add(factor)
    assert checked == {0.001, 0.5, 1.0, 2.0}
    assert min(one.target_rate_bps for one in decided.values()) == CALL.min_rate_bps


def test_a_scaled_target_is_paced_by_the_factor_in_force() -> None:
    faster = SenderSettings().with_overrides({"gcc.pacing_factor": 1.5})
    policy = Script(SenderSettings(), faster, choices=(1,), factors=(0.5,))
    decisions = dict(replay(TargetedGcc(policy, **RATES), [], until_us=100_001))
    assert decisions[100_001] == RateDecision(target_rate_bps=500_000, pacing_rate_bps=750_000)


def test_a_maximum_that_gcc_is_not_told_of_bounds_the_decision_all_the_same(
    events: Sequence[Event],
) -> None:
    unknowing = SenderSettings().with_overrides({"gcc.knows_max_rate": False})
    rates = RATES | {"max_rate_bps": 400_000}
    estimator = TargetedGcc(Script(unknowing), **rates)
    decided = replay(estimator, events)
    assert max(one.target_rate_bps for _, one in decided) == 400_000
    unbounded = PlainGcc(unknowing.gcc, max_rate_bps=0)
    targets_bps = [one.target_rate_bps for _, one in replay(unbounded, events)]
    assert max(targets_bps) > 400_000
    assert estimator.controller.state.tobytes() == unbounded.controller.state.tobytes()


def test_the_settings_in_force_are_there_for_the_sender_to_apply() -> None:
    protected = SenderSettings().with_overrides({"fec.enabled": True, "audio_redundancy": 1})
    policy = Script(SenderSettings(), protected, choices=(0, 1, 0), factors=(1.0, 0.8, 1.0))
    estimator = TargetedGcc(policy, **RATES)
    seen = [(estimator.settings, estimator.rate_scale)]
    for number in range(1, 4):
        replay(estimator, [], until_us=BIN_US * number)
        assert seen[-1] == (estimator.settings, estimator.rate_scale), "a bin holds its end"
        replay(estimator, [], until_us=BIN_US * number + 1)
        seen.append((estimator.settings, estimator.rate_scale))
    assert seen == [
        (SenderSettings(), 1.0),
        (SenderSettings(), 1.0),
        (protected, 0.8),
        (SenderSettings(), 1.0),
    ]


def test_a_policy_whose_settings_a_running_call_cannot_take_is_refused_at_set_up() -> None:
    other = SenderSettings().with_overrides({"gcc.loss_estimator": "classic"})
    with pytest.raises(ConfigError, match=r"number 1 of targeting's settings .*loss_estimator"):
        TargetedGcc(Script(SenderSettings(), other), **RATES)


# --- A sender with a socket -----------------------------------------------------------------------


def test_a_bin_that_sending_ends_is_answered_at_once() -> None:
    """A packet is told of after the bin: no decision is asked for then, so the timer is due."""
    estimator = TargetedGcc(Script(factors=(0.5,)), **RATES)
    replay(estimator, [], until_us=75_000)
    estimator.on_timeout(100_000)
    assert estimator.next_timeout_us() == 100_001
    estimator.on_packet_sent(SentPacket(0, 100_400, 1200), 100_400)
    assert estimator.rate_scale == 0.5
    assert estimator.next_timeout_us() == 100_001
    assert estimator.on_timeout(100_400).target_rate_bps == CALL.start_rate_bps / 2
    assert estimator.next_timeout_us() == 125_000


def test_silence_ends_bins_and_lowers_the_rate_as_gcc_alone_does() -> None:
    """Packets leave, nothing comes back."""
    sent: list[Event] = [(20_000 * seq, SentPacket(seq, 20_000 * seq, 1000)) for seq in range(501)]
    watched = Watched(changing())
    decided = dict(replay(TargetedGcc(watched, **RATES), sent, until_us=10_000_001))
    expected = dict(replay(PlainGcc(changing().settings[0].gcc), sent, until_us=10_000_001))
    assert {now_us: decided[now_us] for now_us in expected} == expected
    assert decided[10_000_000].target_rate_bps < CALL.start_rate_bps / 2
    rows = np.concatenate(watched.rows)
    assert rows["time_s"] == pytest.approx(0.1 * np.arange(1, 101))
    assert (rows["reports"] == 0).all()
    assert (rows["sent_packets"][1:] == 5).all()
    assert rows["sent_packets"][0] == 6  # at 0 and at 0.1 s, too


def test_what_rtcp_tells_reaches_gcc(events: Sequence[Event]) -> None:
    classic = SenderSettings().with_overrides({"gcc.loss_estimator": "classic"})
    states = []
    for estimator, is_told in (
        (TargetedGcc(Script(classic), **RATES), True),
        (PlainGcc(classic.gcc), True),
        (TargetedGcc(Script(classic), **RATES), False),
    ):
        controller = estimator.controller if isinstance(estimator, PlainGcc) else estimator
        early = [one for one in events if one[0] <= 1_000_000]
        replay(estimator, early, until_us=1_000_000)
        if is_told:
            controller.on_rtt(480_000, 1_000_000)
            controller.on_loss_report(30, 70, 1_000_000)
        replay(estimator, events[len(early) :])
        states.append(estimator.controller.state.tobytes())
    assert states[0] == states[1]
    assert states[0] != states[2]


@pytest.mark.parametrize("is_marked", [True, False])
def test_a_probe_that_is_played_raises_the_rate(is_marked: bool) -> None:
    """15 packets at 1.8 Mbps, the second cluster's rate, arrive as fast as they were sent.

    Without their marks they are traffic like any other.
    """
    estimator = TargetedGcc(Script())
    _, cluster = estimator.controller.take_probes()
    assert cluster.target_rate_bps == 1_800_000
    gap_us = 8 * 1200 * 1_000_000 // cluster.target_rate_bps
    mark = cluster.id if is_marked else -1
    sent = [SentPacket(seq, gap_us * seq, 1200, probe_cluster=mark) for seq in range(15)]
    results = tuple(PacketResult(one, one.send_time_us + 20_000) for one in sent)
    report = FeedbackReport(built_us=120_000, packets=results, bytes_in_flight=0)
    played: list[Event] = [*((one.send_time_us, one) for one in sent), (140_000, report)]
    _, decision = replay(estimator, played, until_us=150_000)[-1]
    assert (decision.target_rate_bps > 1_500_000) == is_marked


@pytest.mark.parametrize("following", [4, 5, 7])
def test_a_packet_whose_number_does_not_follow_is_refused(following: int) -> None:
    estimator = TargetedGcc(Script(), **RATES)
    estimator.on_packet_sent(SentPacket(5, 0, 1000), 0)
    with pytest.raises(ConfigError, match=rf"packet {following} came after packet 5"):
        estimator.on_packet_sent(SentPacket(following, 10, 1000), 10)


def test_feedback_on_packets_that_were_not_sent_is_refused() -> None:
    estimator = TargetedGcc(Script(), **RATES)
    estimator.on_packet_sent(SentPacket(5, 0, 1000), 0)
    for seq in (4, 6):
        results = (PacketResult(SentPacket(seq, 0, 1000), 30_000),)
        report = FeedbackReport(built_us=40_000, packets=results, bytes_in_flight=0)
        with pytest.raises(ValueError, match="on_packet_sent comes first"):
            estimator.on_feedback(report, 60_000)


def test_an_empty_report_changes_nothing() -> None:
    estimator, twin = TargetedGcc(Script(), **RATES), PlainGcc()
    report = FeedbackReport(built_us=0, packets=(), bytes_in_flight=0)
    assert estimator.on_feedback(report, 10_000) == twin.decision()
    assert estimator.controller.state.tobytes() == twin.controller.state.tobytes()


# --- Names ----------------------------------------------------------------------------------------


def test_the_names_that_a_sender_needs_are_at_the_top() -> None:
    assert bwe_env.TargetedGcc is TargetedGcc
    assert bwe_env.Targeting is Targeting
    assert bwe_env.TargetingPlan is TargetingPlan
    assert bwe_env.SenderSettings is SenderSettings
    assert isinstance(TargetedGcc(Script()), BandwidthEstimator)
