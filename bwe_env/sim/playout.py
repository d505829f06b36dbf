"""When a frame leaves the jitter buffer: at its capture time on the receiver's clock, and a delay.

Follows libwebrtc modules/video_coding/timing/timing.cc and timestamp_extrapolator.cc: a line,
fitted to (arrival, capture) by recursive least squares and opened again when delays have changed,
says when a frame captured at some time is complete on average; the delay on top follows the jitter
estimate, upwards only as frames come late. Decoding and rendering take the same for every frame and
are left out, and so is what lip synchronisation with audio adds. The estimate is brought up to date
when a frame can be decoded, not when it is.
"""

from __future__ import annotations

from bwe_env.sim._jit import Record, kernel, record
from bwe_env.sim.jitter_estimator import (
    JITTER,
    jitter_delay_us,
    jitter_on_frame,
    jitter_on_late_frame,
    jitter_reset,
)

# timestamp_extrapolator.cc; ticks are those of the RTP clock of video, 90 kHz.
TICKS_PER_MS = 90.0
START_FRAMES = 2  # kStartUpFilterDelayInPackets
SLOPE_VARIANCE = 1.0  # kP00
OFFSET_VARIANCE = 1e10  # kP11
ALARM_TICKS = 60e3  # kAlarmThreshold
DRIFT_TICKS = 6600.0  # kAccDrift
MAX_ERROR_TICKS = 7000.0  # kAccMaxError
#: Silence that makes it begin anew.
RESET_US = 10_000_000

PLAYOUT = record(
    [
        ("jitter", JITTER),
        ("frames", "i8"),  # that the line was fitted to
        ("start_us", "i8"),  # arrival of the first of them
        ("first_capture_us", "i8"),
        ("previous_us", "i8"),  # arrival and capture of the newest
        ("previous_capture_us", "i8"),
        ("slope", "f8"),  # ticks per ms
        ("offset", "f8"),  # ticks
        ("p00", "f8"),  # covariance of the two
        ("p01", "f8"),
        ("p11", "f8"),
        ("alarm_up", "f8"),
        ("alarm_down", "f8"),
        ("delay_us", "i8"),  # of playout, beyond the average frame; 0 before the first
    ]
)


@kernel
def playout_reset(playout: Record) -> None:
    """No frame yet."""
    jitter_reset(playout.jitter)
    playout.frames = 0
    playout.delay_us = 0
    playout.previous_us = 0


@kernel
def _begin_line(playout: Record, capture_us: int, complete_us: int) -> None:
    playout.frames = 0
    playout.start_us = complete_us
    playout.first_capture_us = capture_us
    playout.previous_capture_us = capture_us
    playout.slope = TICKS_PER_MS
    playout.offset = 0.0
    playout.p00 = SLOPE_VARIANCE
    playout.p01 = 0.0
    playout.p11 = OFFSET_VARIANCE
    playout.alarm_up = 0.0
    playout.alarm_down = 0.0


@kernel
def playout_on_complete(playout: Record, capture_us: int, complete_us: int) -> None:
    """A frame that no retransmission delayed is complete: fit the line."""
    if playout.frames == 0 or complete_us - playout.previous_us > RESET_US:
        _begin_line(playout, capture_us, complete_us)
    time_ms = (complete_us - playout.start_us) * 1e-3
    ticks = (capture_us - playout.first_capture_us) * 1e-3 * TICKS_PER_MS
    residual = ticks - time_ms * playout.slope - playout.offset
    error = min(MAX_ERROR_TICKS, max(-MAX_ERROR_TICKS, residual))
    playout.alarm_up = max(0.0, playout.alarm_up + error - DRIFT_TICKS)
    playout.alarm_down = min(0.0, playout.alarm_down + error + DRIFT_TICKS)
    if playout.alarm_up > ALARM_TICKS or playout.alarm_down < -ALARM_TICKS:
        playout.alarm_up = 0.0
        playout.alarm_down = 0.0
        if playout.frames >= START_FRAMES:
            playout.p11 = OFFSET_VARIANCE
    if capture_us < playout.previous_capture_us:
        return
    h0 = playout.p00 * time_ms + playout.p01
    h1 = playout.p01 * time_ms + playout.p11
    variance = 1.0 + time_ms * h0 + h1
    gain0 = h0 / variance
    gain1 = h1 / variance
    playout.slope += gain0 * residual
    playout.offset += gain1 * residual
    playout.p00 -= gain0 * h0
    playout.p01 -= gain0 * h1
    playout.p11 -= gain1 * h1
    playout.previous_us = complete_us
    playout.previous_capture_us = capture_us
    playout.frames += 1


@kernel
def _expected_us(playout: Record, capture_us: int) -> int:
    """When a frame captured then is complete, by the line."""
    if playout.frames <= START_FRAMES or playout.slope < 1e-3:
        return int(playout.previous_us + capture_us - playout.previous_capture_us)
    ticks = (capture_us - playout.first_capture_us) * 1e-3 * TICKS_PER_MS
    return int(playout.start_us + (ticks - playout.offset) / playout.slope * 1e3 + 0.5)


@kernel
def playout_schedule(
    playout: Record,
    size_bytes: int,
    capture_us: int,
    complete_us: int,
    is_late: bool,
    rate_scale: float,
    rtt_us: int,
    now_us: int,
) -> int:
    """When the frame that can be decoded from now on is shown.

    Args:
        complete_us: when its last packet came; it may have waited for other frames since.
        is_late: a retransmission delayed it.
        rate_scale: 30 Hz over the camera's frame rate.
    """
    planned_us = now_us
    if playout.frames > 0:
        planned_us = _expected_us(playout, capture_us) + playout.delay_us
    show_us = max(now_us, planned_us)
    if is_late:
        jitter_on_late_frame(playout.jitter, now_us)
        return show_us
    jitter_on_frame(playout.jitter, size_bytes, capture_us, complete_us, rate_scale)
    target_us = jitter_delay_us(playout.jitter, rtt_us, now_us)
    if playout.delay_us == 0:
        playout.delay_us = target_us
    playout.delay_us = min(target_us, playout.delay_us + show_us - planned_us)
    return show_us
