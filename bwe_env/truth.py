"""What the simulator knows and no estimator can: for oracles, which bound what may be hoped for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bwe_env.sim.state import World


class GroundTruth:
    """The state of a batch of calls at the moment of a decision; nothing is worked out unasked.

    Args:
        world: the calls. What is read describes them as they are when it is read.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def capacity_bps(self) -> NDArray[np.float64]:
        """Capacity of each call's bottleneck now, shape (num_envs,)."""
        return self._world.present_capacity_bps()
