"""The reward of one decision interval: quality less freezes, delay, loss and rate change.

Every term is a rate per second in [0, 1] times its weight; the step's reward is their sum times the
interval. With weights that sum to at most 1 on the negative side, a second is worth between -1 and
+1, and a dropped call is charged -1 for every second it had left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bwe_env.errors import ConfigError
from bwe_env.sim._jit import kernel, record

#: Opinion scores run from 1 to 5.
_MOS_SPAN = 4.0

REWARD_WEIGHTS = record(
    [
        ("quality", "f8"),
        ("freeze", "f8"),
        ("delay", "f8"),
        ("loss", "f8"),
        ("rate_change", "f8"),
    ]
)


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Weights of the terms; each term is in [0, 1] per second."""

    quality: float = 1.0
    """(video MOS of the last second - 1) / 4, frozen time counting as MOS 1"""
    freeze: float = 0.25
    """share of the interval that is frozen, on top of its quality of 0"""
    delay: float = 0.5
    """E-model delay impairment in MOS / 2, at most 1: what the call score takes off, doubled"""
    loss: float = 0.15
    """share of the interval's packets lost, by queue or by chance"""
    rate_change: float = 0.1
    """|log2(target / previous target)|, at most 1"""

    def __post_init__(self) -> None:
        for name in ("quality", "freeze", "delay", "loss", "rate_change"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"reward.{name}={value!r} must be a weight between 0 and 1.")
        worst = self.freeze + self.delay + self.loss + self.rate_change
        if worst > 1.0 + 1e-9:
            raise ConfigError(
                f"reward weights of freeze, delay, loss and rate_change add up to {worst:g}; at "
                "most 1 keeps a second's reward above -1. Lower some of them."
            )

    def to_record(self) -> np.ndarray:
        """A `REWARD_WEIGHTS` array of shape (1,) for the compiled core."""
        row = np.zeros(1, dtype=REWARD_WEIGHTS)
        for name in REWARD_WEIGHTS.names or ():
            row[name] = getattr(self, name)
        return row


@kernel
def quality_term(video_mos: float) -> float:
    """Video MOS of the last second, mapped to [0, 1]."""
    return (video_mos - 1.0) / _MOS_SPAN


@kernel
def delay_term(delay_impairment_mos: float) -> float:
    """E-model impairment mapped to [0, 1]; 2 MOS is what about 500 ms cost."""
    return min(1.0, 0.5 * delay_impairment_mos)
