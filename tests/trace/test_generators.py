"""Drawn capacities are what they are called."""

from __future__ import annotations

import pytest

from bwe_env.errors import TraceFormatError
from bwe_env.trace import constant, square, step


def test_constant_never_changes() -> None:
    trace = constant(2e6, duration_s=10.0)
    assert len(trace) == 1
    assert trace.duration_s == 10.0
    assert [trace.capacity_at(t) for t in (0.0, 9.999999, 10.0, 123.4)] == [2e6] * 4
    assert trace.name == "constant-2000k"
    assert trace.network_type == "pattern"


def test_step_changes_once_at_its_time_and_again_in_the_next_round() -> None:
    trace = step(2e6, 5e5, at_s=20.0, duration_s=60.0)
    assert trace.capacity_at(19.999999) == 2e6
    assert trace.capacity_at(20.0) == trace.capacity_at(59.999999) == 5e5
    assert trace.capacity_at(60.0) == 2e6
    assert trace.duration_s == 60.0


def test_square_holds_each_capacity_for_half_a_period() -> None:
    trace = square(5e5, 1e5, half_period_s=30.0)
    assert [trace.capacity_at(t) for t in (0, 29.999999, 30, 59.999999, 60)] == [
        5e5,
        5e5,
        1e5,
        1e5,
        5e5,
    ]
    assert trace.mean_bps == 3e5


def test_names_tell_the_numbers_and_can_be_given() -> None:
    assert step(2e6, 5e5).name == "step-2000k-500k-at-30s"
    assert square(5e5, 1e5).name == "square-500k-100k-every-30s"
    assert square(5e5, 1e5, name="alternating").name == "alternating"


def test_square_with_an_outage_is_allowed_and_nothing_but_outage_is_not() -> None:
    assert square(1e6, 0.0).capacity_at(45.0) == 0.0
    with pytest.raises(TraceFormatError, match="capacity is 0 everywhere"):
        constant(0.0)


@pytest.mark.parametrize("at_s", [0.0, 60.0, 61.0, -1.0])
def test_a_step_outside_its_trace_is_refused(at_s: float) -> None:
    with pytest.raises(TraceFormatError, match=r"at_s=.* between 0 and duration_s=60"):
        step(1e6, 2e6, at_s=at_s, duration_s=60.0)


@pytest.mark.parametrize("duration_s", [0.0, -5.0, float("nan")])
def test_a_pattern_without_length_is_refused(duration_s: float) -> None:
    with pytest.raises(TraceFormatError, match="does not follow"):
        constant(1e6, duration_s=duration_s)
