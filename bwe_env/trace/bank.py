"""`TraceBank`: many traces in flat arrays, as the compiled core reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import TraceFormatError
from bwe_env.trace.trace import Trace


class TraceBank(NamedTuple):
    """Segments of all traces one after another; row `i` owns ``offset[i]:offset[i + 1]``."""

    offset: NDArray[np.int64]  # shape (n + 1,), first segment of each row, then the total
    start_us: NDArray[np.int64]  # shape (total,), since the beginning of the row's trace
    duration_us: NDArray[np.int64]  # shape (total,), > 0
    capacity_bps: NDArray[np.float64]  # shape (total,), >= 0; each row has one > 0
    period_us: NDArray[np.int64]  # shape (n,), after which the row's trace repeats


def build_bank(traces: Sequence[Trace]) -> TraceBank:
    """Copy traces into one bank, in order. Names may repeat here: rows are found by number."""
    if not traces:
        raise TraceFormatError("a trace bank needs at least one trace, got none.")
    lengths = np.array([len(trace) for trace in traces], dtype=np.int64)
    return TraceBank(
        offset=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
        start_us=np.concatenate([trace.start_us for trace in traces]),
        duration_us=np.concatenate([trace.duration_us for trace in traces]),
        capacity_bps=np.concatenate([trace.capacity_bps for trace in traces]),
        period_us=np.array([trace.period_us for trace in traces], dtype=np.int64),
    )
