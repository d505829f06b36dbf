"""Random loss: the two-state Gilbert-Elliott chain (i.i.d. in one state), or losses replayed.

E. N. Gilbert, "Capacity of a burst-noise channel", BSTJ 1960; E. O. Elliott, BSTJ 1963. The chain
steps once per packet offered, lost or not, so that a packet's fate depends only on its number. A
replay says of each number whether it is lost.
"""

from __future__ import annotations

import numpy as np

from bwe_env.config import MAX_REPLAY_PACKETS
from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.rng import uniform

LOSS = record(
    [
        ("good_loss", "f8"),
        ("bad_loss", "f8"),
        ("good_to_bad", "f8"),
        ("bad_to_good", "f8"),
        ("counter", "i8"),  # packets offered so far
        ("replay_packets", "i8"),  # length of the replay; 0: the chain
        ("is_bad", "i1"),
        ("replay_bits", "u1", (MAX_REPLAY_PACKETS // 8,)),  # 1: lost; lowest bit first
    ]
)


@kernel
def loss_copy(target: Record, source: Record) -> None:
    """Take over another record's configuration."""
    target.good_loss = source.good_loss
    target.bad_loss = source.bad_loss
    target.good_to_bad = source.good_to_bad
    target.bad_to_good = source.bad_to_good
    target.replay_packets = source.replay_packets
    for byte in range((source.replay_packets + 7) // 8):
        target.replay_bits[byte] = source.replay_bits[byte]


@kernel
def loss_reset(loss: Record) -> None:
    """Start in the good state with a fresh random stream."""
    loss.counter = 0
    loss.is_bad = 0


@kernel
def loss_strikes(loss: Record, key: np.uint64, stream: int) -> bool:
    """Say of the next packet whether it is lost."""
    counter = loss.counter
    loss.counter = counter + 1
    if loss.replay_packets > 0:
        place = counter % loss.replay_packets
        return bool((int(loss.replay_bits[place >> 3]) >> (place & 7)) & 1)
    if loss.good_to_bad > 0.0:
        leave = loss.bad_to_good if loss.is_bad else loss.good_to_bad
        if uniform(key, stream, 2 * counter) < leave:
            loss.is_bad = 1 - loss.is_bad
    chance = loss.bad_loss if loss.is_bad else loss.good_loss
    if chance <= 0.0:
        return False
    return uniform(key, stream, 2 * counter + 1) < chance
