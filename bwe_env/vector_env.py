"""The environment: many calls side by side, stepped by one compiled kernel.

`bwe_env.env.BandwidthEstimationEnv` is this class with one call. Sub-environment `i` of an
environment seeded `s` is bit for bit the single environment seeded `s + i`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from bwe_env.action import (
    action_size,
    action_to_rate,
    action_to_scale,
    action_to_values,
    check_actions,
    is_plain_action,
)
from bwe_env.config import CallConfig, RandomisationConfig, from_mapping
from bwe_env.errors import ConfigError, unknown_name
from bwe_env.gcc import GccParameters
from bwe_env.live_window import MOST_CALLS, LiveView
from bwe_env.network import Network
from bwe_env.observation import ObservationConfig
from bwe_env.render import TIMELINE_COLUMNS, Timeline, ansi, rgb_array
from bwe_env.reward import RewardConfig
from bwe_env.rollout import check_models_interval, check_targetable
from bwe_env.sim.batch import CORE_MODES
from bwe_env.sim.call import STATUS_DROPPED
from bwe_env.sim.flow import CONTROLLER_ACTION, CONTROLLER_GCC
from bwe_env.sim.rng import STREAM_START, uniform
from bwe_env.sim.state import World
from bwe_env.sim.step import STEP
from bwe_env.targeting import SettingsPolicy
from bwe_env.telemetry import NetworkModels
from bwe_env.trace import SPLITS, real_networks
from bwe_env.trace import networks as split_networks
from bwe_env.truth import GroundTruth
from bwe_env.units import s_to_us

#: What `STEP` holds, all of it float64.
STEP_COLUMNS = tuple(STEP.names or ())
#: What `RandomisationConfig` scales, in the order of its draws.
SCALES = ("capacity_scale", "delay_scale", "queue_scale")
#: Keys of `info`, the same at reset and at every step: all but the reward, and which network it is.
INFO_KEYS = (*(name for name in STEP_COLUMNS if name != "reward"), "network_index")
_MASK_KEYS = tuple(f"_{name}" for name in INFO_KEYS)

_ONE = np.ones(1, dtype=np.bool_)
_VIEWS = ("_status", "_network_index", "_steps_done", "_step_rows")
_KEY_BITS = 63


def resolve_networks(networks: str | Sequence[Network]) -> tuple[Network, ...]:
    """Networks from a split's name, a directory of traces, or a sequence.

    Raises:
        UnknownNameError: neither a split nor a directory.
        ConfigError: an empty sequence, or something else in it.
    """
    if isinstance(networks, str):
        if networks in SPLITS:
            return tuple(split_networks(networks))
        if Path(networks).is_dir():
            return tuple(real_networks(networks))
        raise unknown_name("networks", networks, (*SPLITS, "DIRECTORY_OF_TRACES"))
    resolved = tuple(networks)
    if not resolved or not all(isinstance(network, Network) for network in resolved):
        raise ConfigError(
            "networks must be a split's name, a directory of traces, or a non-empty sequence of "
            f"bwe_env.Network; got {networks!r}."
        )
    return resolved


def _log_between(bounds: tuple[float, float], share: float) -> float:
    low, high = bounds
    return float(low * (high / low) ** share)


C = TypeVar("C")


def _config(cls: type[C], value: C | Mapping[str, Any] | None) -> C:
    if value is None:
        return cls()
    if isinstance(value, Mapping):
        return from_mapping(cls, value)
    if isinstance(value, cls):
        return value
    raise ConfigError(f"expected {cls.__name__} or a mapping of its fields, got {value!r}.")


class BandwidthEstimationVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Many simulated video calls, each over its own network; see `BandwidthEstimationEnv`.

    Args:
        num_envs: calls side by side.
        call: everything about the call that is not its network; a `CallConfig` or its JSON form.
        networks: a split ("train", "validation", "test"), a directory of traces, or networks.
        action_mode: "rate", "scale" or "config" (see `bwe_env.action`).
        observation: how much history is shown.
        reward: weights of the reward's terms.
        gcc: parameters of the GCC inside.
        randomisation: how each reset varies the network that it draws; not at all by default.
        network_models: what they say of each interval (probability p as 2p - 1) stands behind its
            features in the observation; `agents.online_models.OnlineModels` makes such from files.
            They want intervals of 0.1 s, and follow this environment alone: give another its own.
        targeting: changes the settings of the call's sender while it goes on, and in mode "scale"
            its factor on GCC's target comes on top of the action's; `agents.targeting` and
            `baselines.targeted` make such. The same holds as for models.
        num_threads: threads that share a step; results do not depend on it.
        autoreset_mode: "next_step", "same_step" or "disabled", or Gymnasium's enum.
        max_episode_steps: truncates before the call's duration does.
        render_mode: "human" shows the first four calls in a window, in real time (see
            `bwe_env.live_window`); "rgb_array" and "ansi" give one picture or line per call; or
            None.

    `reset(options={"reset_mask": bool[num_envs]})` resets some; `options={"network_index": …}` (an
    int or int[num_envs]) chooses networks instead of drawing them.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["human", "ansi", "rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        call: CallConfig | Mapping[str, Any] | None = None,
        networks: str | Sequence[Network] = "train",
        action_mode: str = "rate",
        observation: ObservationConfig | Mapping[str, Any] | None = None,
        reward: RewardConfig | Mapping[str, Any] | None = None,
        gcc: GccParameters | Mapping[str, Any] | None = None,
        randomisation: RandomisationConfig | Mapping[str, Any] | None = None,
        network_models: NetworkModels | None = None,
        targeting: SettingsPolicy | None = None,
        num_threads: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not (isinstance(num_envs, int) and num_envs >= 1):
            raise ConfigError(f"num_envs={num_envs!r} must be a whole number, at least 1.")
        if not (isinstance(num_threads, int) and num_threads >= 1):
            raise ConfigError(f"num_threads={num_threads!r} must be a whole number, at least 1.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise unknown_name("render_mode", render_mode, self.metadata["render_modes"])
        self._action_size = action_size(action_mode)
        check_targetable(targeting, action_mode)
        self.num_envs = num_envs
        self.call_config = _config(CallConfig, call)
        self.observation_config = _config(ObservationConfig, observation)
        self.reward_config = _config(RewardConfig, reward)
        self.gcc_parameters = _config(GccParameters, gcc)
        self.networks = resolve_networks(networks)
        self.action_mode = action_mode
        self.randomisation = _config(RandomisationConfig, randomisation)
        self.render_mode = render_mode
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        self._max_steps = _max_steps(self.call_config, max_episode_steps)
        self._interval_us = s_to_us(self.call_config.interval_s)

        box = gymnasium.spaces.Box
        size = math.prod(self.observation_config.shape(network_models))
        self.single_action_space = box(-1.0, 1.0, shape=(self._action_size,), dtype=np.float32)
        self.single_observation_space = box(-1.0, 1.0, shape=(size,), dtype=np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

        for follower in (network_models, targeting):
            check_models_interval(follower, self.call_config.interval_s)
            if follower is not None:
                follower.reset(num_envs)
        self._world = World.make(
            num_envs,
            self.networks,
            self.call_config,
            gcc=self.gcc_parameters,
            reward=self.reward_config,
            observation=self.observation_config,
            controller=CONTROLLER_ACTION if action_mode == "rate" else CONTROLLER_GCC,
            models=network_models,
            targeting=targeting,
            longest_delay_scale=self.randomisation.delay_scale[1],
        )
        self._truth = GroundTruth(self._world)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._done = np.zeros(num_envs, dtype=np.bool_)
        self._was_reset = np.zeros(num_envs, dtype=np.bool_)
        self._clipped = np.zeros(num_envs)
        self._decision_one = np.zeros(1)
        self._last_steps = self._world.steps
        self._packets_before = 0
        self._timelines: list[Timeline] = []
        self._live_view: LiveView | None = None
        if render_mode == "human":
            self._live_view = LiveView(
                interval_s=self.call_config.interval_s, frames_per_s=self.metadata["render_fps"]
            )
        self._num_threads = min(num_threads, num_envs)
        self._threads: ThreadPoolExecutor | None = None
        self._threads_pid = 0
        self._bind_views()

    # --- Gymnasium ----------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin new calls.

        Args:
            seed: sub-environment i gets ``seed + i``, or its item of a sequence; None goes on with
                the generators there are.
            options: ``reset_mask`` and ``network_index``, see the class.

        Returns:
            Observations, shape (num_envs, size), and info.
        """
        options = options or {}
        for name in options:
            if name not in ("reset_mask", "network_index"):
                raise unknown_name("reset option", name, ("reset_mask", "network_index"))
        mask = np.ones(self.num_envs, dtype=np.bool_)
        if "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
                raise ConfigError(
                    f"reset_mask must be {self.num_envs} booleans, at least one True; got {mask!r}."
                )
        self._seed(seed, mask)
        chosen = self._chosen_networks(options.get("network_index"))
        for env in np.flatnonzero(mask):
            self._reset_call(int(env), None if chosen is None else int(chosen[env]))
        self._was_reset |= mask
        if self._live_view is not None:
            self._live_view.begin(self._timelines)
        return self._observations(), self._info()

    def step(
        self, actions: Any
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float64],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Let one action per call act for one interval.

        Args:
            actions: shape (num_envs, 1), or (num_envs, parameters) in mode "config"; finite ones
                outside [-1, 1] are clipped and counted in
                ``info["clipped_actions"]``.

        Raises:
            ActionError: wrong shape or NaN.
            ResetNeeded: before the first reset, or a call is over and autoreset is disabled.
        """
        self._require_reset()
        values, was_clipped = check_actions(actions, self.num_envs, self._action_size)
        resetting = self._done.copy()
        active = ~resetting
        self._advance(
            action_to_values(self.action_mode, values, self.call_config, self.gcc_parameters),
            active,
        )
        self._clipped += was_clipped & active
        world = self._world
        world.steps["clipped_actions"] = self._clipped
        terminated = (self._status == STATUS_DROPPED) & active
        truncated = (self._steps_done >= self._max_steps) & active & ~terminated
        self._done = terminated | truncated
        for env in np.flatnonzero(resetting):  # next-step mode: the step that follows the end
            self._reset_call(int(env), None)
        rewards = world.steps["reward"].copy()
        self._record_timelines(active)
        self._last_steps = world.steps
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._done.any():
            return self._finish_same_step(rewards, terminated, truncated)
        return self._observations(), rewards, terminated, truncated, self._info()

    def step_one(
        self, action: Any
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """`step` of an environment of one call without autoreset, in Gymnasium's single form.

        The same numbers as from `step`, in a third of the time: no array per entry of info.
        """
        if self._done[0] or not self._was_reset[0]:
            self._require_reset()
        values, was_clipped = self._decision_of_one(action)
        self._advance(values, _ONE)
        world = self._world
        if was_clipped:
            self._clipped += 1
            world.steps["clipped_actions"] = self._clipped
        terminated = self._status.item(0) == STATUS_DROPPED
        truncated = self._steps_done.item(0) >= self._max_steps and not terminated
        self._done[0] = terminated or truncated
        self._record_timelines(_ONE)
        info = self.info_one()
        reward = info.pop("reward")
        return world.history.flatten(), reward, terminated, truncated, info

    def info_one(self) -> dict[str, Any]:
        """The info of an environment of one call as plain numbers, the reward included."""
        info: dict[str, Any] = dict(zip(STEP_COLUMNS, self._step_rows[0].tolist(), strict=True))
        info["network_index"] = self._network_index.item(0)
        return info

    def render(self) -> tuple[Any, ...] | None:
        """One picture or line per call, as `render_mode` says; None in mode "human".

        In mode "human" steps and resets draw by themselves.
        """
        if self.render_mode == "human":
            return None
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() was called without a render_mode; pass render_mode='human', 'rgb_array' "
                "or 'ansi' when you make the environment."
            )
            return None
        if self.render_mode == "rgb_array":
            return tuple(rgb_array(timeline) for timeline in self._timelines)
        steps = self._last_steps
        return tuple(ansi({name: float(row[name]) for name in TIMELINE_COLUMNS}) for row in steps)

    def __getstate__(self) -> dict[str, Any]:
        """A copy makes its own threads, and its own views of its own arrays."""
        state = {**self.__dict__, "_threads": None}
        for name in _VIEWS:
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind_views()

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the threads, close the window."""
        if self._live_view is not None:
            self._live_view.close()
        if self._threads is not None and self._threads_pid == os.getpid():
            self._threads.shutdown()
        self._threads = None

    # --- What learners and evaluations read ---------------------------------------------------

    @property
    def last_steps(self) -> NDArray[Any]:
        """`STEP` rows of the last step, shape (num_envs,); of calls that ended in it, their last.

        A view that the next step overwrites: copy what you keep.
        """
        return self._last_steps

    @property
    def truth(self) -> GroundTruth:
        """For oracles: what no estimator can know."""
        return self._truth

    @property
    def packets_sent(self) -> int:
        """Packets simulated since the environment was made."""
        return self._packets_before + int(self._world.own_flows["history"]["next_seq"].sum())

    @property
    def bytes_per_env(self) -> int:
        """Memory of the state of one call."""
        return self._world.bytes_per_env

    # --- Inside -------------------------------------------------------------------------------

    def _bind_views(self) -> None:
        """What every step looks at; to look a field up costs more than to read it."""
        world = self._world
        self._status = world.calls["status"]
        self._network_index = world.calls["network"]
        self._steps_done = world.own_flows["window"]["steps"]
        self._step_rows = world.steps.view(np.float64).reshape(self.num_envs, -1)

    def _require_reset(self) -> None:
        if not self._was_reset.all():
            raise ResetNeeded("call reset() before step().")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._done.any():
            over = np.flatnonzero(self._done).tolist()
            raise ResetNeeded(
                f"calls {over} are over and autoreset is disabled: reset them with "
                'reset(options={"reset_mask": mask}).'
            )

    def _seed(self, seed: int | Sequence[int | None] | None, mask: NDArray[np.bool_]) -> None:
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
            if len(seeds) != self.num_envs:
                raise ConfigError(f"seed has {len(seeds)} items, expected {self.num_envs}.")
        for env in np.flatnonzero(mask):
            if seeds[env] is not None or self._generators[env] is None:
                self._generators[env], _ = seeding.np_random(seeds[env])

    def _chosen_networks(self, index: Any) -> NDArray[np.int64] | None:
        if index is None:
            return None
        chosen = np.broadcast_to(np.asarray(index), (self.num_envs,))
        if (
            chosen.dtype.kind not in "iu"
            or (chosen < 0).any()
            or (chosen >= len(self.networks)).any()
        ):
            raise ConfigError(
                f"network_index must be whole numbers from 0 to {len(self.networks) - 1}; "
                f"got {index!r}."
            )
        return chosen.astype(np.int64)

    def _reset_call(self, env: int, network: int | None) -> None:
        generator = self._generators[env]
        assert generator is not None
        key = int(generator.integers(1 << _KEY_BITS))
        if network is None:
            network = int(uniform(np.uint64(key), STREAM_START, 0) * len(self.networks))
        draws = [uniform(np.uint64(key), STREAM_START, number) for number in range(1, 5)]
        offset_us = 0
        if self.randomisation.random_start:
            offset_us = int(draws[0] * self.networks[network].trace.period_us)
        scales = {
            name: _log_between(getattr(self.randomisation, name), draw)
            for name, draw in zip(SCALES, draws[1:], strict=True)
        }
        self._packets_before += int(self._world.own_flows["history"]["next_seq"][env])
        self._world.reset(env, network, key, offset_us, **scales)
        self._done[env] = False
        self._clipped[env] = 0.0
        if self.render_mode is not None:
            self._new_timeline(env)

    def _decision_of_one(self, action: Any) -> tuple[NDArray[np.float64], bool]:
        """What the compiled core is given for the action of one call, and whether it was clipped.

        A plain number takes a short way: four times as fast, and the same to the bit.
        """
        call = self.call_config
        if not is_plain_action(action) or self.action_mode == "config":
            actions, was_clipped = check_actions([action], 1, self._action_size)
            values = action_to_values(self.action_mode, actions, call, self.gcc_parameters)
            return values, bool(was_clipped[0])
        value = float(action[0])
        if self.action_mode == "scale":
            self._decision_one[0] = action_to_scale(value)
        else:
            self._decision_one[0] = action_to_rate(value, call.min_rate_bps, call.max_rate_bps)
        return self._decision_one, False

    def _advance(self, decisions: NDArray[np.float64], active: NDArray[np.bool_]) -> None:
        self._world.step(
            CORE_MODES[self.action_mode],
            decisions,
            active,
            interval_us=self._interval_us,
            duration_us=self._max_steps * self._interval_us,
            threads=self._thread_pool(),
            num_threads=self._num_threads,
        )

    def _thread_pool(self) -> ThreadPoolExecutor | None:
        if self._num_threads == 1:
            return None
        if self._threads is None or self._threads_pid != os.getpid():  # a fork has no threads
            self._threads = ThreadPoolExecutor(self._num_threads - 1, "bwe_env")
            self._threads_pid = os.getpid()
        return self._threads

    def _finish_same_step(
        self,
        rewards: NDArray[np.float64],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> tuple[Any, ...]:
        done = self._done.copy()
        final_observations = self._observations()
        final_info = {name: column for name, column in self._info().items() if name[0] != "_"}
        self._last_steps = self._world.steps.copy()
        for env in np.flatnonzero(done):
            self._reset_call(int(env), None)
        info = self._info()
        final_obs = np.full(self.num_envs, None, dtype=object)
        for env in np.flatnonzero(done):
            final_obs[env] = final_observations[env]
        info["final_obs"], info["_final_obs"] = final_obs, done
        info["final_info"] = {**final_info, **{f"_{name}": done for name in final_info}}
        info["_final_info"] = done
        return self._observations(), rewards, terminated, truncated, info

    def _observations(self) -> NDArray[np.float32]:
        return self._world.history.reshape(self.num_envs, -1).copy()

    def _info(self) -> dict[str, Any]:
        # One copy for all columns: a copy of every field would cost five times as much.
        columns = self._step_rows.T.copy()
        info: dict[str, Any] = dict(zip(STEP_COLUMNS, columns, strict=True))
        del info["reward"]
        info["network_index"] = self._network_index.copy()
        info.update(dict.fromkeys(_MASK_KEYS, np.ones(self.num_envs, dtype=np.bool_)))
        return info

    def _new_timeline(self, env: int) -> None:
        network = self.networks[int(self._world.calls["network"][env])]
        timeline = Timeline(
            network.name,
            network_type=network.network_type,
            duration_s=self.call_config.duration_s,
            max_rate_bps=self.call_config.max_rate_bps,
        )
        while len(self._timelines) <= env:
            self._timelines.append(timeline)
        self._timelines[env] = timeline

    def _record_timelines(self, active: NDArray[np.bool_]) -> None:
        if self.render_mode is None:
            return
        for env in np.flatnonzero(active):
            row = self._world.steps[env]
            self._timelines[env].append({name: float(row[name]) for name in TIMELINE_COLUMNS})
        if self._live_view is not None:
            self._live_view.step(self._timelines, is_last=bool(self._done[:MOST_CALLS].any()))


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    names = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP}
    names["disabled"] = AutoresetMode.DISABLED
    if isinstance(mode, AutoresetMode):
        return mode
    if str(mode).lower() not in names:
        raise unknown_name("autoreset_mode", mode, names)
    return names[str(mode).lower()]


def _max_steps(call: CallConfig, max_episode_steps: int | None) -> int:
    if max_episode_steps is None:
        return call.steps
    if not (isinstance(max_episode_steps, int) and max_episode_steps >= 1):
        raise ConfigError(
            f"max_episode_steps={max_episode_steps!r} must be a whole number, at least 1, or None."
        )
    return min(call.steps, max_episode_steps)
