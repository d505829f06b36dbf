"""The one door: how anything that sets the rate meets the simulator, a log, or a socket.

A `BandwidthEstimator` does no I/O: time is an argument, the decision is the return value. It is
asked at every feedback report and whenever its own timer is due. A `RatePolicy` decides once per
interval for a whole batch of calls, from observations, as a learned policy does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bwe_env.action import ActionMode
from bwe_env.errors import ActionError
from bwe_env.feedback import FeedbackReport, SentPacket

if TYPE_CHECKING:
    from bwe_env.truth import GroundTruth

#: `next_timeout_us` of an estimator that wants no timer.
NO_TIMEOUT_US = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class RateDecision:
    """What a sender may do from now on; given the target alone, the rest follows as in GCC."""

    target_rate_bps: float
    """for everything on the wire; clipped to the call's minimum and maximum"""
    pacing_rate_bps: float = 0.0
    """0: the target times the pacing factor"""
    padding_rate_bps: float = 0.0
    """0: no padding"""
    cwnd_bytes: int = 0
    """0: no congestion window"""

    def __post_init__(self) -> None:
        for name in ("target_rate_bps", "pacing_rate_bps", "padding_rate_bps", "cwnd_bytes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ActionError(f"RateDecision.{name}={value!r} must be finite and >= 0.")


@runtime_checkable
class BandwidthEstimator(Protocol):
    """Sender-side by default; an attribute ``side = "receiver"`` moves it to the other end.

    A receiver-side estimator gets a report of its own arrivals every `interval_s` (attribute,
    default 0.1), and its decision crosses the reverse path, with which it may be lost.
    """

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """A packet was handed to the network (sender-side only)."""

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """A report has arrived."""

    def on_timeout(self, now_us: int) -> RateDecision:
        """`next_timeout_us` has come."""

    def next_timeout_us(self) -> int:
        """When to call `on_timeout`; `NO_TIMEOUT_US` for never."""


#: Makes a fresh estimator for each call.
EstimatorFactory = Callable[[], BandwidthEstimator]


class RatePolicy(Protocol):
    """Decides once per interval for many calls at once."""

    action_mode: ActionMode

    def reset(self, num_envs: int) -> None:
        """Forget everything; `num_envs` calls begin."""

    def act(self, observation: NDArray[np.float32], truth: GroundTruth) -> NDArray[np.float32]:
        """Actions in the environment's action space.

        Args:
            observation: shape (num_envs, size), as the environment gives it.
            truth: of this moment, for oracles only.

        Returns:
            Shape (num_envs, 1), or (num_envs, number of parameters) in mode "config"; in [-1, 1].
        """
