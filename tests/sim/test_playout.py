"""The jitter buffer: when frames that can be decoded are shown."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bwe_env.config import CallConfig, JitterConfig, PathConfig, VideoConfig
from bwe_env.network import Network
from bwe_env.sim.jitter_estimator import (
    JITTER,
    jitter_delay_us,
    jitter_on_frame,
    jitter_on_late_frame,
    jitter_reset,
)
from bwe_env.sim.playout import PLAYOUT, playout_on_complete, playout_reset, playout_schedule
from bwe_env.trace import constant
from tests.sim.calls import SILENT, OneCall

INTERVAL_US = 33_333


def estimator() -> Any:
    jitter = np.zeros(1, JITTER)[0]
    jitter_reset(jitter)
    return jitter


def feed(jitter: Any, delays_us: np.ndarray, sizes: np.ndarray) -> None:
    for index, (delay_us, size) in enumerate(zip(delays_us, sizes, strict=True)):
        capture_us = index * INTERVAL_US
        jitter_on_frame(jitter, int(size), capture_us, capture_us + int(delay_us), 1.0)


# --- The estimate ---------------------------------------------------------------------------------


def test_without_jitter_a_frame_waits_for_the_system_and_a_millisecond() -> None:
    jitter = estimator()
    feed(jitter, np.full(300, 50_000), np.full(300, 5_000))
    # 10 ms of the system, the least noise of 1 ms, and nothing for size: all are alike.
    assert jitter_delay_us(jitter, 80_000, 0) == pytest.approx(11_000, abs=200)


def test_noise_counts_with_its_deviation_less_30_ms() -> None:
    jitter = estimator()
    noise_us = np.random.default_rng(5).normal(100_000, 20_000, 3_000)
    feed(jitter, noise_us, np.full(3_000, 5_000))
    # Differences of independent delays: sqrt(2) * 20 ms; 2.33 of it less 30 ms, and 10 ms.
    expected_ms = 2.33 * math.sqrt(2.0) * 20.0 - 30.0 + 10.0
    assert jitter_delay_us(jitter, 0, 0) * 1e-3 == pytest.approx(expected_ms, rel=0.15)


def test_the_filter_learns_what_a_byte_takes_and_waits_for_the_largest_frame() -> None:
    jitter = estimator()
    sizes = np.random.default_rng(6).integers(3_000, 7_000, 2_000)
    feed(jitter, 0.8 * sizes, sizes)  # 10 Mbps: no change is large enough to be clipped
    assert jitter.slope == pytest.approx(0.0008, rel=0.1)  # ms per byte
    jitter = estimator()
    sizes[1_990] = 20_000
    feed(jitter, 0.8 * sizes, sizes)
    expected_ms = jitter.slope * (jitter.max_bytes - jitter.mean_bytes) + 11.0
    assert jitter.max_bytes == pytest.approx(20_000, rel=0.01)
    assert jitter_delay_us(jitter, 0, 0) * 1e-3 == pytest.approx(expected_ms, abs=2.0)


def test_three_late_frames_add_most_of_a_round_trip_for_a_minute() -> None:
    jitter = estimator()
    feed(jitter, np.full(300, 50_000), np.full(300, 5_000))
    before_us = jitter_delay_us(jitter, 80_000, 1_000_000)
    for _ in range(2):
        jitter_on_late_frame(jitter, 1_000_000)
    assert jitter_delay_us(jitter, 80_000, 1_000_000) == before_us
    jitter_on_late_frame(jitter, 1_000_000)
    # 0.9 of it, at most 200 ms.
    assert jitter_delay_us(jitter, 80_000, 61_000_000) == before_us + 72_000
    assert jitter_delay_us(jitter, 400_000, 61_000_000) == before_us + 200_000
    assert jitter_delay_us(jitter, 80_000, 61_000_001) == before_us


# --- The line -------------------------------------------------------------------------------------


def schedule(delays_us: list[int], *, late: tuple[int, ...] = ()) -> list[int]:
    """Showing times less capture times of frames with these network delays."""
    playout = np.zeros(1, PLAYOUT)[0]
    playout_reset(playout)
    waits = []
    for index, delay_us in enumerate(delays_us):
        capture_us = 1_000_000 + index * INTERVAL_US
        complete_us = capture_us + delay_us
        if index not in late:
            playout_on_complete(playout, capture_us, complete_us)
        show_us = playout_schedule(
            playout, 5_000, capture_us, complete_us, index in late, 1.0, 80_000, complete_us
        )
        waits.append(show_us - capture_us)
    return waits


def test_steady_frames_are_shown_at_a_steady_delay() -> None:
    waits = schedule([50_000] * 300)
    assert max(waits[30:]) - min(waits[30:]) < 200
    assert waits[-1] == pytest.approx(50_000 + 11_000, abs=300)


def test_jittery_frames_are_shown_more_evenly_than_they_come() -> None:
    delays_us = (50_000 + np.random.default_rng(2).uniform(0, 40_000, 1_500)).astype(int)
    waits = np.array(schedule(delays_us.tolist()))[300:]
    assert (waits >= delays_us[300:]).all()
    assert np.diff(waits).std() < 0.4 * np.diff(delays_us).std()


def test_after_a_lasting_change_of_delay_the_line_finds_the_new_one() -> None:
    # 300 ms are 27,000 ticks; the error counts with 7000 - 6600 ticks: 150 frames for an alarm.
    # The slope takes a part of the step, up to a hundred milliseconds and more for a while.
    up = schedule([50_000] * 300 + [350_000] * 1_000)
    assert min(up[300:]) == 350_000
    assert max(up[500:]) < 350_000 + 11_000 + 120_000
    down = schedule([350_000] * 300 + [50_000] * 1_000)
    assert max(down[500:]) <= 50_000 + 11_000


# --- In a call ------------------------------------------------------------------------------------


def play(video: VideoConfig, path: PathConfig) -> OneCall:
    config = CallConfig(video=video, audio=SILENT)
    call = OneCall(Network(trace=constant(4e6), forward=path), config, mode="rate", key=2)
    call.run_until(30.0, 1_500_000)
    return call


def test_the_jitter_buffer_evens_out_what_the_network_does_and_loses_no_frame() -> None:
    path = PathConfig(jitter=JitterConfig(distribution="normal", scale_s=0.03, correlation=0.5))
    at_once = play(VideoConfig(jitter_buffer=False), path)
    buffered = play(VideoConfig(), path)
    shown = (at_once.flow.receiver, buffered.flow.receiver)
    assert 0 <= shown[0].frames_shown - shown[1].frames_shown < 10
    assert shown[1].squared_delays_s2 < 0.95 * shown[0].squared_delays_s2
    mean_us = [int(r.buffer_delay_sum_us / r.frames_shown) for r in shown]
    assert mean_us[1] > mean_us[0] + 5_000


def test_frames_are_shown_in_order_and_never_before_they_are_complete() -> None:
    call = play(VideoConfig(), PathConfig())
    frames = call.world.frames[0]
    frames = frames[(frames["number"] >= 0) & (frames["show_us"] > 0)]
    frames = frames[np.argsort(frames["number"])]
    assert len(frames) > 200
    assert (frames["show_us"] >= frames["complete_us"]).all()
    assert (frames["complete_us"] >= frames["first_us"]).all()
    assert (np.diff(frames["show_us"]) >= 0).all()
    assert call.flow.receiver.last_shown_us <= call.now_us


def test_what_is_shown_does_not_depend_on_how_often_anybody_looks() -> None:
    path = PathConfig(jitter=JitterConfig(distribution="normal", scale_s=0.03, correlation=0.5))
    network = Network(trace=constant(1e6), forward=path)
    looks = []
    for step_us in (20_000, 500_000):
        call = OneCall(network, CallConfig(), mode="rate", key=2, step_us=step_us)
        call.run_until(10.0, 800_000)
        receiver = call.flow.receiver
        looks.append(
            (
                receiver.frames_shown,
                receiver.last_shown_us,
                receiver.freeze_us,
                receiver.squared_delays_s2,
            )
        )
    assert looks[0] == looks[1]
