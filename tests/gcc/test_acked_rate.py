"""The acknowledged rate: robust (against a naive twin) and classic (by hand)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.gcc.bitrate_estimator import (
    BITRATE_ESTIMATOR,
    bitrate_add,
    bitrate_rate_bps,
    bitrate_reset,
)
from bwe_env.gcc.rates import NO_RATE
from bwe_env.gcc.robust_throughput import (
    THROUGHPUT,
    throughput_add,
    throughput_rate_bps,
    throughput_reset,
    throughput_trim,
)
from tests.gcc.records import parameters

P = parameters()
MS = 1000


class NaiveThroughput:
    """The estimator as libwebrtc writes it: a list, sorted and scanned at every report."""

    def __init__(self) -> None:
        self.window: list[tuple[int, int, int]] = []  # arrival, send, size
        self.discarded_send_us = -(1 << 60)

    def report(self, packets: list[tuple[int, int, int]]) -> int:
        for packet in packets:
            self.window.append(packet)
            i = len(self.window) - 1
            while i > 0 and self.window[i][0] < self.window[i - 1][0]:
                self.window[i], self.window[i - 1] = self.window[i - 1], self.window[i]
                i -= 1
            if self.window[-1][0] - packet[0] > 1_000_000:
                self.window.clear()
        while self.is_oldest_outside():
            self.discarded_send_us = max(self.discarded_send_us, self.window[0][1])
            self.window.pop(0)
        return self.rate_bps()

    def is_oldest_outside(self) -> bool:
        if not self.window:
            return False
        span_us = self.window[-1][0] - self.window[0][0]
        count = len(self.window)
        return count > 500 or span_us > 5_000_000 or (count > 20 and span_us > 1_000_000)

    def rate_bps(self) -> int:
        if len(self.window) < 10:
            return NO_RATE
        arrivals = [packet[0] for packet in self.window]
        gaps = sorted(b - a for a, b in pairwise(arrivals))
        receive_us = max(arrivals[-1] - arrivals[0] - gaps[-1] + gaps[-2], 1_000)
        received = sum(packet[2] for packet in self.window[1:])
        receive_rate_bps = received * 8_000_000 // receive_us
        sent = [packet for packet in self.window if packet[1] >= self.discarded_send_us]
        if len(sent) < 10:
            return receive_rate_bps
        sends = [packet[1] for packet in sent]
        last_bytes = sent[sends.index(max(sends))][2]
        send_us = max(max(sends) - min(sends), 1_000)
        return min((sum(s[2] for s in sent) - last_bytes) * 8_000_000 // send_us, receive_rate_bps)


@pytest.fixture
def robust() -> Any:
    return new_robust()


def new_robust() -> Any:
    row = np.zeros(1, THROUGHPUT)[0]
    throughput_reset(row)
    return row


def report(robust: Any, packets: list[tuple[int, int, int]], p: Any = P) -> int:
    for arrival_us, send_us, size_bytes in packets:
        throughput_add(robust, p, arrival_us, send_us, size_bytes)
    throughput_trim(robust, p)
    return int(throughput_rate_bps(robust, p))


def stream(first: int, count: int, *, interval_us: int = 10 * MS) -> list[tuple[int, int, int]]:
    times = [i * interval_us for i in range(first, first + count)]
    return [(t + 20 * MS, t, 1200) for t in times]


def test_a_rate_needs_10_packets(robust: Any) -> None:
    assert report(robust, stream(0, 9)) == NO_RATE
    assert report(robust, stream(9, 1)) == 9 * 1200 * 8 * 100 // 9


def test_a_steady_stream_has_its_rate(robust: Any) -> None:
    for i in range(100):
        rate_bps = report(robust, stream(5 * i, 5))
    assert rate_bps == 1200 * 8 * 100


def test_the_window_keeps_one_second_but_never_less_than_20_packets(robust: Any) -> None:
    report(robust, stream(0, 300))
    assert robust.end - robust.first == 101  # a span of exactly 1 s
    slow = new_robust()
    report(slow, stream(0, 60, interval_us=200 * MS))
    assert slow.end - slow.first == 20


def test_the_window_never_spans_more_than_5_s(robust: Any) -> None:
    report(robust, stream(0, 60, interval_us=1_000 * MS))
    assert robust.end - robust.first == 6


def test_one_long_silence_does_not_lower_the_rate(robust: Any) -> None:
    report(robust, stream(0, 50))
    packets = [(t + 400 * MS, send, size) for t, send, size in stream(50, 50)]
    # The gap of 410 ms is cut down to the second largest, 10 ms.
    assert report(robust, packets) == 1200 * 8 * 100


def test_the_rate_is_never_above_the_rate_of_sending(robust: Any) -> None:
    burst = [(1_000_000 + i * MS, i * 10 * MS, 1200) for i in range(100)]
    assert report(robust, burst) == 1200 * 8 * 100


def test_a_report_of_more_packets_than_the_ring_holds_keeps_the_newest_500(robust: Any) -> None:
    packets = stream(0, 2_000, interval_us=MS)
    assert report(robust, packets) == NaiveThroughput().report(packets)
    assert robust.end - robust.first == 500


reports = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 40),  # ms since the packet before was sent
            st.integers(20, 400),  # ms under way
            st.integers(40, 1500),  # bytes
        ),
        max_size=40,
    ),
    max_size=40,
)


@given(reports=reports, jitter=st.sampled_from(["none", "ordered", "free", "wild"]))
@settings(max_examples=100, deadline=None)
def test_the_incremental_rate_is_that_of_the_naive_scan(
    reports: list[list[tuple[int, int, int]]], jitter: str
) -> None:
    robust, naive = new_robust(), NaiveThroughput()
    now_us, newest_us = 0, 0
    for steps in reports:
        packets = []
        for step_ms, delay_ms, size_bytes in steps:
            now_us += step_ms * MS
            delay_ms = {"none": 20, "wild": 6 * delay_ms}.get(jitter, delay_ms)
            arrival_us = now_us + delay_ms * MS
            if jitter == "ordered":
                arrival_us = max(arrival_us, newest_us)
            newest_us = max(newest_us, arrival_us)
            packets.append((arrival_us, now_us, size_bytes))
        packets.sort()
        assert report(robust, packets) == naive.report(packets)


def test_packets_that_arrived_more_than_a_second_before_the_newest_empty_the_window(
    robust: Any,
) -> None:
    report(robust, stream(200, 50))
    assert report(robust, stream(0, 5)) == NO_RATE
    assert robust.end - robust.first == 4  # the first of the five was thrown out with the rest


@pytest.fixture
def classic() -> Any:
    row = np.zeros(1, BITRATE_ESTIMATOR)[0]
    bitrate_reset(row, P)
    return row


def add(classic: Any, arrival_ms: int, size_bytes: int) -> int:
    bitrate_add(classic, P, arrival_ms * MS, (arrival_ms - 20) * MS, size_bytes)
    return int(bitrate_rate_bps(classic))


def test_the_first_classic_estimate_is_the_rate_of_the_first_half_second(classic: Any) -> None:
    for i in range(50):
        assert add(classic, 1000 + 10 * i, 1000) == NO_RATE
    assert add(classic, 1500, 1000) == 50 * 1000 * 8 * 2


def test_a_later_classic_sample_is_weighted_by_its_distance(classic: Any) -> None:
    for i in range(51):
        add(classic, 1000 + 10 * i, 1000)  # 800 kbps, and 1000 bytes into the next window
    for i in range(51, 65):
        add(classic, 1000 + 10 * i, 500)
    rate_bps = add(classic, 1650, 500)
    # Sample: 1000 + 14 * 500 bytes in 150 ms = 426.67 kbps; uncertainty 10 * 373.33 / 800 = 4.667.
    variance, sample_variance = 50.0 + 5.0, (10 * (800 - 1280 / 3) / 800) ** 2
    expected = (sample_variance * 800 + variance * 1280 / 3) / (sample_variance + variance)
    assert rate_bps == pytest.approx(1000 * expected, rel=1e-5)  # single precision


def test_after_an_application_limited_phase_the_classic_estimate_may_change_fast(
    classic: Any,
) -> None:
    for i in range(51):
        add(classic, 1000 + 10 * i, 1000)
    classic.alr_ended_us = 1_500 * MS
    add(classic, 1520, 0)  # sent at 1500: not after the end
    assert classic.variance == 50.0
    add(classic, 1530, 0)
    assert classic.variance == 250.0
