from __future__ import annotations

from typing import Any

import pytest
import torch

from agents.ppo import PpoConfig, linear_schedule, load_ppo, make_ppo
from agents.sb3_vec_env import Sb3VecEnv
from bwe_env.errors import BweEnvError
from tests.agents.counting_env import CountingVectorEnv


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 5000}, r"divide num_envs \* n_steps = 16384; e\.g\. 4096"),
        ({"num_envs": 0}, "at least 1"),
        ({"gamma": 1.5}, "between 0 and 1"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"activation": "tahn"}, "Did you mean 'tanh'"),
        ({"hidden_sizes": ()}, "at least one layer"),
    ],
)
def test_settings_that_cannot_work_say_what_would(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BweEnvError, match=message):
        PpoConfig(**change)


def test_the_step_size_falls_to_a_tenth_or_stays() -> None:
    assert linear_schedule(2.0, decays=True)(1.0) == 2.0
    assert linear_schedule(2.0, decays=True)(0.0) == pytest.approx(0.2)
    assert linear_schedule(2.0, decays=False)(0.0) == 2.0


def test_a_saved_agent_goes_on_with_its_weights_optimizer_and_count(tmp_path: Any) -> None:
    config = PpoConfig(num_envs=4, n_steps=8, batch_size=32, torch_threads=1)
    model = make_ppo(Sb3VecEnv(CountingVectorEnv(4)), config, seed=1)
    model.learn(96)
    model.save(tmp_path / "last.zip")
    loaded = load_ppo(tmp_path / "last.zip", Sb3VecEnv(CountingVectorEnv(4)), config)
    assert loaded.num_timesteps == 96
    saved, restored = model.policy.optimizer.state_dict(), loaded.policy.optimizer.state_dict()
    assert restored["step"] == saved["step"] == 3 * config.n_epochs
    for name in ("first", "second"):
        assert all(map(torch.equal, restored[name], saved[name]))
    weights = loaded.policy.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in model.policy.state_dict().items())
    loaded.learn(192, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 192
