"""Random loss: the two-state Gilbert-Elliott chain, with i.i.d. loss as its one-state case.

E. N. Gilbert, "Capacity of a burst-noise channel", BSTJ 1960; E. O. Elliott, BSTJ 1963. The chain
steps once per packet offered, lost or not, so that a packet's fate depends only on its number.
"""

from __future__ import annotations

import numpy as np

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.rng import uniform

LOSS = record(
    [
        ("good_loss", "f8"),
        ("bad_loss", "f8"),
        ("good_to_bad", "f8"),
        ("bad_to_good", "f8"),
        ("counter", "i8"),  # packets offered so far
        ("is_bad", "i1"),
    ]
)


@kernel
def loss_reset(loss: Record) -> None:
    """Start in the good state with a fresh random stream."""
    loss.counter = 0
    loss.is_bad = 0


@kernel
def loss_strikes(loss: Record, key: np.uint64, stream: int) -> bool:
    """Step the chain for one packet and say whether it is lost."""
    counter = loss.counter
    loss.counter = counter + 1
    if loss.good_to_bad > 0.0:
        leave = loss.bad_to_good if loss.is_bad else loss.good_to_bad
        if uniform(key, stream, 2 * counter) < leave:
            loss.is_bad = 1 - loss.is_bad
    chance = loss.bad_loss if loss.is_bad else loss.good_loss
    if chance <= 0.0:
        return False
    return uniform(key, stream, 2 * counter + 1) < chance
