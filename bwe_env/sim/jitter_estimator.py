"""How long the jitter buffer must wait for a frame: libwebrtc's video jitter estimator.

Follows modules/video_coding/timing/jitter_estimator.cc and frame_delay_variation_kalman_filter.cc:
a Kalman filter explains the change of delay from frame to frame by the change of size (a line
through the origin and an offset); what it cannot explain is noise. The wait is what the largest
frame takes beyond the average one, plus 2.33 standard deviations of the noise less 30 ms, plus 10
ms; most of a round trip on top once frames come late because of retransmissions. Left out: the
scaling of the wait below 10 frames a second, the measured frame rate (the camera's stands in for
it), and the filter of the round-trip time.
"""

from __future__ import annotations

import math

from bwe_env.sim._jit import Record, kernel, record

# Names in brackets are constants of jitter_estimator.cc.
SIZE_MEMORY = 0.97  # [kPhi] of average and variance of frame sizes
MAX_SIZE_MEMORY = 0.9999  # [kPsi] of the largest frame size
START_FRAMES = 5  # [kFrameProcessingStartupCount] frames for the first average size
MAX_NOISE_COUNT = 400  # [kAlphaCountMax]
START_DELAYS = 30  # [kStartupDelaySamples]
NOISE_DEVIATIONS = 2.33  # [kNoiseStdDevs]
NOISE_OFFSET_MS = 30.0  # [kNoiseStdDevOffset]
CLIP_DEVIATIONS = 3.5  # [kNumStdDevDelayClip]
DELAY_OUTLIER_DEVIATIONS = 15.0  # [kNumStdDevDelayOutlier]
SIZE_OUTLIER_DEVIATIONS = 3.0  # [kNumStdDevSizeOutlier]
CONGESTION_FACTOR = -0.25  # [kCongestionRejectionFactor]
SYSTEM_JITTER_MS = 10.0  # [OPERATING_SYSTEM_JITTER]
MIN_ESTIMATE_MS = 1.0
MAX_ESTIMATE_MS = 10_000.0
NACKED_FRAMES = 3  # [kNackLimit] so many late frames add to the wait
NACKED_TIMEOUT_US = 60_000_000  # [kNackCountTimeout]
# So much of the round-trip time, and at most that: WebRTC-RttMult is on by default, and then FEC
# makes no difference (rtc_base/experiments/rtt_mult_experiment.cc).
NACKED_RTT_SHARE = 0.9  # [rtt_mult_setting]
MAX_NACKED_US = 200_000  # [rtt_mult_add_cap_ms]
# The filter (frame_delay_variation_kalman_filter.cc).
START_SLOPE = 1.0 / (512e3 / 8.0)  # per byte and ms
PROCESS_NOISE_SLOPE = 2.5e-10
PROCESS_NOISE_OFFSET = 1e-10
MIN_SLOPE = 1e-6

JITTER = record(
    [
        ("slope", "f8"),  # ms per byte
        ("offset_ms", "f8"),
        ("p00", "f8"),  # covariance of the two
        ("p01", "f8"),
        ("p10", "f8"),
        ("p11", "f8"),
        ("noise_ms", "f8"),  # mean of what the filter does not explain
        ("noise_variance", "f8"),  # ms²
        ("noise_count", "f8"),
        ("mean_bytes", "f8"),
        ("variance_bytes2", "f8"),
        ("max_bytes", "f8"),
        ("previous_bytes", "f8"),  # 0 before the first frame
        ("start_sum_bytes", "f8"),
        ("start_count", "i8"),
        ("estimate_ms", "f8"),
        ("nacked_frames", "i8"),
        ("nacked_us", "i8"),
        ("previous_complete_us", "i8"),
        ("previous_capture_us", "i8"),
    ]
)


@kernel
def jitter_reset(jitter: Record) -> None:
    """No frame yet."""
    jitter.slope = START_SLOPE
    jitter.offset_ms = 0.0
    jitter.p00 = 1e-4
    jitter.p01 = 0.0
    jitter.p10 = 0.0
    jitter.p11 = 1e2
    jitter.noise_ms = 0.0
    jitter.noise_variance = 4.0
    jitter.noise_count = 1.0
    jitter.mean_bytes = 500.0
    jitter.variance_bytes2 = 100.0
    jitter.max_bytes = 500.0
    jitter.previous_bytes = 0.0
    jitter.start_sum_bytes = 0.0
    jitter.start_count = 0
    jitter.estimate_ms = 0.0
    jitter.nacked_frames = 0
    jitter.nacked_us = 0
    jitter.previous_complete_us = 0
    jitter.previous_capture_us = 0


@kernel
def _filter(jitter: Record, delay_ms: float, size_change: float) -> None:
    """One step of the Kalman filter."""
    jitter.p00 += PROCESS_NOISE_SLOPE
    jitter.p11 += PROCESS_NOISE_OFFSET
    innovation_ms = delay_ms - (jitter.slope * size_change + jitter.offset_ms)
    h0 = jitter.p00 * size_change + jitter.p01
    h1 = jitter.p10 * size_change + jitter.p11
    # Frames of like size say little of the slope: their noise counts up to 300-fold.
    likeness = 300.0 * math.exp(-abs(size_change) / jitter.max_bytes) + 1.0
    observation = max(1.0, likeness * math.sqrt(jitter.noise_variance))
    variance = size_change * h0 + h1 + observation
    if abs(variance) < 1e-9:
        return
    gain0 = h0 / variance
    gain1 = h1 / variance
    jitter.slope = max(MIN_SLOPE, jitter.slope + gain0 * innovation_ms)
    jitter.offset_ms += gain1 * innovation_ms
    p00 = jitter.p00
    p01 = jitter.p01
    jitter.p00 = (1.0 - gain0 * size_change) * p00 - gain0 * jitter.p10
    jitter.p01 = (1.0 - gain0 * size_change) * p01 - gain0 * jitter.p11
    jitter.p10 = jitter.p10 * (1.0 - gain1) - gain1 * size_change * p00
    jitter.p11 = jitter.p11 * (1.0 - gain1) - gain1 * size_change * p01


@kernel
def _add_noise(jitter: Record, noise_ms: float, rate_scale: float) -> None:
    """Average what the filter does not explain, and its square.

    Args:
        rate_scale: 30 Hz over the frame rate: the memory is one of time, not of frames.
    """
    memory = (jitter.noise_count - 1.0) / jitter.noise_count
    jitter.noise_count = min(float(MAX_NOISE_COUNT), jitter.noise_count + 1.0)
    if rate_scale != 1.0:
        if jitter.noise_count < START_DELAYS:
            share = jitter.noise_count / START_DELAYS
            rate_scale = share * rate_scale + (1.0 - share)
        memory = math.pow(memory, rate_scale)
    deviation = noise_ms - jitter.noise_ms
    jitter.noise_ms = memory * jitter.noise_ms + (1.0 - memory) * noise_ms
    variance = memory * jitter.noise_variance + (1.0 - memory) * deviation * deviation
    jitter.noise_variance = max(1.0, variance)


@kernel
def _add_size(jitter: Record, size: float) -> None:
    """Average, spread and maximum of frame sizes; key frames do not enter the average."""
    if jitter.start_count < START_FRAMES:
        jitter.start_sum_bytes += size
        jitter.start_count += 1
    elif jitter.start_count == START_FRAMES:
        jitter.mean_bytes = jitter.start_sum_bytes / START_FRAMES
        jitter.start_count += 1
    mean = SIZE_MEMORY * jitter.mean_bytes + (1.0 - SIZE_MEMORY) * size
    if size < jitter.mean_bytes + 2.0 * math.sqrt(jitter.variance_bytes2):
        jitter.mean_bytes = mean
    deviation = size - mean
    variance = SIZE_MEMORY * jitter.variance_bytes2 + (1.0 - SIZE_MEMORY) * deviation * deviation
    jitter.variance_bytes2 = max(1.0, variance)
    jitter.max_bytes = max(MAX_SIZE_MEMORY * jitter.max_bytes, size)


@kernel
def jitter_on_frame(
    jitter: Record, size_bytes: int, capture_us: int, complete_us: int, rate_scale: float
) -> None:
    """A frame that no retransmission delayed was complete at `complete_us`."""
    size = float(size_bytes)
    _add_size(jitter, size)
    previous = jitter.previous_bytes
    delay_us = (complete_us - jitter.previous_complete_us) - (
        capture_us - jitter.previous_capture_us
    )
    jitter.previous_bytes = size
    jitter.previous_complete_us = complete_us
    jitter.previous_capture_us = capture_us
    if previous == 0.0:
        return
    noise_sd = math.sqrt(jitter.noise_variance)
    limit_ms = CLIP_DEVIATIONS * noise_sd + 0.5
    delay_ms = min(limit_ms, max(-limit_ms, delay_us * 1e-3))
    change = size - previous
    deviation_ms = delay_ms - (jitter.slope * change + jitter.offset_ms)
    most_ms = DELAY_OUTLIER_DEVIATIONS * noise_sd
    size_limit = jitter.mean_bytes + SIZE_OUTLIER_DEVIATIONS * math.sqrt(jitter.variance_bytes2)
    if abs(deviation_ms) < most_ms or size > size_limit:
        _add_noise(jitter, deviation_ms, rate_scale)
        # A much smaller frame after a large one waited behind it: that is no jitter.
        if change > CONGESTION_FACTOR * jitter.max_bytes:
            _filter(jitter, delay_ms, change)
    else:
        _add_noise(jitter, math.copysign(most_ms, deviation_ms), rate_scale)


@kernel
def jitter_on_late_frame(jitter: Record, now_us: int) -> None:
    """A retransmission delayed this frame."""
    jitter.nacked_frames = min(NACKED_FRAMES, jitter.nacked_frames + 1)
    jitter.nacked_us = now_us


@kernel
def jitter_delay_us(jitter: Record, rtt_us: int, now_us: int) -> int:
    """How long frames should be able to wait."""
    noise_ms = NOISE_DEVIATIONS * math.sqrt(jitter.noise_variance) - NOISE_OFFSET_MS
    spread = jitter.max_bytes - jitter.mean_bytes
    estimate_ms = jitter.slope * spread + max(1.0, noise_ms)
    if estimate_ms < MIN_ESTIMATE_MS:
        estimate_ms = max(MIN_ESTIMATE_MS, jitter.estimate_ms)
    jitter.estimate_ms = min(MAX_ESTIMATE_MS, estimate_ms)
    if now_us - jitter.nacked_us > NACKED_TIMEOUT_US:
        jitter.nacked_frames = 0
    delay_us = int((jitter.estimate_ms + SYSTEM_JITTER_MS) * 1e3)
    if jitter.nacked_frames >= NACKED_FRAMES:
        delay_us += min(MAX_NACKED_US, int(NACKED_RTT_SHARE * rtt_us))
    return delay_us
