"""The native vector environment as Stable-Baselines3 wants it, at under a microsecond a call step.

Stable-Baselines3 restarts a finished sub-env within the same step and finds its last observation in
that sub-env's info. The adapter does so itself on an environment made with
``autoreset_mode="disabled"``: the step's arrays then stay those of the interval that was played,
also where a call ended, and callbacks read them whole from `step_info`.

Per-env info dictionaries carry only what the library reads. Filling them with the thirty metrics of
a step costs 3.6 us per env step, as much as the simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from agents.curriculum import GapCurriculum
from bwe_env.errors import ConfigError

#: Sets the draws of networks apart from the random numbers of sub-env 0, which has the same seed.
_CURRICULUM_STREAM = 1


class Sb3VecEnv(VecEnv):
    """Adapter from a Gymnasium `VectorEnv` to a Stable-Baselines3 `VecEnv`.

    Args:
        env: made with ``autoreset_mode="disabled"``.
        stagger_steps: spreads the lengths of the first calls evenly over 1…`stagger_steps` steps.
            All calls start together; without it, rollouts shorter than a call would train on its
            first seconds only, then all on the next ones. 0 for off.
        curriculum: draws the network of every call, and is told what finished calls have reached;
            without it the environment draws them itself.
        call_duration_s: scheduled time of a call, by which a curriculum's rewards are per second.

    First calls under staggering tell a curriculum nothing, also where they drop before their cut:
    of the cut ones only the first seconds are known, and if those that drop counted alone, their
    networks would look worse than they are. Calls that begin anywhere in their trace count: a
    baseline measured over the whole trace expects the same of them on average.

    Attributes:
        step_info: arrays of the last step, one value per sub-env, e.g. ``step_info["video_mos"]``.

    Raises:
        ConfigError: the environment resets finished sub-envs by itself; or a curriculum without
            the duration of a call.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        *,
        stagger_steps: int = 0,
        curriculum: GapCurriculum | None = None,
        call_duration_s: float | None = None,
    ) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.DISABLED:
            raise ConfigError(
                f"Sb3VecEnv restarts finished calls itself, but the environment has autoreset_mode="
                f'{mode!r}; make it with autoreset_mode="disabled".'
            )
        if curriculum is not None and call_duration_s is None:
            raise ConfigError(
                "a curriculum compares rewards per second of scheduled time; give Sb3VecEnv "
                "call_duration_s as well."
            )
        self.env = env
        self.step_info: dict[str, NDArray[Any]] = {}
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._stagger_steps = stagger_steps
        self._first_length = np.zeros(self.num_envs, dtype=np.int64)
        self._steps = 0
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._curriculum = curriculum
        self._call_duration_s = call_duration_s or 1.0
        self._generator = np.random.default_rng()
        self._network_index = np.zeros(self.num_envs, dtype=np.int64)
        self._actions: NDArray[Any] = np.zeros((self.num_envs, *env.single_action_space.shape))

    def reset(self) -> NDArray[np.float32]:
        """Start every call anew."""
        seed = self._seeds[0]
        if seed is not None:
            sequence = np.random.SeedSequence(seed, spawn_key=(_CURRICULUM_STREAM,))
            self._generator = np.random.default_rng(sequence)
        options = {**self._drawn(np.ones(self.num_envs, dtype=np.bool_)), **self._options[0]}
        if "network_index" in options:
            self._network_index[:] = options["network_index"]
        observation, _ = self.env.reset(seed=seed, options=options or None)
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self._steps = 0
        if self._stagger_steps:
            # Rounded up: every length is at least 1 and the last sub-env plays a full call.
            share = np.arange(1, self.num_envs + 1) / self.num_envs
            self._first_length = np.ceil(share * self._stagger_steps).astype(np.int64)
        return observation  # type: ignore[no-any-return]

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.bool_], list[dict[str, Any]]]:
        """Play one interval of every call; restart those that ended."""
        observation, reward, terminated, truncated, info = self.env.step(self._actions)
        self.step_info = info
        self._steps += 1
        self._returns += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = terminated | truncated
        is_cut = (self._first_length == self._steps) & ~done
        ended = done | is_cut
        if ended.any():
            observation = self._restart(observation, ended, terminated, is_cut, infos)
        return observation, reward, ended, infos

    def _restart(
        self,
        observation: NDArray[np.float32],
        ended: NDArray[np.bool_],
        terminated: NDArray[np.bool_],
        is_cut: NDArray[np.bool_],
        infos: list[dict[str, Any]],
    ) -> NDArray[np.float32]:
        for i in np.flatnonzero(ended):
            infos[i]["terminal_observation"] = observation[i].copy()
            infos[i]["TimeLimit.truncated"] = not bool(terminated[i])
            # A call cut short by staggering says nothing about calls.
            if not is_cut[i]:
                episode = {"r": float(self._returns[i]), "l": int(self._lengths[i])}
                infos[i]["episode"] = episode
        self._tell_curriculum(ended)
        fresh, _ = self.env.reset(options={"reset_mask": ended, **self._drawn(ended)})
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        self._first_length[ended] = 0
        return np.where(ended[:, None], fresh, observation)

    def _tell_curriculum(self, ended: NDArray[np.bool_]) -> None:
        if self._curriculum is None:
            return
        for i in np.flatnonzero(ended & (self._first_length == 0)):
            # A dropped call was charged for what it had left: its time is the scheduled one too.
            mean_reward = float(self._returns[i]) / self._call_duration_s
            self._curriculum.record(int(self._network_index[i]), mean_reward)

    def _drawn(self, begins: NDArray[np.bool_]) -> dict[str, Any]:
        """The option of `reset` that says which networks calls begin on; none if not ours."""
        if self._curriculum is None:
            return {}
        drawn = self._curriculum.draw(int(begins.sum()), self._generator)
        self._network_index[begins] = drawn
        return {"network_index": self._network_index.copy()}

    def close(self) -> None:
        """Release the environment."""
        self.env.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """One picture per sub-env, where the environment was made with ``rgb_array``."""
        frames = self.env.render()
        return list(frames) if frames is not None else [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the vector environment, once per index: the sub-envs share it."""
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment; sub-envs have none of their own."""
        if indices is not None:
            raise ConfigError(
                f"{attr_name!r} cannot be set for single sub-envs: they share one environment. Set "
                "it for all (indices=None)."
            )
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment once; the result stands for every index."""
        result = getattr(self.env, method_name)(*method_args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> list[bool]:
        """False for each: the sub-envs are rows of arrays, there is nothing to wrap."""
        return [False for _ in self._get_indices(indices)]
