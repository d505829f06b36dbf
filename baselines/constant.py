"""One rate for the whole call: what any controller must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bwe_env.action import ActionMode, rate_to_action
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.truth import GroundTruth

#: Rate of the bare name "constant": 360p at 30 frames per second (the ladder of bwe_env.quality),
#: and no measured network type has a lower median capacity. Ours.
DEFAULT_RATE_BPS = 500_000


class ConstantRate:
    """A `RatePolicy` that always answers the same target rate.

    Args:
        rate_bps: the target, between the call's minimum and maximum rate.
        call: where those two come from.
    """

    action_mode: ActionMode = "rate"

    def __init__(self, rate_bps: float, *, call: CallConfig) -> None:
        if not call.min_rate_bps <= rate_bps <= call.max_rate_bps:
            raise ConfigError(
                f"a constant rate of {rate_bps:g} bps is outside the call's range of "
                f"{call.min_rate_bps} to {call.max_rate_bps} bps; choose one inside it, or change "
                "the call's min_rate_bps or max_rate_bps."
            )
        self.rate_bps = float(rate_bps)
        self._action = float(rate_to_action(self.rate_bps, call.min_rate_bps, call.max_rate_bps))

    def reset(self, num_envs: int) -> None:
        """Nothing to forget."""

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        """The same action for every call."""
        return np.full((len(observation), 1), self._action, dtype=np.float32)
