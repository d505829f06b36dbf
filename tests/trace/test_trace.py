"""A trace is a periodic, piecewise-constant capacity, and refuses to be anything else."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.errors import TraceFormatError, UnknownNameError
from bwe_env.trace import Trace

#: Up to 20 segments of at most a minute; whole microseconds and bps, so that sums are exact.
SEGMENTS = st.lists(
    st.tuples(st.integers(1, 60_000_000), st.integers(0, 10_000_000)), min_size=1, max_size=20
).filter(lambda segments: any(capacity for _, capacity in segments))


def trace_of(segments: list[tuple[int, int]], **changes: object) -> Trace:
    duration_us, capacity_bps = zip(*segments, strict=True)
    values = {
        "name": "t",
        "network_type": "pattern",
        "source": "test",
        "duration_us": np.array(duration_us),
        "capacity_bps": np.array(capacity_bps, dtype=float),
    }
    return Trace(**(values | changes))  # type: ignore[arg-type]


@given(SEGMENTS, st.integers(-3, 3), st.integers(0, 10**9))
def test_capacity_repeats_with_the_period(
    segments: list[tuple[int, int]], rounds: int, microsecond: int
) -> None:
    trace = trace_of(segments)
    offset_us = microsecond % trace.period_us
    here = trace.capacity_at(offset_us / 1e6)
    assert trace.capacity_at((offset_us + rounds * trace.period_us) / 1e6) == here
    elapsed = 0
    for duration, capacity in segments:  # the segment that holds the offset, found by walking
        if elapsed <= offset_us < elapsed + duration:
            assert here == capacity
        elapsed += duration


@given(SEGMENTS)
def test_mean_is_the_integral_over_one_period_divided_by_it(
    segments: list[tuple[int, int]],
) -> None:
    trace = trace_of(segments)
    integral = sum(duration * capacity for duration, capacity in segments)
    period = sum(duration for duration, _ in segments)
    assert trace.period_us == period
    assert trace.duration_s == period / 1e6
    assert trace.mean_bps == pytest.approx(integral / period, rel=1e-12)


@given(SEGMENTS, st.floats(1.0, 100.0))
def test_scaling_multiplies_every_capacity_and_changes_no_time(
    segments: list[tuple[int, int]], factor: float
) -> None:
    trace = trace_of(segments)
    scaled = trace.scaled(factor, name="s")
    assert np.array_equal(scaled.capacity_bps, trace.capacity_bps * factor)
    assert np.array_equal(scaled.duration_us, trace.duration_us)
    assert scaled.name == "s"
    assert trace.scaled(2.0).name == trace.name


@given(SEGMENTS)
def test_from_points_undoes_writing_a_trace_as_points(segments: list[tuple[int, int]]) -> None:
    trace = trace_of(segments)
    again = Trace.from_points(
        trace.start_us / 1e6 + 1000.0,  # points may begin at any time
        trace.capacity_bps,
        name="t",
        network_type="pattern",
        source="test",
        end_s=trace.duration_s + 1000.0,
    )
    assert again == trace


@given(SEGMENTS)
def test_ratio_below_is_the_share_of_time_with_less_capacity(
    segments: list[tuple[int, int]],
) -> None:
    trace = trace_of(segments)
    below = sum(duration for duration, capacity in segments if capacity < 5_000_000)
    assert trace.ratio_below(5e6) == pytest.approx(below / trace.period_us, abs=1e-12)


def test_digest_follows_content_alone_and_equality_everything() -> None:
    trace = trace_of([(1000, 5), (2000, 7)])
    renamed = trace_of([(1000, 5), (2000, 7)], name="other")
    changed = trace_of([(1000, 5), (2000, 8)])
    assert trace.digest == renamed.digest != changed.digest
    assert len({trace, renamed, changed, trace_of([(1000, 5), (2000, 7)])}) == 3
    assert trace == trace_of([(1000, 5), (2000, 7)])
    assert trace != renamed
    assert trace != "t"
    assert pickle.loads(pickle.dumps(trace)) == trace


def test_a_trace_keeps_its_own_arrays_and_lets_nobody_write_them() -> None:
    duration_us = np.array([10, 20])
    trace = Trace("t", "pattern", "test", duration_us, np.array([1.0, 2.0]))
    duration_us[0] = 99
    assert trace.duration_us.tolist() == [10, 20]
    for array in (trace.duration_us, trace.capacity_bps, trace.start_us):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_the_last_point_lasts_as_long_as_the_median_one_unless_told() -> None:
    trace = Trace.from_points([0, 1, 3, 4], [1, 2, 3, 4], name="t", network_type="pattern")
    assert trace.duration_us.tolist() == [1_000_000, 2_000_000, 1_000_000, 1_000_000]


def test_rounding_of_times_does_not_add_up() -> None:
    times = np.arange(3000) / 3.0  # every step is 333333.3… us
    trace = Trace.from_points(times, np.ones(3000), name="t", network_type="pattern", end_s=1000.0)
    assert trace.period_us == 1_000_000_000
    assert set(trace.duration_us) == {333_333, 333_334}


@pytest.mark.parametrize(
    ("segments", "changes", "message"),
    [
        ([(0, 1)], {}, r"trace 't': segment 0 lasts 0 us; every duration must be > 0"),
        ([(5, 1), (-3, 1)], {}, r"segment 1 lasts -3 us; every duration must be > 0"),
        ([(5, 1), (5, -2)], {}, r"segment 1: capacity -2 bps is negative; an outage is written as"),
        ([(5, 0)], {}, r"capacity is 0 everywhere; no packet would ever arrive"),
        ([(5, 1)], {"capacity_bps": [np.nan]}, r"segment 0: capacity nan bps is not a finite"),
        ([(5, 1)], {"capacity_bps": [np.inf]}, r"segment 0: capacity inf bps is not a finite"),
        ([(5, 1)], {"capacity_bps": [2e12]}, r"capacity 2e\+12 bps is above 1e\+12.*Mend the unit"),
        ([(5, 1)], {"capacity_bps": [0.5]}, r"0\.5 bps is between 0 and 1.*outage is written as 0"),
        ([(5, 1)], {"capacity_bps": [1.0, 2.0]}, r"of one length, got shapes \(1,\) and \(2,\)"),
        ([(5, 1)], {"duration_us": [0.5]}, r"must hold integers \(microseconds\), got dtype float"),
        ([(5, 1)], {"duration_us": [], "capacity_bps": []}, r"no segments; give at least one"),
        ([(10**14, 1)], {}, r"lasts 1e\+08 s, over a year; are the times in another unit"),
    ],
)
def test_a_meaningless_trace_is_refused_with_the_value_and_the_remedy(
    segments: list[tuple[int, int]], changes: dict[str, object], message: str
) -> None:
    changes = {key: np.array(value) for key, value in changes.items()}
    with pytest.raises(TraceFormatError, match=message):
        trace_of(segments, **changes)


def test_an_unknown_network_type_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UnknownNameError, match="network type '4G-LTA'. Did you mean '4G-LTE'?"):
        trace_of([(5, 1)], network_type="4G-LTA")


@pytest.mark.parametrize(
    ("time_s", "end_s", "message"),
    [
        ([], None, "needs at least one point"),
        ([[0.0, 1.0]], None, "in one dimension"),
        ([0.0], None, "one point alone has no duration; give end_s"),
        ([0.0, np.nan], None, r"time_s\[1\]=nan is not a finite number"),
        ([0.0, 2.0, 1.0], 5.0, r"time_s\[2\]=1.0 does not follow time_s\[1\]=2.0. Sort the points"),
        ([0.0, 1e-9], 5.0, r"increase by at least 1 us; time_s\[1\]=1e-09"),
        ([0.0, 2.0], 2.0, r"end_s=2.0 does not follow time_s\[1\]=2.0"),
    ],
)
def test_points_that_do_not_follow_each_other_are_refused(
    time_s: list[float], end_s: float | None, message: str
) -> None:
    with pytest.raises(TraceFormatError, match=message):
        Trace.from_points(
            time_s, np.ones(len(time_s)), name="t", network_type="pattern", end_s=end_s
        )


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf])
def test_scaling_by_nothing_sensible_is_refused(factor: float) -> None:
    with pytest.raises(TraceFormatError, match="the factor must be finite and > 0"):
        trace_of([(5, 1)]).scaled(factor)
