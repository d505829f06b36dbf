"""Which bin of a delay histogram a packet falls into; the compiled half of `bwe_env.metrics`."""

from __future__ import annotations

import math

import numpy as np

from bwe_env.metrics import DELAY_BINS, DELAY_BINS_PER_OCTAVE
from bwe_env.sim._jit import kernel
from bwe_env.units import US_PER_MS


@kernel
def delay_bin(delay_us: int) -> int:
    """Bin of a delay, 0 to ``DELAY_BINS - 1`` (see `bwe_env.metrics.delay_bin_edges_ms`).

    No logarithm: a floating-point number carries its octave as the exponent, and the octave is cut
    into equal parts by the mantissa.
    """
    if delay_us < US_PER_MS:  # bin 1 begins at 1 ms
        return 0
    mantissa, exponent = math.frexp(delay_us / US_PER_MS)
    # mantissa in [0.5, 1): the octave [1, 2) ms has exponent 1.
    part = int(2 * DELAY_BINS_PER_OCTAVE * mantissa) - DELAY_BINS_PER_OCTAVE
    return min(DELAY_BINS - 1, 1 + (int(exponent) - 1) * DELAY_BINS_PER_OCTAVE + part)


@kernel
def histogram_add(counts: np.ndarray, delay_us: int) -> None:
    """Count one delay.

    Args:
        counts: shape (DELAY_BINS,), any integer type.
    """
    counts[delay_bin(delay_us)] += 1
