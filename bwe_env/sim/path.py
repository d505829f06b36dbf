"""One direction beside the bottleneck: random loss, propagation and jitter."""

from __future__ import annotations

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.delay import DELAY, delay_reset
from bwe_env.sim.loss import LOSS, loss_reset

PATH = record([("delay", DELAY), ("loss", LOSS)])


@kernel
def path_reset(path: Record) -> None:
    """Nothing has been offered yet."""
    delay_reset(path.delay)
    loss_reset(path.loss)
