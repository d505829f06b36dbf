"""A relay between the endpoints (TURN, a media server): one more hop in both directions.

Forward it lies behind the bottleneck and what is lost there; reverse, before the sender's own path.
Each hop has its own delay, jitter, loss and outage. What a hop takes counts as random loss.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import NEVER, Record, kernel, record
from bwe_env.sim.path import PATH, path_arrival_us, path_loses, path_reset
from bwe_env.sim.rng import (
    STREAM_RELAY_FORWARD_JITTER,
    STREAM_RELAY_FORWARD_LOSS,
    STREAM_RELAY_REVERSE_JITTER,
    STREAM_RELAY_REVERSE_LOSS,
)

RELAY = record(
    [
        ("forward", PATH),
        ("reverse", PATH),
        ("is_used", "i8"),  # 0: the endpoints talk directly
    ]
)


@kernel
def relay_reset(relay: Record) -> None:
    """Nothing has come through yet."""
    path_reset(relay.forward)
    path_reset(relay.reverse)


@kernel
def _hop_us(hop: Record, key: np.uint64, loss_stream: int, jitter_stream: int, at_us: int) -> int:
    if path_loses(hop, key, loss_stream, at_us):
        return NEVER
    return path_arrival_us(hop, key, jitter_stream, at_us)


@kernel
def relay_forward_us(relay: Record, key: np.uint64, at_us: int) -> int:
    """When a packet that reaches the relay at `at_us` reaches the receiver; NEVER if lost."""
    if relay.is_used == 0:
        return at_us
    return _hop_us(
        relay.forward, key, STREAM_RELAY_FORWARD_LOSS, STREAM_RELAY_FORWARD_JITTER, at_us
    )


@kernel
def relay_reverse_us(relay: Record, key: np.uint64, at_us: int) -> int:
    """When a message that reaches the relay at `at_us` reaches the sender; NEVER if lost."""
    if relay.is_used == 0:
        return at_us
    return _hop_us(
        relay.reverse, key, STREAM_RELAY_REVERSE_LOSS, STREAM_RELAY_REVERSE_JITTER, at_us
    )
