"""Integrals of a periodic, piecewise-constant capacity, by hand and against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.sim.capacity import (
    CURSOR,
    SEGMENT,
    capacity_bits,
    cursor_reset,
    cursor_seek,
    serve_until_us,
)
from tests.reference.naive_link import NaiveCapacity


def segments_of(durations_us: list[int], rates_bps: list[float]) -> Any:
    segments = np.zeros(len(durations_us), SEGMENT)
    segments["duration_us"] = durations_us
    segments["start_us"] = np.cumsum(durations_us) - durations_us
    segments["capacity_bps"] = rates_bps
    return segments


def cursor_at(segments: Any, start_us: int) -> Any:
    """A cursor whose time 0 is `start_us` into the trace."""
    cursor = np.zeros(1, CURSOR)[0]
    cursor_reset(cursor, segments, 0, len(segments) - 1, start_us, 1.0)
    return cursor


#: 10 ms at 1 Mbps, 20 ms of outage, 30 ms at 2 Mbps: 70,000 bits in each period of 60 ms.
STEPS = segments_of([10_000, 20_000, 30_000], [1e6, 0.0, 2e6])


def test_bits_are_counted_across_changes_and_the_end_of_the_period() -> None:
    cursor = cursor_at(STEPS, 0)
    assert capacity_bits(cursor, STEPS, 0, 5_000) == pytest.approx(5_000)
    assert capacity_bits(cursor, STEPS, 5_000, 35_000) == pytest.approx(5_000 + 2 * 5_000)
    # 25 ms at 2, a period and 10 ms at 1.
    assert capacity_bits(cursor, STEPS, 35_000, 130_000) == pytest.approx(50_000 + 70_000 + 10_000)


def test_service_waits_through_an_outage_and_goes_on_in_the_next_period() -> None:
    # From 4 ms: 6,000 bits by 10 ms, nothing until 30 ms, then 2 bits per microsecond.
    assert serve_until_us(cursor_at(STEPS, 0), STEPS, 4_000.0, 6_000.0) == pytest.approx(10_000)
    assert serve_until_us(cursor_at(STEPS, 0), STEPS, 4_000.0, 8_000.0) == pytest.approx(31_000)
    # Nine whole periods of 70,000 bits from 4 ms on, and 1,000 bits more at 1 Mbps.
    until_us = serve_until_us(cursor_at(STEPS, 0), STEPS, 4_000.0, 9 * 70_000.0 + 1_000.0)
    assert until_us == pytest.approx(4_000 + 9 * 60_000 + 1_000)


def test_a_start_within_the_trace_moves_everything_and_wraps() -> None:
    for start_us in (35_000, 35_000 + 60_000, 35_000 + 7 * 60_000):
        cursor = cursor_at(STEPS, start_us)
        assert cursor_seek(cursor, STEPS, 0.0) == 2e6
        assert cursor_seek(cursor, STEPS, 24_999.0) == 2e6
        assert cursor_seek(cursor, STEPS, 25_000.0) == 1e6
        assert cursor_seek(cursor, STEPS, 35_000.0) == 0.0
        until_us = serve_until_us(cursor_at(STEPS, start_us), STEPS, 0.0, 50_500.0)
        assert until_us == pytest.approx(25_500)


segment_lists = st.lists(
    st.tuples(
        st.integers(500, 200_000),
        st.one_of(st.just(0.0), st.floats(1e4, 1e8)),
    ),
    min_size=1,
    max_size=8,
).filter(lambda segments: any(rate > 0.0 for _, rate in segments))


@given(
    segment_lists,
    st.integers(0, 10**6),
    st.lists(st.integers(0, 300_000), min_size=1, max_size=6),
)
def test_bits_agree_with_exact_fractions(
    pieces: list[tuple[int, float]], start_us: int, gaps_us: list[int]
) -> None:
    durations, rates = [d for d, _ in pieces], [r for _, r in pieces]
    segments = segments_of(durations, rates)
    cursor, exact = cursor_at(segments, start_us), NaiveCapacity(durations, rates, start_us)
    now_us = 0
    for gap_us in gaps_us:
        bits = capacity_bits(cursor, segments, now_us, now_us + gap_us)
        # Rounding of a few hundred sums of doubles.
        assert bits == pytest.approx(float(exact.bits(now_us, now_us + gap_us)), rel=1e-9, abs=1e-6)
        now_us += gap_us


@given(
    segment_lists,
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 50_000), st.integers(1, 1500)), min_size=1, max_size=6),
)
def test_service_ends_agree_with_exact_fractions(
    pieces: list[tuple[int, float]], start_us: int, packets: list[tuple[int, int]]
) -> None:
    durations, rates = [d for d, _ in pieces], [r for _, r in pieces]
    segments = segments_of(durations, rates)
    cursor, exact = cursor_at(segments, start_us), NaiveCapacity(durations, rates, start_us)
    free_us, exactly_us = 0.0, Fraction(0)
    for gap_us, size_bytes in packets:
        exactly_us = exact.served_us(exactly_us + gap_us, 8 * size_bytes)
        free_us = serve_until_us(cursor, segments, free_us + gap_us, 8.0 * size_bytes)
        # A rounding error of 1e-10 bits can cross an outage only if the bits end at its edge.
        if free_us != pytest.approx(float(exactly_us), rel=1e-12, abs=1e-3):
            assert exact.bits(*sorted([round(free_us), round(exactly_us)])) < 1e-3
            exactly_us = Fraction(free_us)
