"""Targeting in whole calls and environments: what it changes, and above all what it does not."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from bwe_env.config import CallConfig, LinkConfig, LossConfig, PathConfig
from bwe_env.env import BandwidthEstimationEnv
from bwe_env.errors import ConfigError
from bwe_env.metrics import CALL_COLUMNS
from bwe_env.network import Network
from bwe_env.rollout import record_calls, run_calls
from bwe_env.sender_settings import SenderSettings
from bwe_env.targeting import AlarmResponse, Targeting, TargetingPlan, TypeResponse
from bwe_env.trace import constant, square
from bwe_env.truth import GroundTruth
from bwe_env.vector_env import BandwidthEstimationVectorEnv
from tests.scripted_models import ALL_OUTPUTS, ScriptedModels

LOSSY = PathConfig(loss=LossConfig(good_loss=0.02, good_to_bad=0.01, bad_to_good=0.3))
NETWORKS = (
    Network(trace=square(2e6, 0.4e6, half_period_s=1.5), link=LinkConfig(queue_limit_s=0.2)),
    Network(trace=constant(1e6), forward=LOSSY),
)
CALL = CallConfig(duration_s=6.0)
#: Nothing of a call's first interval reads these: nothing has been lost, or told of, yet.
LATE: dict[str, Any] = {
    "gcc.decrease_factor": 0.6,
    "gcc.loss_candidate_down": 0.8,
    "gcc.increase_factor_per_s": 1.3,
    "rtx.rate_share": 0.2,
}
#: Some of these act from the first packet on.
EARLY: dict[str, Any] = {"fec.enabled": True, "gcc.pacing_factor": 1.5, "audio_redundancy": 1}

Table = dict[str, NDArray[Any]]


def played(plan: TargetingPlan | None = None, said: float = 0.0, **options: Any) -> Table:
    """Calls under a plan whose models always say the same of everything."""
    targeting = None
    if plan is not None:
        targeting = Targeting(plan, ScriptedModels([[said] * len(ALL_OUTPUTS)]))
    options = {"call": CALL, "seeds": (0, 1), **options}
    return run_calls(NETWORKS, "gcc", targeting=targeting, **options)


def assert_same_calls(one: Table, other: Table) -> None:
    for name in CALL_COLUMNS:
        assert one[name].tobytes() == other[name].tobytes(), name


@pytest.fixture(scope="module")
def plain() -> Table:
    return played()


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (TargetingPlan(), 1.0),
        (TargetingPlan(base={"gcc.decrease_factor": 0.85, "fec.enabled": False}), 1.0),
        # Alarms that ask for nothing, and alarms that are never raised.
        (TargetingPlan(congestion=AlarmResponse(), random_loss=AlarmResponse()), 1.0),
        (
            TargetingPlan(
                congestion=AlarmResponse(settings=EARLY, rate_scale=0.5),
                network_type=TypeResponse(settings={"wifi": EARLY}),
            ),
            0.4,
        ),
        # A type that is detected, and for which nothing was tuned.
        (TargetingPlan(network_type=TypeResponse(earliest_s=0.0, smoothing_s=0.0)), 1.0),
    ],
)
def test_a_plan_that_changes_nothing_leaves_every_column_as_it_was(
    plan: TargetingPlan, said: float, plain: Table
) -> None:
    table = played(plan, said)
    assert_same_calls(table, plain)
    assert (table["targeted_s"] == 0.0).all()
    assert set(table) == {*CALL_COLUMNS, "detected_type", "targeted_s"}


@pytest.mark.parametrize("overrides", [LATE, EARLY, {"gcc.loss_estimator": "classic"}])
def test_what_a_plan_sets_from_the_beginning_is_as_if_the_call_was_configured_so(
    overrides: dict[str, Any], plain: Table
) -> None:
    settings = SenderSettings().with_overrides(overrides)
    configured = played(call=settings.applied_to(CALL), gcc=settings.gcc)
    targeted = played(TargetingPlan(base=overrides))
    assert_same_calls(targeted, configured)
    assert (targeted["targeted_s"] == 0.0).all()
    assert any(configured[name].tobytes() != plain[name].tobytes() for name in CALL_COLUMNS)


def test_an_alarm_from_the_first_interval_on_is_a_configuration_if_the_first_reads_none(
    plain: Table,
) -> None:
    settings = SenderSettings().with_overrides(LATE)
    configured = played(call=settings.applied_to(CALL), gcc=settings.gcc)
    targeted = played(TargetingPlan(random_loss=AlarmResponse(settings=LATE)), 1.0)
    assert_same_calls(targeted, configured)
    assert any(configured[name].tobytes() != plain[name].tobytes() for name in CALL_COLUMNS)
    # All of the call but the first interval.
    assert targeted["targeted_s"] == pytest.approx(CALL.duration_s - 0.1)


def test_what_the_first_interval_reads_differs_there_and_nowhere_before() -> None:
    """Parity cannot be had for the frames of the first 0.1 s."""
    plan = TargetingPlan(random_loss=AlarmResponse(settings=EARLY))
    settings = SenderSettings().with_overrides(EARLY)
    arms = (
        {"targeting": Targeting(plan, ScriptedModels([[1.0] * len(ALL_OUTPUTS)]))},
        {"call": settings.applied_to(CALL), "gcc": settings.gcc},
        {},
    )
    targeted, configured, plain = (
        next(iter(record_calls(NETWORKS, "gcc", seeds=(0,), **{"call": CALL, **arm})))
        for arm in arms
    )
    assert targeted.telemetry[:1].tobytes() == plain.telemetry[:1].tobytes()
    assert configured.telemetry[:1].tobytes() != plain.telemetry[:1].tobytes()
    assert targeted.telemetry[1:].tobytes() != plain.telemetry[1:].tobytes()


class _Scaled:
    """GCC's target as it is in the first interval, times a power of two from then on."""

    action_mode: Literal["rate", "scale"] = "scale"

    def __init__(self, action: float, first: float = 0.0) -> None:
        self._action, self._first = action, first

    def reset(self, num_envs: int) -> None:
        self._next = self._first

    def act(self, observation: ArrayLike, truth: GroundTruth) -> NDArray[np.float32]:
        action, self._next = self._next, self._action
        return np.full((len(observation), 1), action, dtype=np.float32)


def test_a_factor_is_a_scale_of_gccs_target_from_the_second_interval_on() -> None:
    plan = TargetingPlan(congestion=AlarmResponse(rate_scale=0.5))
    expected = run_calls(NETWORKS, _Scaled(-1.0), call=CALL, seeds=(0, 1))
    assert_same_calls(played(plan, 1.0), expected)


def test_factors_multiply_with_each_other_and_with_a_policys_own() -> None:
    plan = TargetingPlan(
        congestion=AlarmResponse(rate_scale=0.25), random_loss=AlarmResponse(rate_scale=2.0)
    )
    targeting = Targeting(plan, ScriptedModels([[1.0] * len(ALL_OUTPUTS)]))
    options: dict[str, Any] = {"call": CALL, "seeds": (0, 1)}
    both = run_calls(NETWORKS, _Scaled(0.5, first=0.5), targeting=targeting, **options)
    assert_same_calls(both, run_calls(NETWORKS, _Scaled(-0.5, first=0.5), **options))


CHANGING = TargetingPlan(
    base={"gcc.decrease_factor": 0.8},
    network_type=TypeResponse(
        settings={"wifi": EARLY, "wired": LATE}, smoothing_s=0.5, earliest_s=0.5
    ),
    congestion=AlarmResponse(settings={"burst_interval_s": 0.01}, rate_scale=0.7, hold_s=0.6),
)


def changing() -> Targeting:
    """Follows models that change their mind all the time."""
    said = np.random.default_rng(3).random((60, len(ALL_OUTPUTS))) ** 4
    said[:20, ALL_OUTPUTS.index("network_type:wifi")] = 0.9
    said[20:, ALL_OUTPUTS.index("network_type:wired")] = 0.9
    return Targeting(CHANGING, ScriptedModels(said))


def test_a_result_depends_neither_on_the_batch_nor_on_threads() -> None:
    options: dict[str, Any] = {"call": CALL, "seeds": (0, 1, 2)}
    tables = [
        run_calls(NETWORKS, "gcc", targeting=changing(), **options, **split)
        for split in ({}, {"batch_size": 4}, {"batch_size": 1}, {"num_threads": 2})
    ]
    for table in tables[1:]:
        assert_same_calls(table, tables[0])
        for name in ("detected_type", "targeted_s"):
            assert table[name].tolist() == tables[0][name].tolist()
    assert set(tables[0]["detected_type"]) == {"wired"}
    assert (tables[0]["targeted_s"] > 1.0).all()


def test_intervals_of_another_length_are_refused() -> None:
    options: dict[str, Any] = {"call": CallConfig(interval_s=0.06), "targeting": changing()}
    refused = r"targeting know intervals of 0\.1 s.*0\.06"
    with pytest.raises(ConfigError, match=refused):
        run_calls(NETWORKS, "gcc", **options)
    with pytest.raises(ConfigError, match=refused):
        BandwidthEstimationVectorEnv(2, networks=NETWORKS, **options)
    with pytest.raises(ConfigError, match=refused):
        BandwidthEstimationEnv(networks=NETWORKS, **options)


# --- Environments ---------------------------------------------------------------------------------


def make_env(num_envs: int, **options: Any) -> BandwidthEstimationVectorEnv:
    return BandwidthEstimationVectorEnv(
        num_envs, networks=NETWORKS, call=CALL, targeting=changing(), **options
    )


@pytest.mark.parametrize("mode", ["rate", "scale"])
def test_a_sub_environment_with_targeting_is_the_single_one(mode: str) -> None:
    together = make_env(3, action_mode=mode)
    alone = BandwidthEstimationEnv(
        networks=NETWORKS, call=CALL, targeting=changing(), action_mode=mode
    )
    shown, _ = together.reset(seed=9)
    single, _ = alone.reset(seed=11)
    assert np.array_equal(shown[2], single)
    for position in range(30):
        action = np.float32(0.3 * np.sin(position))
        shown, rewards, *_ = together.step(np.full((3, 1), action))
        single, reward, *_ = alone.step(np.array([action]))
        assert np.array_equal(shown[2], single)
        assert rewards[2] == reward


def test_a_call_that_begins_anew_is_targeted_anew() -> None:
    """The second episode of a sub-environment begins with the first settings and knows nothing."""
    env = make_env(2, autoreset_mode="same_step")
    env.reset(seed=4)
    world = env._world
    targeting = world.targeting
    assert isinstance(targeting, Targeting)
    over = np.zeros(2, dtype=np.bool_)
    seen = set()
    while not over.any():
        seen |= set(world.choice.tolist())
        _, _, terminated, truncated, _ = env.step(np.zeros((2, 1)))
        over = terminated | truncated
    assert len(seen) > 2
    assert (world.choice[over] == 0).all()
    assert (world.scale[over] == 1.0).all()
    assert (targeting.detected_types[over] == -1).all()
    assert (world.own_flows["gcc_parameters"]["decrease_factor"][over] == 0.8).all()
    assert (world.own_flows["fec"]["enabled"][over] == 0).all()


def test_an_environment_with_targeting_can_be_pickled() -> None:
    env = make_env(2)
    env.reset(seed=1)
    for _ in range(8):
        env.step(np.zeros((2, 1)))
    copied = pickle.loads(pickle.dumps(env))
    for _ in range(8):
        shown, *_ = env.step(np.zeros((2, 1)))
        assert np.array_equal(shown, copied.step(np.zeros((2, 1)))[0])
