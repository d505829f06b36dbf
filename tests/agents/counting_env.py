"""A vector environment whose every number can be told in advance.

Observation: (sub-env, calls begun, steps played in this call). Reward: the step number plus the
action. Calls end after `length` steps (truncated); sub-env 1 drops at `drop_at` (terminated).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class CountingVectorEnv(VectorEnv):
    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012
    render_mode = None

    def __init__(self, num_envs: int, *, length: int = 10, drop_at: int = 0) -> None:
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(0, 1e6, (3,), np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.length = length
        self.drop_at = drop_at
        self.calls = np.zeros(num_envs, dtype=np.int64)
        self.steps = np.zeros(num_envs, dtype=np.int64)
        self.over = np.ones(num_envs, dtype=bool)
        self.seeds: list[int | None] = []

    def observation(self) -> np.ndarray:
        rows = (np.arange(self.num_envs), self.calls, self.steps)
        return np.stack(rows, axis=1).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.seeds.append(seed)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        self.calls[mask] += 1
        self.steps[mask] = 0
        self.over[mask] = False
        return self.observation(), {"time_s": np.zeros(self.num_envs)}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert not self.over.any(), "stepped past the end of a call"
        self.steps += 1
        truncated = self.steps >= self.length
        terminated = np.zeros(self.num_envs, dtype=bool)
        if self.drop_at and self.num_envs > 1:
            terminated[1] = self.steps[1] >= self.drop_at
        self.over = truncated | terminated
        reward = self.steps + np.asarray(actions, dtype=np.float64)[:, 0]
        info = {
            "time_s": self.steps * 0.1,
            "video_mos": self.steps.astype(float),
            "queue_delay_ms": np.where(self.steps == 1, np.nan, 50.0),
            "reward_quality": self.steps / 10.0,
        }
        return self.observation(), reward, terminated, truncated, info
