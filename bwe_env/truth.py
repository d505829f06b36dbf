"""What the simulator knows and no estimator can: for oracles, which bound what may be hoped for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bwe_env.units import US_PER_S, us_to_s

if TYPE_CHECKING:
    from bwe_env.sim.state import World


class _Integral(NamedTuple):
    """The capacity of all traces, one behind the other, integrated from the first one's start."""

    edge_us: NDArray[np.float64]
    """where segments begin, and where the last one ends, shape (segments + 1,)"""
    bits: NDArray[np.float64]
    """the integral up to there, unscaled, same shape; linear in between"""


class GroundTruth:
    """The state of a batch of calls at the moment of a decision; nothing is worked out unasked.

    Args:
        world: the calls. What is read describes them as they are when it is read.
        envs: which of them, once for each flow that is asked about; all by default.
    """

    def __init__(self, world: World, envs: NDArray[np.int64] | None = None) -> None:
        self._world = world
        self._envs = envs

    @property
    def capacity_bps(self) -> NDArray[np.float64]:
        """Capacity of each call's bottleneck now, shape (num_envs,)."""
        return self._of_envs(self._world.present_capacity_bps())

    @property
    def queued_bytes(self) -> NDArray[np.int64]:
        """What each bottleneck holds now, shape (num_envs,): of all flows, the packet in service
        included in full.
        """
        return self._of_envs(np.array(self._world.calls["link"]["queue_bytes"]))

    def future_capacity_bits(self, after_s: ArrayLike) -> NDArray[np.float64]:
        """What each bottleneck can carry from now on: integral of its capacity, trace repeated.

        Args:
            after_s: times from now, >= 0, shape (n,).

        Returns:
            Bits from now until each of them, shape (num_envs, n). Exact but for rounding: the
            capacity is piecewise constant, so its integral is interpolated without error.
        """
        after_us = US_PER_S * np.asarray(after_s, dtype=np.float64)
        self._world.present_capacity_bps()  # so that the cursors stand at the present
        link = self._world.calls["link"]
        cursor = link["present"]
        edge_us, bits = self._integral
        first, end, segment = cursor["first"], cursor["last"] + 1, cursor["segment"]
        now_us = edge_us[segment + 1] - (cursor["end_us"] - self._world.calls["now_us"])
        period_us = edge_us[end] - edge_us[first]
        rounds, left_us = np.divmod(
            (now_us - edge_us[first])[:, None] + after_us, period_us[:, None]
        )
        until_bits = np.interp(edge_us[first][:, None] + left_us, edge_us, bits)
        unscaled = until_bits + rounds * (bits[end] - bits[first])[:, None]
        unscaled -= np.interp(now_us, edge_us, bits)[:, None]
        return self._of_envs(unscaled * cursor["scale"][:, None])

    def _of_envs(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._envs is None else values[self._envs]

    @cached_property
    def _integral(self) -> _Integral:
        durations_us = self._world.segments["duration_us"].astype(np.float64)
        carried_bits = us_to_s(1.0) * durations_us * self._world.segments["capacity_bps"]
        return _Integral(
            edge_us=np.concatenate([[0.0], np.cumsum(durations_us)]),
            bits=np.concatenate([[0.0], np.cumsum(carried_bits)]),
        )
