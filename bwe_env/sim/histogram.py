"""Which bin of a delay histogram a packet falls into; the compiled half of `bwe_env.metrics`."""

from __future__ import annotations

import numpy as np

from bwe_env.metrics import DELAY_BINS, DELAY_BINS_PER_OCTAVE
from bwe_env.sim._jit import kernel
from bwe_env.units import US_PER_MS


@kernel
def delay_bin(delay_us: int) -> int:
    """Bin of a delay, 0 to ``DELAY_BINS - 1`` (see `bwe_env.metrics.delay_bin_edges_ms`).

    No logarithm: the octave is the position of the highest bit of the whole milliseconds, and it is
    cut into equal parts.
    """
    if delay_us < US_PER_MS:  # bin 1 begins at 1 ms
        return 0
    bits = delay_us // US_PER_MS
    octave = 0
    while bits >= 16:
        bits >>= 4
        octave += 4
    while bits >= 2:
        bits >>= 1
        octave += 1
    part = (DELAY_BINS_PER_OCTAVE * delay_us // US_PER_MS >> octave) - DELAY_BINS_PER_OCTAVE
    return min(DELAY_BINS - 1, 1 + octave * DELAY_BINS_PER_OCTAVE + part)


@kernel
def histogram_add(counts: np.ndarray, delay_us: int) -> None:
    """Count one delay.

    Args:
        counts: shape (DELAY_BINS,), any integer type.
    """
    counts[delay_bin(delay_us)] += 1
