from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.export import load_policy, save_policy
from agents.guard import Guard, GuardConfig, GuardedPolicy, guarded_shares, in_unit
from agents.observation_statistics import (
    LEVELS,
    SCORED_FEATURES,
    ObservationStatistics,
    measure_statistics,
    newest_features,
)
from agents.policy_estimator import MlpArchitecture, PolicyEstimator
from agents.policy_setting import PolicySetting
from agents.recurrent_policy import LstmArchitecture, RecurrentPolicyEstimator
from bwe_env.action import action_to_rate, rate_to_action
from bwe_env.config import CallConfig
from bwe_env.errors import ArtifactError, ConfigError
from bwe_env.network import Network
from bwe_env.observation import FEATURE_NAMES, FEATURES, NUM_FEATURES, ObservationConfig
from bwe_env.rollout import run_calls
from bwe_env.trace import constant
from bwe_env.trace.catalog import networks

ENVIRONMENT = "BandwidthEstimation-v0"
SETTING = PolicySetting(observation=ObservationConfig(history=1))
ONLY_OVERSHOOT = GuardConfig(off_distribution=False)
ONLY_DISTANCE = GuardConfig(overshoot=False)


def interval(**values: float) -> np.ndarray:
    """One interval of a quiet call at 10 s, shape (1, NUM_FEATURES); values in their units."""
    quiet = {"call_time": 10.0, "target_rate": 1e6, "gcc_target_rate": 0.7e6, "acked_rate": 0.9e6}
    row = np.full(NUM_FEATURES, -1.0)
    for name, value in (quiet | values).items():
        feature = FEATURES[FEATURE_NAMES.index(name)]
        share = math.log(value / feature.low) / feature.span
        row[FEATURE_NAMES.index(name)] = 2.0 * share - 1.0
    return row[None].astype(np.float32)


def call(seed: int, intervals: int = 400) -> np.ndarray:
    """A made-up call: two features that move together, the others on their own."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(0.0, 0.1, (intervals, NUM_FEATURES)).astype(np.float32)
    rows[:, 1] = rows[:, 0] + 0.001 * rows[:, 1]
    rows[:, FEATURE_NAMES.index("call_time")] = 0.5  # 3.5 s
    return rows


STATISTICS = measure_statistics([call(seed) for seed in range(40)])
FAR = call(99)[:1] + np.float32(0.8)
FAR[:, FEATURE_NAMES.index("call_time")] = 0.5
NEAR = np.zeros((1, NUM_FEATURES), dtype=np.float32)
NEAR[:, FEATURE_NAMES.index("call_time")] = 0.5


def steps(guard: Guard, rows: np.ndarray, count: int) -> list[bool]:
    return [bool(guard.update(rows)[0][0]) for _ in range(count)]


# --- The statistic --------------------------------------------------------------------------------


def test_the_distance_is_that_of_a_hand_worked_diagonal_case() -> None:
    size = len(SCORED_FEATURES)
    statistics = ObservationStatistics(
        features=SCORED_FEATURES,
        mean=(0.25,) * size,
        precision=tuple(map(tuple, (4.0 * np.eye(size)).tolist())),
        levels=LEVELS,
        quantiles=(1.0,) * len(LEVELS),
        calls=2,
    )
    row = np.full((1, NUM_FEATURES), 0.75, dtype=np.float32)
    # Each feature is 0.5 away with a standard deviation of 0.5.
    assert statistics.score(row)[0] == pytest.approx(1.0)
    row[0, FEATURE_NAMES.index("call_time")] = -1.0
    assert statistics.score(row)[0] == 0.0  # within the warm-up


def test_a_share_of_one_minus_the_level_lies_beyond_its_quantile_on_other_calls() -> None:
    scores = STATISTICS.score(np.concatenate([call(seed) for seed in range(100, 140)]))
    for level in (0.5, 0.9, 0.99):
        # 16,000 independent rows, 8,000 behind the quantile: four standard errors.
        error = 4.0 * math.sqrt(level * (1.0 - level) * (1 / 16_000 + 1 / 8_000))
        assert np.mean(scores > STATISTICS.quantile(level)) == pytest.approx(1 - level, abs=error)


def test_values_that_are_odd_together_only_are_far_away() -> None:
    ordinary, odd = NEAR.copy(), NEAR.copy()
    ordinary[0, :2] = 0.3  # three standard deviations each, as they go together
    odd[0, :2] = 0.3, -0.3
    assert STATISTICS.score(ordinary)[0] < STATISTICS.quantile(0.99) < STATISTICS.score(odd)[0]


def test_statistics_survive_json_and_refuse_other_features() -> None:
    assert ObservationStatistics.from_json(STATISTICS.to_json()) == STATISTICS
    with pytest.raises(ConfigError, match="Measure them anew"):
        dataclasses.replace(STATISTICS, features=SCORED_FEATURES[1:])
    with pytest.raises(ConfigError, match="choose one of 0.5, 0.9"):
        STATISTICS.quantile(0.95)
    with pytest.raises(ConfigError, match="cannot be halved"):
        measure_statistics([call(0)])


def test_the_newest_interval_is_read_behind_older_ones_and_before_network_models() -> None:
    observation = np.arange(2 * 3 * (NUM_FEATURES + 1), dtype=np.float32).reshape(2, -1)
    newest = newest_features(observation, 3)
    first = 2 * (NUM_FEATURES + 1)
    np.testing.assert_array_equal(newest[0], np.arange(first, first + NUM_FEATURES))


# --- When GCC drives ------------------------------------------------------------------------------


def test_a_strange_state_must_last_three_intervals_and_gcc_stays_two_seconds_after_it() -> None:
    guard = Guard(ONLY_DISTANCE, STATISTICS, interval_s=0.1)
    assert steps(guard, FAR, 2) == [False, False]
    assert steps(guard, NEAR, 1) == [False]  # the count starts anew
    assert steps(guard, FAR, 3) == [False, False, True]
    assert steps(guard, NEAR, 20) == [True] * 19 + [False]


def test_a_state_between_the_bounds_keeps_a_fallback_but_begins_none() -> None:
    between = NEAR.copy()
    low, high = STATISTICS.quantile(0.99), STATISTICS.quantile(0.999)
    for offset in np.linspace(0.0, 0.5, 4001):
        between[0, 3:20] = offset
        if low < STATISTICS.score(between)[0] < high:
            break
    else:
        pytest.fail("no state between the bounds was found")
    guard = Guard(ONLY_DISTANCE, STATISTICS, interval_s=0.1)
    assert not any(steps(guard, between, 50))
    steps(guard, FAR, 3)
    assert all(steps(guard, between, 50))


OVER = {"target_rate": 2e6, "acked_rate": 1e6, "queue_delay": 300.0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (OVER, True),
        (OVER | {"queue_delay": 1.0, "loss_ratio_slow": 0.2}, True),
        (OVER | {"queue_delay": 190.0}, False),  # the queue is short
        (OVER | {"queue_delay": 1.0, "loss_ratio_slow": 0.09}, False),
        (OVER | {"target_rate": 1.5e6}, False),  # within 1.5 times what arrives and 10 kbps
        (OVER | {"target_rate": 1.52e6}, True),
        (OVER | {"call_time": 1.0}, False),  # a call that is just beginning
    ],
)
def test_a_target_far_above_what_arrives_is_an_overshoot_where_the_call_suffers(
    values: dict[str, float], expected: bool
) -> None:
    guard = Guard(ONLY_OVERSHOOT, None, interval_s=0.1)
    assert steps(guard, interval(**values), 2) == [False, expected]


def test_one_interval_without_a_report_is_no_overshoot() -> None:
    guard = Guard(ONLY_OVERSHOOT, None, interval_s=0.1)
    busy = {"target_rate": 1e6, "queue_delay": 300.0}
    steps(guard, interval(**busy, acked_rate=0.9e6), 3)
    assert not any(steps(guard, interval(**busy, acked_rate=10e3), 4))


def test_each_return_within_half_a_minute_holds_twice_as_long_up_to_the_most() -> None:
    guard = Guard(ONLY_OVERSHOOT, None, interval_s=0.1)

    def hold() -> int:
        steps(guard, interval(**OVER), 2)
        held = 1
        while steps(guard, interval(), 1)[0]:
            held += 1
        return held

    assert [hold() for _ in range(6)] == [20, 40, 80, 160, 300, 300]
    steps(guard, interval(), 300)
    assert hold() == 20


def test_calls_do_not_disturb_each_other_and_a_restarted_one_forgets() -> None:
    guard = Guard(ONLY_OVERSHOOT, None, interval_s=0.1)
    guard.reset(2)
    both = np.concatenate([interval(**OVER), interval()])
    guard.update(both)
    assert guard.update(both)[0].tolist() == [True, False]
    guard.restart(0)
    quiet = np.concatenate([interval(), interval()])
    assert guard.update(quiet)[0].tolist() == [False, False]


def test_false_triggers_are_the_share_of_recorded_intervals() -> None:
    recorded = [call(0), np.concatenate([call(1)[:200], np.repeat(FAR, 200, axis=0)])]
    shares = guarded_shares(recorded, STATISTICS, interval_s=0.1, config=ONLY_DISTANCE)
    assert shares["any"] == pytest.approx(198 / 800, abs=0.03)
    assert shares["overshoot"] == 0.0


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="leave and enter at once"):
        GuardConfig(enter_level=0.9, leave_level=0.99)
    with pytest.raises(ConfigError, match="at least 1"):
        GuardConfig(enter_intervals=0)
    with pytest.raises(ConfigError, match="max_hold_s"):
        GuardConfig(max_hold_s=1.0)


# --- Around a policy ------------------------------------------------------------------------------


class Constant(PolicyEstimator):
    """Asks for the same all the time."""

    def __init__(self, action: float, **options: Any) -> None:
        self.action = action
        self.setting = dataclasses.replace(SETTING, **options)
        self.statistics = None

    def act(self, observation: np.ndarray, truth: Any) -> np.ndarray:
        return np.full((len(observation), 1), self.action, dtype=np.float32)


def test_in_mode_rate_the_fallback_asks_for_gccs_target() -> None:
    guarded = GuardedPolicy(Constant(1.0), ONLY_OVERSHOOT)
    guarded.reset(1)
    row = interval(**OVER, gcc_target_rate=700e3)
    assert guarded.act(row, None) == 1.0
    action = guarded.act(row, None)
    assert action_to_rate(action, 30e3, 6e6)[0, 0] == pytest.approx(700e3, rel=1e-5)
    assert action.dtype == np.float32
    assert (guarded.intervals, guarded.fallback_intervals) == (2, 1)
    assert guarded.reason_intervals == {"off_distribution": 0, "overshoot": 1}
    assert guarded.fallback_share == 0.5


@pytest.mark.parametrize("mode", ["scale", "config"])
def test_where_gcc_drives_the_fallback_leaves_it_as_it_is(mode: str) -> None:
    guarded = GuardedPolicy(Constant(0.5, action_mode=mode), ONLY_OVERSHOOT)
    guarded.reset(1)
    assert [float(guarded.act(interval(**OVER), None)[0, 0]) for _ in range(2)] == [0.5, 0.0]


def test_counts_go_on_over_batches_until_they_are_cleared() -> None:
    guarded = GuardedPolicy(Constant(1.0), ONLY_OVERSHOOT)
    for _ in range(2):
        guarded.reset(3)
        guarded.act(np.repeat(interval(), 3, axis=0), None)
    assert guarded.intervals == 6
    guarded.clear_counts()
    assert (guarded.intervals, guarded.fallback_share) == (0, 0.0)


def test_a_policy_with_memory_stays_in_step_while_gcc_drives() -> None:
    torch.manual_seed(0)
    architecture = LstmArchitecture(inputs=NUM_FEATURES, lstm_size=8, hidden_sizes=(8,), outputs=1)
    network = architecture.build()
    plain = RecurrentPolicyEstimator(network, architecture, setting=SETTING)
    guarded = GuardedPolicy(
        RecurrentPolicyEstimator(network, architecture, setting=SETTING),
        dataclasses.replace(ONLY_OVERSHOOT, hold_s=0.1),
    )
    for policy in (plain, guarded):
        policy.reset(1)
    rows = [interval(**OVER), interval(**OVER), interval(), interval()]
    actions = [(plain.act(row, None), guarded.act(row, None)) for row in rows]
    assert actions[1][0] != actions[1][1]
    assert actions[3][0] == actions[3][1]


def test_a_policy_without_statistics_cannot_be_guarded_by_them() -> None:
    with pytest.raises(ArtifactError, match=r"experiments\.policy_statistics RUN"):
        GuardedPolicy(Constant(1.0))


def test_statistics_come_back_from_disk_with_the_policy(tmp_path: Path) -> None:
    architecture = MlpArchitecture(inputs=NUM_FEATURES, hidden_sizes=(4,), outputs=1)
    policy = PolicyEstimator(
        architecture.build(), architecture, setting=SETTING, statistics=STATISTICS
    )
    save_policy(tmp_path, policy, environment=ENVIRONMENT)
    assert load_policy(tmp_path, environment=ENVIRONMENT).statistics == STATISTICS


# --- A story --------------------------------------------------------------------------------------


class ShadowGcc(Constant):
    """Asks for the target of the GCC that runs beside it: a guard that never lets go."""

    def act(self, observation: np.ndarray, truth: Any) -> np.ndarray:
        rates_bps = in_unit(newest_features(observation, 1), "gcc_target_rate")
        return rate_to_action(rates_bps, 30e3, 6e6).astype(np.float32)[:, None]


def test_gcc_in_the_shadow_is_as_safe_as_alone_but_finds_less_of_the_capacity() -> None:
    options: dict[str, Any] = {
        "call": CallConfig(duration_s=30.0),
        "seeds": (0,),
        "observation": SETTING.observation,
    }
    chosen = networks("validation", count=12)
    shadow = run_calls(chosen, ShadowGcc(0.0), **options)
    alone = run_calls(chosen, "gcc", **options)
    assert shadow["utilisation"].mean() < alone["utilisation"].mean() - 0.03
    assert shadow["freeze_ratio"].mean() < alone["freeze_ratio"].mean() + 0.02


def test_a_guarded_policy_that_always_wants_the_maximum_does_not_kill_a_call_of_300_kbps() -> None:
    network = Network(trace=constant(300_000.0, duration_s=60.0))
    guarded = GuardedPolicy(Constant(1.0), ONLY_OVERSHOOT)
    options: dict[str, Any] = {
        "call": CallConfig(duration_s=60.0),
        "seeds": (0, 1),
        "observation": SETTING.observation,
    }
    with_guard = run_calls([network], guarded, **options)
    without = run_calls([network], Constant(1.0), **options)
    gcc = run_calls([network], "gcc", **options)
    assert not with_guard["dropped"].any()
    assert guarded.fallback_share > 0.7
    assert (with_guard["call_score"] > without["call_score"] + 0.3).all()
    assert (with_guard["freeze_ratio"] < 0.5 * without["freeze_ratio"]).all()
    assert (gcc["call_score"] > with_guard["call_score"]).all()


def test_statistics_take_every_type_of_a_list_that_names_types_in_turn() -> None:
    # Calls of two kinds in turn: halves of every second one would each know one kind only.
    generator = np.random.default_rng(5)
    calls = []
    for number in range(40):
        call = generator.normal(0.5 if number % 2 else -0.5, 0.05, (60, NUM_FEATURES))
        call[:, FEATURE_NAMES.index("call_time")] = 0.9
        calls.append(call.astype(np.float32))
    statistics = measure_statistics(calls)
    scores = statistics.score(np.concatenate(calls))
    exceeded = float(np.mean(scores > statistics.quantile(0.99)))
    assert exceeded == pytest.approx(0.01, abs=0.01)
