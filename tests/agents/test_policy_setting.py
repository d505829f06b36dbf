from __future__ import annotations

import json
import tomllib

import pytest

from agents.policy_setting import PolicySetting
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.gcc import GccParameters
from bwe_env.observation import ObservationConfig


def test_a_setting_comes_back_from_its_json() -> None:
    setting = PolicySetting(
        action_mode="config",
        observation=ObservationConfig(history=3),
        gcc=GccParameters(pacing_factor=1.5),
        network_models=("congestion",),
        network_model_digests=("ab12",),
        network_model_period_bins=5,
    )
    assert PolicySetting.from_json(json.loads(json.dumps(setting.to_json()))) == setting


def test_a_policy_of_other_rates_is_refused_with_what_a_scenario_file_has_to_say() -> None:
    setting = PolicySetting.of_call(CallConfig(max_rate_bps=4_000_000))
    with pytest.raises(ConfigError) as raised:
        setting.check_call(CallConfig(), "runs/it")
    message = str(raised.value)
    assert "--max-rate-bps 4000000" in message
    call = tomllib.loads(message[message.index("call = ") :].rstrip("."))["call"]
    setting.check_call(CallConfig(**call), "runs/it")  # what it says to write is accepted


def test_a_model_without_a_digest_and_an_unknown_mode_are_refused() -> None:
    with pytest.raises(ConfigError, match="one digest for"):
        PolicySetting(network_models=("congestion",))
    with pytest.raises(UnknownNameError, match="scale"):
        PolicySetting(action_mode="sale")  # type: ignore[arg-type]
