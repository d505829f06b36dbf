"""The bank holds exactly the traces it was built from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.errors import TraceFormatError
from bwe_env.trace import Trace, build_bank

TRACES = st.lists(
    st.lists(st.tuples(st.integers(1, 10**9), st.floats(1.0, 1e12)), min_size=1, max_size=12).map(
        lambda segments: Trace(
            "t",
            "pattern",
            "test",
            np.array([duration for duration, _ in segments]),
            np.array([capacity for _, capacity in segments]),
        )
    ),
    min_size=1,
    max_size=6,
)


@given(TRACES)
def test_every_trace_comes_out_of_the_bank_as_it_went_in(traces: list[Trace]) -> None:
    bank = build_bank(traces)
    assert len(bank.offset) == len(traces) + 1
    assert bank.offset[-1] == len(bank.capacity_bps) == sum(len(trace) for trace in traces)
    for row, trace in enumerate(traces):
        own = slice(bank.offset[row], bank.offset[row + 1])
        again = Trace("t", "pattern", "test", bank.duration_us[own], bank.capacity_bps[own])
        assert again == trace
        assert np.array_equal(bank.start_us[own], trace.start_us)
        assert bank.period_us[row] == trace.period_us
        ends = bank.start_us[own] + bank.duration_us[own]
        assert np.array_equal(ends, np.append(bank.start_us[own][1:], trace.period_us))


@given(TRACES)
def test_a_bank_is_of_the_types_that_the_compiled_core_expects(traces: list[Trace]) -> None:
    for name, array in build_bank(traces)._asdict().items():
        assert array.dtype == (np.float64 if name == "capacity_bps" else np.int64)
        assert array.flags.c_contiguous
        assert array.flags.writeable  # numba compiles again for read-only arrays


def test_an_empty_bank_is_refused() -> None:
    with pytest.raises(TraceFormatError, match="needs at least one trace, got none"):
        build_bank([])
