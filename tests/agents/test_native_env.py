from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from agents.policy_estimator import PolicyEstimator
from agents.policy_setting import PolicySetting
from agents.ppo import PpoConfig, make_ppo
from agents.sb3_vec_env import Sb3VecEnv
from bwe_env import BandwidthEstimationVectorEnv, CallConfig, run_calls
from bwe_env.trace.catalog import networks

CALL = CallConfig(duration_s=3.0)


def native(num_envs: int, seed: int = 5) -> Sb3VecEnv:
    env = BandwidthEstimationVectorEnv(
        num_envs, call=CALL, networks=networks("train", count=6), autoreset_mode="disabled"
    )
    adapter = Sb3VecEnv(env, stagger_steps=CALL.steps)
    adapter.seed(seed)
    return adapter


@pytest.fixture
def adapter() -> Iterator[Sb3VecEnv]:
    adapter = native(4)
    yield adapter
    adapter.close()


def test_calls_of_the_native_environment_go_on_for_ever_and_stay_in_the_box(
    adapter: Sb3VecEnv,
) -> None:
    observation = adapter.reset()
    generator = np.random.default_rng(0)
    ends = 0
    for _ in range(100):
        assert adapter.observation_space.shape == observation.shape[1:]
        assert np.isfinite(observation).all()
        assert np.abs(observation).max() <= 1.0
        action = generator.uniform(-1, 1, (4, 1)).astype(np.float32)
        observation, reward, done, infos = adapter.step(action)
        assert np.abs(reward).max() <= 0.1 + 1e-9  # within [-1, 1] per second, no drop in 3 s
        for i in np.flatnonzero(done):
            ends += 1
            assert infos[i]["TimeLimit.truncated"]
            assert infos[i]["terminal_observation"].shape == observation[i].shape
            assert not np.array_equal(infos[i]["terminal_observation"], observation[i])
    # First calls of 8, 15, 23 and 30 steps, then one end every 30.
    assert ends == sum(1 + (100 - first) // 30 for first in (8, 15, 23, 30))


def test_episode_returns_are_the_sums_of_the_rewards(adapter: Sb3VecEnv) -> None:
    adapter.reset()
    total = np.zeros(4)
    action = np.zeros((4, 1), dtype=np.float32)
    for _ in range(30):
        _, reward, done, infos = adapter.step(action)
        total += reward
        total[done & (np.arange(4) != 3)] = 0.0
    assert infos[3]["episode"] == {"r": pytest.approx(total[3]), "l": 30}


def test_the_same_seed_trains_the_same_agent() -> None:
    config = PpoConfig(num_envs=4, n_steps=16, batch_size=64, torch_threads=1)
    observation = np.zeros((1, 210), dtype=np.float32)
    actions = []
    for seed in (3, 3, 4):
        env = native(4, seed)
        model = make_ppo(env, config, seed=seed)
        model.learn(256)
        policy = PolicyEstimator.from_sb3(model.policy, setting=PolicySetting())
        actions.append(policy.act(observation, np.zeros(1))[0, 0])
        env.close()
    assert actions[0] == actions[1] != actions[2]


def test_a_policy_plays_whole_calls_and_the_batch_size_changes_nothing() -> None:
    env = native(4)
    model = make_ppo(env, PpoConfig(num_envs=4, n_steps=16, batch_size=64), seed=1)
    env.close()
    policy = PolicyEstimator.from_sb3(model.policy, setting=PolicySetting())
    some = networks("validation", count=5)
    tables = [
        run_calls(some, policy, call=CALL, seeds=(0, 1), batch_size=batch_size)
        for batch_size in (1, 3, 64)
    ]
    for table in tables[1:]:
        for name, column in tables[0].items():
            np.testing.assert_array_equal(column, table[name], err_msg=name)


@pytest.mark.slow
def test_a_minute_of_learning_beats_the_untrained_policy_by_far() -> None:
    call = CallConfig(duration_s=20.0)
    config = PpoConfig(num_envs=128, n_steps=32, batch_size=2048, torch_threads=1)
    env = Sb3VecEnv(
        BandwidthEstimationVectorEnv(
            128, call=call, networks=networks("train", count=60), autoreset_mode="disabled"
        ),
        stagger_steps=call.steps,
    )
    model = make_ppo(env, config, seed=0)
    judged = networks("validation", count=24)

    def reward() -> float:
        policy = PolicyEstimator.from_sb3(model.policy, setting=PolicySetting())
        return float(run_calls(judged, policy, call=call, seeds=(0,))["mean_reward"].mean())

    before = reward()
    model.learn(200_000)
    env.close()
    assert reward() > before + 0.1
