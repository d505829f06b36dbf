from __future__ import annotations

import numpy as np
import pytest

from agents.sb3_vec_env import Sb3VecEnv
from bwe_env.errors import ConfigError
from tests.agents.counting_env import CountingVectorEnv


def play(adapter: Sb3VecEnv, steps: int) -> list[tuple]:
    action = np.zeros((adapter.num_envs, 1), dtype=np.float32)
    return [adapter.step(action) for _ in range(steps)]


def test_a_finished_call_restarts_in_the_same_step_and_shows_its_last_observation() -> None:
    adapter = Sb3VecEnv(CountingVectorEnv(3, length=4))
    first = adapter.reset()
    np.testing.assert_array_equal(first, [[0, 1, 0], [1, 1, 0], [2, 1, 0]])
    *_, (observation, _, done, infos) = play(adapter, 4)
    assert done.tolist() == [True, True, True]
    np.testing.assert_array_equal(observation, [[0, 2, 0], [1, 2, 0], [2, 2, 0]])
    for i, info in enumerate(infos):
        np.testing.assert_array_equal(info["terminal_observation"], [i, 1, 4])
        assert info["TimeLimit.truncated"] is True
        assert info["episode"] == {"r": 1.0 + 2 + 3 + 4, "l": 4}


def test_a_dropped_call_is_not_marked_truncated_and_leaves_the_others_alone() -> None:
    adapter = Sb3VecEnv(CountingVectorEnv(3, length=100, drop_at=2))
    adapter.reset()
    _, (observation, _, done, infos) = play(adapter, 2)
    assert done.tolist() == [False, True, False]
    assert infos[1]["TimeLimit.truncated"] is False
    assert infos[0] == infos[2] == {}
    np.testing.assert_array_equal(observation, [[0, 1, 2], [1, 2, 0], [2, 1, 2]])


def test_staggered_first_calls_end_evenly_spread_and_later_calls_are_whole() -> None:
    adapter = Sb3VecEnv(CountingVectorEnv(5, length=10), stagger_steps=10)
    adapter.reset()
    ends = [np.flatnonzero(done).tolist() for _, _, done, _ in play(adapter, 20)]
    first_ends = {end: i for i, env in enumerate(ends[:10]) for end in env}
    assert first_ends == {0: 1, 1: 3, 2: 5, 3: 7, 4: 9}
    assert ends[10:] == [[] if i % 2 == 0 else [i // 2] for i in range(10)]


def test_a_call_cut_by_staggering_bootstraps_its_value_and_counts_as_no_episode() -> None:
    adapter = Sb3VecEnv(CountingVectorEnv(2, length=10), stagger_steps=10)
    adapter.reset()
    *_, (_, _, done, infos) = play(adapter, 5)
    assert done.tolist() == [True, False]
    assert infos[0]["TimeLimit.truncated"] is True
    np.testing.assert_array_equal(infos[0]["terminal_observation"], [0, 1, 5])
    assert "episode" not in infos[0]
    *_, (_, _, done, infos) = play(adapter, 5)
    assert done.tolist() == [False, True]
    assert infos[1]["episode"]["l"] == 10


def test_a_call_that_dropped_before_its_cut_is_not_cut_again() -> None:
    adapter = Sb3VecEnv(CountingVectorEnv(2, length=10, drop_at=4), stagger_steps=14)
    adapter.reset()
    done = [done[1] for _, _, done, _ in play(adapter, 14)]
    assert np.flatnonzero(done).tolist() == [3, 7, 11]


def test_seeds_reach_the_environment_once() -> None:
    env = CountingVectorEnv(2, length=3)
    adapter = Sb3VecEnv(env)
    adapter.seed(11)
    adapter.reset()
    adapter.reset()
    assert env.seeds == [11, None]


def test_step_info_shows_the_interval_played_also_where_a_call_ended() -> None:
    adapter = Sb3VecEnv(CountingVectorEnv(2, length=3))
    adapter.reset()
    play(adapter, 3)
    np.testing.assert_allclose(adapter.step_info["time_s"], [0.3, 0.3])


def test_an_environment_that_resets_itself_is_refused() -> None:
    env = CountingVectorEnv(2)
    env.metadata = {"autoreset_mode": "next_step"}
    with pytest.raises(ConfigError, match='make it with autoreset_mode="disabled"'):
        Sb3VecEnv(env)


def test_attributes_belong_to_all_sub_envs_together() -> None:
    adapter = Sb3VecEnv(CountingVectorEnv(3, length=7))
    assert adapter.get_attr("length") == [7, 7, 7]
    assert adapter.get_attr("length", indices=[0]) == [7]
    adapter.set_attr("length", 8)
    assert adapter.env.length == 8
    with pytest.raises(ConfigError, match="share one environment"):
        adapter.set_attr("length", 9, indices=[0])
    assert not any(adapter.env_is_wrapped(object))  # type: ignore[arg-type]
