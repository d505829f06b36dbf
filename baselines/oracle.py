"""The controller that is told the capacity: no estimator can know it, none should beat it by much.

It is no upper bound; `baselines.future_oracle` comes closer to one. It sees the capacity as it is
now, not what it will be within the interval, and the queue it leaves behind when the capacity falls
is drained by the headroom alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bwe_env.action import ActionMode, rate_to_action
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.truth import GroundTruth

#: Share of the capacity asked for. The rest carries headers, audio and the encoder's noise, and
#: drains queues. Ours: on 60 synthetic validation networks, 0.7, 0.8, 0.9 and 1 have a mean call
#: score of 3.509, 3.574, 3.616 and 3.392 (python -m experiments.oracle_choice), and 0.9 is the best
#: of 0.6, 0.7, 0.8, 0.9, 1 in mean reward, too.
DEFAULT_HEADROOM_RATIO = 0.9


class Oracle:
    """A `RatePolicy` that targets a share of the present capacity.

    Args:
        headroom_ratio: target over capacity, in (0, 1.5].
        call: the range of rates; targets are clipped to it.
    """

    action_mode: ActionMode = "rate"

    def __init__(self, *, headroom_ratio: float = DEFAULT_HEADROOM_RATIO, call: CallConfig) -> None:
        self.headroom_ratio = check_headroom(headroom_ratio)
        self._min_rate_bps = call.min_rate_bps
        self._max_rate_bps = call.max_rate_bps

    def reset(self, num_envs: int) -> None:
        """Nothing to forget."""

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        """Actions of shape (calls, 1) from the capacity of each call's link now."""
        rate_bps = np.clip(
            self.headroom_ratio * truth.capacity_bps,
            self._min_rate_bps,
            self._max_rate_bps,
        )
        action = rate_to_action(rate_bps, self._min_rate_bps, self._max_rate_bps)
        return np.asarray(action, dtype=np.float32).reshape(-1, 1)


def check_headroom(headroom_ratio: float) -> float:
    """The ratio itself, or a `ConfigError` where no oracle can work with it."""
    if not 0.0 < headroom_ratio <= 1.5:
        raise ConfigError(
            f"an oracle's headroom_ratio={headroom_ratio:g} must be above 0 and at most 1.5; "
            "0.9 sends at 90 % of the capacity."
        )
    return float(headroom_ratio)
