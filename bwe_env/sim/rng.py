"""Counter-based random numbers: a pure function of (key, stream, counter).

A call owns a 64-bit key; each source of chance (loss, jitter, frame sizes…) is a numbered stream
with its own counter in the flow's record. So thread count, batch size and the order in which calls
are advanced cannot change a number, and two controllers on the same network meet the same losses
for the same packet number. The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014), applied to the key and stream first and
to the counter second.
"""

from __future__ import annotations

import math

import numpy as np

from bwe_env.sim._jit import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30 = np.uint64(30)
_SHIFT_27 = np.uint64(27)
_SHIFT_31 = np.uint64(31)
_SHIFT_11 = np.uint64(11)
_TO_UNIT = 1.0 / (1 << 53)
_TWO_PI = 2.0 * math.pi

# Streams. Append only: a number is part of every recorded result.
STREAM_FORWARD_LOSS = 0
STREAM_FORWARD_JITTER = 1
STREAM_REVERSE_LOSS = 2
STREAM_REVERSE_JITTER = 3
STREAM_FRAME_SIZE = 4
STREAM_SCENE_CHANGE = 5
STREAM_START = 6
# The bottleneck's own block.
STREAM_QUEUE_DISCIPLINE = 16
STREAM_CAMERA_PHASE = 17  # of competing calls
STREAM_RELAY_FORWARD_LOSS = 18
STREAM_RELAY_FORWARD_JITTER = 19
STREAM_RELAY_REVERSE_LOSS = 20
STREAM_RELAY_REVERSE_JITTER = 21
STREAM_GRANTS = 22  # of the bottleneck
STREAM_CROSS_TRAFFIC = 24  # of the first source; the others follow
N_STREAMS = 40


@kernel
def mix64(value: np.uint64) -> np.uint64:
    """The SplitMix64 finaliser: a bijection of 64-bit words in which every bit depends on all."""
    z = value
    z = (z ^ (z >> _SHIFT_30)) * _MIX_1
    z = (z ^ (z >> _SHIFT_27)) * _MIX_2
    return z ^ (z >> _SHIFT_31)


@kernel
def uniform(key: np.uint64, stream: int, counter: int) -> float:
    """A uniform double in [0, 1) with 53 random bits."""
    base = mix64(np.uint64(key) + _GOLDEN * np.uint64(stream + 1))
    word = mix64(base + _GOLDEN * np.uint64(counter + 1))
    return float(word >> _SHIFT_11) * _TO_UNIT


@kernel
def normal(key: np.uint64, stream: int, counter: int) -> float:
    """A standard normal (Box-Muller); uses counters `2 * counter` and `2 * counter + 1`."""
    u = uniform(key, stream, 2 * counter)
    v = uniform(key, stream, 2 * counter + 1)
    return math.sqrt(-2.0 * math.log(1.0 - u)) * math.cos(_TWO_PI * v)
