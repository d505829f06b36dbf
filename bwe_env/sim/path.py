"""One direction beside the bottleneck: random loss, outages, propagation and jitter."""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.delay import DELAY, delay_arrival_us, delay_reset
from bwe_env.sim.loss import LOSS, loss_reset, loss_strikes

OUTAGE = record(
    [
        ("from_us", "i8"),
        ("until_us", "i8"),
        ("keeps", "i8"),  # 1: what enters meanwhile is delivered at its end
    ]
)

PATH = record(
    [
        ("delay", DELAY),
        ("loss", LOSS),
        ("loss_from_us", "i8"),
        ("loss_until_us", "i8"),  # NEVER for a loss that does not end
        ("outage", OUTAGE),
    ]
)


@kernel
def path_reset(path: Record) -> None:
    """Nothing has been offered yet."""
    delay_reset(path.delay)
    loss_reset(path.loss)


@kernel
def path_is_out(path: Record, now_us: int) -> bool:
    """Whether nothing gets through now."""
    return bool(path.outage.from_us <= now_us < path.outage.until_us)


@kernel
def path_loses(path: Record, key: np.uint64, loss_stream: int, now_us: int) -> bool:
    """Whether chance or an outage takes what enters now."""
    is_struck = loss_strikes(path.loss, key, loss_stream)
    if is_struck and path.loss_from_us <= now_us < path.loss_until_us:
        return True
    return bool(path.outage.keeps == 0 and path_is_out(path, now_us))


@kernel
def path_arrival_us(path: Record, key: np.uint64, jitter_stream: int, now_us: int) -> int:
    """When something that enters now and is not lost arrives."""
    if path_is_out(path, now_us):
        now_us = path.outage.until_us
    return delay_arrival_us(path.delay, key, jitter_stream, now_us)
