from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from baselines import NAMES, make
from baselines.gcc import PRESETS
from baselines.registry import ESTIMATORS
from bwe_env.action import action_to_rate
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.estimator import BandwidthEstimator
from bwe_env.feedback import FeedbackReport
from bwe_env.gcc import GccParameters

CALL = CallConfig(min_rate_bps=30_000, max_rate_bps=6_000_000)


def target_bps(name: str, capacity_bps: list[float]) -> np.ndarray:
    """What a rate policy asks for, as the environment understands its actions."""
    policy = make(name, call=CALL).controller
    assert not isinstance(policy, str)
    assert policy.action_mode == "rate"
    policy.reset(len(capacity_bps))
    observation = np.zeros((len(capacity_bps), 210), dtype=np.float32)
    actions = policy.act(observation, SimpleNamespace(capacity_bps=np.array(capacity_bps)))
    assert actions.dtype == np.float32
    assert actions.shape == (len(capacity_bps), 1)
    assert np.abs(actions).max() <= 1.0
    return action_to_rate(actions[:, 0], CALL.min_rate_bps, CALL.max_rate_bps)


@pytest.mark.parametrize("rate", [30_000, 500_000, 1.5e6, 6_000_000])
def test_a_constant_asks_for_its_rate_whatever_the_capacity(rate: float) -> None:
    # float32 actions over a range of 200: a step of 6e-8 is 3e-7 of the rate.
    np.testing.assert_allclose(target_bps(f"constant:{rate}", [0.0, 1e5, 1e9]), rate, rtol=1e-6)


def test_the_oracle_asks_for_a_share_of_the_capacity_within_the_calls_range() -> None:
    capacity = [0.0, 1e4, 1e6, 4e6, 1e9]
    asked = target_bps("oracle:0.9", capacity)
    np.testing.assert_allclose(asked, [3e4, 3e4, 0.9e6, 3.6e6, 6e6], rtol=1e-6)


def test_gcc_runs_in_the_compiled_loop_with_the_parameters_of_its_preset() -> None:
    assert make("gcc").controller == "gcc"
    assert make("gcc").gcc == GccParameters()
    for name, parameters in PRESETS.items():
        assert make(name).gcc == parameters
    assert len(set(PRESETS.values())) == len(PRESETS)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_is_made_for_each_call_also_in_another_process(name: str) -> None:
    factory = pickle.loads(pickle.dumps(make(name, call=CALL).controller))
    first, second = factory(), factory()
    assert isinstance(first, BandwidthEstimator)
    assert first is not second
    report = FeedbackReport(built_us=100_000, packets=(), bytes_in_flight=0)
    decision = first.on_feedback(report, 130_000)
    assert decision.target_rate_bps == CALL.start_rate_bps


def test_every_listed_name_can_be_made() -> None:
    arguments = {"RATE_BPS": "250000", "HEADROOM_RATIO": "0.7"}
    for name in NAMES:
        kind, _, argument = name.partition(":")
        written = f"{kind}:{arguments[argument]}" if argument else kind
        assert make(written, call=CALL).name == written


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown baseline 'gc'. Did you mean 'gcc'"):
        make("gc")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("constant:fast", "no finite number"),
        ("constant:nan", "no finite number"),
        ("constant:", "no finite number"),
        ("constant:1000", "outside the call's range of 30000 to 6000000"),
        ("constant:1e9", "outside the call's range"),
        ("oracle:0", "above 0 and at most 1.5"),
        ("oracle:2", "above 0 and at most 1.5"),
        ("oracle-future:0", "above 0 and at most 1.5"),
        ("oracle-future:far", "no finite number"),
        ("gcc:1", "takes no argument"),
        ("nada:1", "takes no argument"),
    ],
)
def test_an_argument_that_means_nothing_says_what_would(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, call=CALL)
