"""Network models that say what a test has written down, and settings that change on cue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bwe_env.labels import NETWORK_CLASSES
from bwe_env.sender_settings import SenderSettings
from bwe_env.telemetry import TELEMETRY

TYPE_OUTPUTS = tuple(f"network_type:{name}" for name in NETWORK_CLASSES)
ALL_OUTPUTS = ("random_loss", "congestion", *TYPE_OUTPUTS)


class ScriptedModels:
    """Says the same in every call, as a function of how many of its bins have passed.

    Args:
        said: shape (bins, outputs); the last row stands for ever after.
    """

    def __init__(self, said: ArrayLike, outputs: tuple[str, ...] = ALL_OUTPUTS) -> None:
        self.outputs = outputs
        self.said = np.asarray(said, dtype=np.float32)
        assert self.said.ndim == 2
        assert self.said.shape[1] == len(outputs)
        self.bins = np.zeros(0, dtype=np.int64)

    @classmethod
    def constant(cls, **probabilities: float) -> ScriptedModels:
        """Always the same: 0, but for what is given by name."""
        row = [probabilities.get(name, 0.0) for name in ALL_OUTPUTS]
        return cls([row])

    def reset(self, num_envs: int) -> None:
        self.bins = np.zeros(num_envs, dtype=np.int64)

    def restart(self, env: int) -> None:
        self.bins[env] = 0

    def update(self, telemetry: NDArray[Any], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        rows = self.said[np.minimum(self.bins, len(self.said) - 1)]
        self.bins[active] += 1
        return rows


class Cue:
    """A settings policy that goes over to the given settings at one interval, call by call.

    Args:
        settings: call `i` goes over to number ``i % len(settings)``; all begin with the first.
        at_interval: the first with other settings, at least 1.
        back_at: the first with those of the beginning again.
    """

    def __init__(
        self, settings: Sequence[SenderSettings], *, at_interval: int, back_at: int = 1 << 30
    ) -> None:
        self.settings = tuple(settings)
        self._at, self._back_at = at_interval, back_at
        self.reset(0)

    def reset(self, num_envs: int) -> None:
        self._intervals = np.zeros(num_envs, dtype=np.int64)

    def restart(self, env: int) -> None:
        self._intervals[env] = 0

    def update(
        self, telemetry: NDArray[Any], active: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        self._intervals[active] += 1
        is_on = (self._intervals >= self._at) & (self._intervals < self._back_at)
        own = np.arange(len(active)) % len(self.settings)
        return np.where(is_on, own, 0), np.ones(len(active))

    def call_columns(self) -> dict[str, NDArray[Any]]:
        return {}


def telemetry_rows(acked_bytes: ArrayLike) -> NDArray[Any]:
    """One bin of each call, of which only the acknowledged bytes are told."""
    acked = np.asarray(acked_bytes, dtype=np.float64)
    rows = np.zeros(len(acked), dtype=TELEMETRY)
    rows["acked_bytes"] = acked
    return rows
