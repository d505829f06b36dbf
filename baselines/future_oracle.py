"""The controller that knows how the capacity will change: close to the best one can hope for.

At every decision it asks for the largest rate that, kept up for the next H seconds, never lets a
packet wait longer than D in the bottleneck's queue. With C(a, b) for what the bottleneck carries
from time a to time b, and q for the bits it holds now (time t), a sender at rate r has put in
q + r tau bits by t + tau. All of them have left by t + tau + D if and only if q + r tau is at most
C(t, t + tau + D), as long as the queue does not run empty before. (Where it does, capacity is
wasted that the condition counts; but by then the rate has been chosen anew.) So

    target = headroom * min over tau in (0, H] of (C(t, t + tau + D) - q) / tau

clipped to the call's range. Ours. The headroom is for headers, audio and the encoder's noise.
Before a drop the minimum lies behind it, and the rate goes down while the queue may still take up
to D; right after a rise nothing lower lies ahead, and it is back at once.

Why this is close to a ceiling: whoever keeps the wait below D sends, over every window that begins
now, at most what the minimum is taken of. Why it is not one: the future is cut off at H; a rate
that varies within the window may use the queue's D better; a longer wait may be worth its price in
a call's score; what the encoder makes of the target lags behind and scatters; and it is told the
capacity, not its share of it beside cross traffic or other calls, nor of losses to come.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baselines.oracle import check_headroom
from bwe_env.action import ActionMode, rate_to_action
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.truth import GroundTruth
from bwe_env.units import BITS_PER_BYTE

# Headroom, H and D, ours: the highest mean call score on 60 synthetic validation networks
# (python -m experiments.oracle_choice). With H = 0.3 s and D = 0.1 s, headrooms of 0.7, 0.8, 0.9
# and 1 score 3.601, 3.632, 3.621 and 3.582; with 0.8 and H = 0.3 s, D of 0.05, 0.1 and 0.2 s score
# 3.587, 3.632 and 3.487; with 0.8 and D = 0.1 s, H of 0.3, 0.5 and 1 s score 3.632, 3.607 and
# 3.572. The oracle that sees the present scores 3.616 there: one seed cannot tell the two apart.
DEFAULT_HEADROOM_RATIO = 0.8
DEFAULT_HORIZON_S = 0.3
DEFAULT_MAX_WAIT_S = 0.1

#: Spacing of the tau at which the condition is asked for: half a decision interval. Between two of
#: them the wait can exceed D by no more than this. Ours.
LOOK_AHEAD_STEP_S = 0.05


class FutureOracle:
    """A `RatePolicy` that knows the bottleneck's capacity for all time, and its queue now.

    Args:
        headroom_ratio: factor on what would fit, in (0, 1.5].
        horizon_s: H, how far it looks ahead; at least `LOOK_AHEAD_STEP_S`.
        max_wait_s: D, the longest wait in the queue that it accepts, >= 0.
        call: the range of rates; targets are clipped to it.

    Raises:
        ConfigError: one of them is out of range.
    """

    action_mode: ActionMode = "rate"

    def __init__(
        self,
        *,
        headroom_ratio: float = DEFAULT_HEADROOM_RATIO,
        horizon_s: float = DEFAULT_HORIZON_S,
        max_wait_s: float = DEFAULT_MAX_WAIT_S,
        call: CallConfig,
    ) -> None:
        if not LOOK_AHEAD_STEP_S <= horizon_s <= 60.0:
            raise ConfigError(
                f"an oracle's horizon_s={horizon_s:g} must be between {LOOK_AHEAD_STEP_S:g} and 60 "
                f"s; {DEFAULT_HORIZON_S:g} is the default."
            )
        if not 0.0 <= max_wait_s <= 10.0:
            raise ConfigError(
                f"an oracle's max_wait_s={max_wait_s:g} must be between 0 and 10 s; "
                f"{DEFAULT_MAX_WAIT_S:g} is the default."
            )
        self.headroom_ratio = check_headroom(headroom_ratio)
        self._after_s = LOOK_AHEAD_STEP_S * np.arange(1, round(horizon_s / LOOK_AHEAD_STEP_S) + 1)
        self._max_wait_s = max_wait_s
        self._min_rate_bps = call.min_rate_bps
        self._max_rate_bps = call.max_rate_bps

    def reset(self, num_envs: int) -> None:
        """Nothing to forget."""

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        """Actions of shape (calls, 1) from what each call's link will carry and what it holds."""
        rate_bps = np.clip(
            self.headroom_ratio * self.largest_rate_bps(truth),
            self._min_rate_bps,
            self._max_rate_bps,
        )
        action = rate_to_action(rate_bps, self._min_rate_bps, self._max_rate_bps)
        return np.asarray(action, dtype=np.float32).reshape(-1, 1)

    def largest_rate_bps(self, truth: GroundTruth) -> NDArray[np.float64]:
        """What fits, shape (calls,); below 0 where the queue alone will wait too long."""
        carried_bits = truth.future_capacity_bits(self._after_s + self._max_wait_s)
        queued_bits = BITS_PER_BYTE * truth.queued_bytes[:, None]
        return np.asarray(((carried_bits - queued_bits) / self._after_s).min(axis=1))
