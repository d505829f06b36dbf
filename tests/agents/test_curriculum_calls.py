"""A curriculum at work: the calls of a vector environment are drawn by it and tell it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents.curriculum import GapCurriculum
from agents.curriculum_callback import CurriculumCallback
from agents.ppo import PpoConfig, make_ppo
from agents.sb3_vec_env import Sb3VecEnv
from bwe_env import BandwidthEstimationVectorEnv, CallConfig
from bwe_env.config import RandomisationConfig
from bwe_env.errors import ConfigError
from bwe_env.trace.catalog import networks
from tests.agents.counting_env import CountingVectorEnv

#: Steps of a scripted call, and its scheduled time.
LENGTH, CALL_S = 10, 1.0


class NetworksVectorEnv(CountingVectorEnv):
    """Calls whose reward per second is that of their network in `rewards`; 0 where none is given.

    Keeps the options of every reset.
    """

    def __init__(self, num_envs: int, rewards: list[float], **options: Any) -> None:
        super().__init__(num_envs, length=LENGTH, **options)
        self.rewards = np.array(rewards)
        self.network = np.zeros(num_envs, dtype=np.int64)
        self.options: list[Any] = []

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        self.options.append(options)
        given = options or {}
        mask = given.get("reset_mask", np.ones(self.num_envs, dtype=bool))
        if "network_index" in given:
            self.network[mask] = given["network_index"][mask]
        return super().reset(seed=seed, options=options)

    def step(self, actions: np.ndarray) -> Any:
        observation, _, terminated, truncated, info = super().step(actions)
        reward = self.rewards[self.network] / LENGTH
        return observation, reward, terminated, truncated, info


def adapter_of(env: Any, curriculum: GapCurriculum | None, **options: Any) -> Sb3VecEnv:
    adapter = Sb3VecEnv(env, curriculum=curriculum, call_duration_s=CALL_S, **options)
    adapter.seed(11)
    return adapter


def play(adapter: Sb3VecEnv, steps: int) -> list[np.ndarray]:
    action = np.zeros((adapter.num_envs, 1), dtype=np.float32)
    return [adapter.step(action)[0] for _ in range(steps)]


def test_networks_on_which_the_agent_lags_are_drawn_more_until_it_has_caught_up() -> None:
    # The rule reaches 1 on each of ten networks. The agent reaches as much but on two.
    env = NetworksVectorEnv(16, [0.0, 0.0, *[1.0] * 8])
    curriculum = GapCurriculum([1.0] * 10)
    adapter = adapter_of(env, curriculum)
    adapter.reset()
    play(adapter, 10 * LENGTH)
    before = curriculum.calls.copy()
    assert (before > 0).all()
    np.testing.assert_allclose(curriculum.gaps, [1.0, 1.0, *[0.0] * 8], atol=1e-12)

    play(adapter, 200 * LENGTH)
    shares = (curriculum.calls - before) / (200 * 16)
    # By hand: two share the ranks 9 and 10, (8 + 1) / 10 = 0.9; eight the ranks 1 to 8, 0.4.
    # exp(0.5 / 0.25) = 7.39 to one: 0.05 + 0.5 * 7.39 / (2 * 7.39 + 8) = 0.212, and 0.072.
    np.testing.assert_allclose(shares[:2], 0.212, atol=0.03)
    np.testing.assert_allclose(shares[2:], 0.072, atol=0.02)

    env.rewards[:] = 1.0
    play(adapter, 200 * LENGTH)
    assert curriculum.mean_gap == pytest.approx(0.0, abs=1e-6)


def test_the_curriculum_hears_every_whole_call_once_with_its_network_and_reward() -> None:
    env = NetworksVectorEnv(4, [0.1, 0.2, 0.3])
    curriculum = GapCurriculum([0.0, 0.0, 0.0])
    adapter = adapter_of(env, curriculum)
    adapter.reset()
    first = env.network.copy()
    play(adapter, LENGTH - 1)
    assert curriculum.calls.sum() == 0
    play(adapter, 1)
    assert curriculum.calls.tolist() == np.bincount(first, minlength=3).tolist()
    is_played = curriculum.calls > 0
    np.testing.assert_allclose(curriculum.agent_rewards[is_played], env.rewards[is_played])


def test_only_calls_that_end_get_a_new_network() -> None:
    env = NetworksVectorEnv(6, [0.5] * 50)
    adapter = adapter_of(env, GapCurriculum([0.5] * 50), stagger_steps=LENGTH)
    adapter.reset()
    action = np.zeros((6, 1), dtype=np.float32)
    for _ in range(3 * LENGTH):
        before = env.network.copy()
        *_, done, _ = adapter.step(action)
        np.testing.assert_array_equal(env.network[~done], before[~done])
    np.testing.assert_array_equal(env.network, adapter._network_index)


def test_first_calls_under_staggering_tell_nothing_whether_cut_or_dropped() -> None:
    # Lengths 3, 6 … 12 of first calls; sub-env 1 drops in its 4th step, before its cut.
    env = NetworksVectorEnv(4, [0.3, 0.6], drop_at=4)
    curriculum = GapCurriculum([0.0, 0.0])
    adapter = adapter_of(env, curriculum, stagger_steps=LENGTH)
    adapter.reset()
    play(adapter, 4)
    assert env.calls.tolist() == [2, 2, 1, 1]
    assert curriculum.calls.sum() == 0
    play(adapter, 4)  # the second call of sub-env 1 drops too: a whole call
    assert curriculum.calls.sum() == 1
    # Its 4 steps of 10 over the scheduled time, not over the time it lasted.
    network = int(np.flatnonzero(curriculum.calls)[0])
    assert curriculum.agent_rewards[network] == pytest.approx(0.4 * env.rewards[network])


def test_without_a_curriculum_the_environment_is_asked_as_ever() -> None:
    env = NetworksVectorEnv(2, [0.0])
    adapter = Sb3VecEnv(env)
    adapter.reset()
    play(adapter, LENGTH)
    assert env.options[0] is None
    assert set(env.options[1]) == {"reset_mask"}


def test_a_network_that_the_caller_chooses_stands_above_the_curriculum() -> None:
    env = NetworksVectorEnv(3, [0.0, 0.7])
    curriculum = GapCurriculum([0.0, 0.0])
    adapter = adapter_of(env, curriculum)
    adapter.set_options({"network_index": np.ones(3, dtype=np.int64)})
    adapter.reset()
    play(adapter, LENGTH)
    assert curriculum.calls.tolist() == [0, 3]


def test_a_curriculum_without_the_duration_of_a_call_is_refused() -> None:
    with pytest.raises(ConfigError, match="give Sb3VecEnv call_duration_s"):
        Sb3VecEnv(CountingVectorEnv(2), curriculum=GapCurriculum([0.0]))


def test_the_callback_shows_and_keeps_the_curriculum_after_every_rollout() -> None:
    env = NetworksVectorEnv(4, [0.0, 1.0, 1.0, 1.0])
    curriculum = GapCurriculum([1.0] * 4)
    config = PpoConfig(num_envs=4, n_steps=4, batch_size=16, n_epochs=1, torch_threads=1)
    model = make_ppo(adapter_of(env, curriculum), config, seed=1)
    kept: list[int] = []
    shown: list[dict[str, float]] = []

    class Spy(CurriculumCallback):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            shown.append(dict(self.logger.name_to_value))

    types = ["wifi", "5G", "5G", "3G"]
    model.learn(
        4 * 60,
        callback=Spy(curriculum, types, keep=lambda current: kept.append(current.calls.sum())),
    )
    assert kept[0] == 0
    assert kept[-1] == curriculum.calls.sum() == 4 * 6
    assert len(kept) == len(shown) == 15
    assert shown[0]["curriculum/effective_networks"] == pytest.approx(4.0)
    assert shown[0]["curriculum/top_type_share"] == pytest.approx(0.5)  # 5G has two of four
    p = curriculum.probabilities
    assert shown[-1]["curriculum/mean_gap"] == pytest.approx(curriculum.mean_gap)
    assert shown[-1]["curriculum/top_type_share"] == pytest.approx(max(p[0], p[1] + p[2], p[3]))
    assert shown[-1]["curriculum/played_ratio"] == 1.0


# --- On the native environment --------------------------------------------------------------------

CALL = CallConfig(duration_s=2.0)


def native_calls(*, num_threads: int, with_curriculum: bool, seed: int = 5) -> tuple[Any, ...]:
    some = networks("train", count=12)
    env = BandwidthEstimationVectorEnv(
        6,
        call=CALL,
        networks=some,
        randomisation=RandomisationConfig(random_start=True),
        num_threads=num_threads,
        autoreset_mode="disabled",
    )
    curriculum = GapCurriculum(np.linspace(0.0, 1.0, 12)) if with_curriculum else None
    adapter = Sb3VecEnv(
        env, stagger_steps=CALL.steps, curriculum=curriculum, call_duration_s=CALL.duration_s
    )
    adapter.seed(seed)
    observations = [adapter.reset(), *play(adapter, 5 * CALL.steps)]
    adapter.close()
    return np.array(observations), None if curriculum is None else curriculum.state


def test_the_calls_of_a_seed_are_the_same_with_any_number_of_threads() -> None:
    one, state = native_calls(num_threads=1, with_curriculum=True)
    three, state_of_three = native_calls(num_threads=3, with_curriculum=True)
    np.testing.assert_array_equal(one, three)
    assert state == state_of_three
    assert sum(state["calls"]) >= 6 * 3
    other, _ = native_calls(num_threads=1, with_curriculum=True, seed=6)
    assert not np.array_equal(one, other)


def test_without_a_curriculum_calls_are_those_of_the_environment_alone_bit_for_bit() -> None:
    adapted, _ = native_calls(num_threads=1, with_curriculum=False)
    env = BandwidthEstimationVectorEnv(
        6,
        call=CALL,
        networks=networks("train", count=12),
        randomisation=RandomisationConfig(random_start=True),
        autoreset_mode="disabled",
    )
    observation, _ = env.reset(seed=5)
    np.testing.assert_array_equal(adapted[0], observation)
    first_length = np.ceil(np.arange(1, 7) / 6 * CALL.steps)
    for step in range(1, 5 * CALL.steps + 1):
        observation, _, terminated, truncated, _ = env.step(np.zeros((6, 1), dtype=np.float32))
        ended = terminated | truncated | (first_length == step)
        if ended.any():
            fresh, _ = env.reset(options={"reset_mask": ended})
            observation = np.where(ended[:, None], fresh, observation)
        np.testing.assert_array_equal(adapted[step], observation)
    env.close()
