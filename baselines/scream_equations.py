"""SCReAM's constants and equations, RFC 8298, each by its section. `baselines.scream` runs them.

Names are the RFC's; times are seconds, rates bits per second, sizes bytes unless a name says bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bwe_env.units import BITS_PER_BYTE

# --- Constants, section 4.1.1.1, with the values recommended there --------------------------------

#: Least queue delay aimed at, s.
QDELAY_TARGET_LO = 0.1
#: Most, s, so that competing flows that fill the queue do not starve this one.
QDELAY_TARGET_HI = 0.4
#: Weight of a new sample in `qdelay_fraction_avg`.
QDELAY_WEIGHT = 0.1
#: From this `qdelay_trend` on, congestion is incipient.
QDELAY_TREND_TH = 0.2
#: Least congestion window, bytes.
MIN_CWND = 3_000
#: Headroom of the window over the most bytes that were in flight.
MAX_BYTES_IN_FLIGHT_HEAD_ROOM = 1.1
#: Gain of the window's adjustment.
GAIN = 1.0
#: What a loss event leaves of the window.
BETA_LOSS = 0.8
#: What a loss event leaves of the target bitrate.
BETA_R = 0.9
#: Maximum segment size, bytes.
MSS = 1_000
#: Between adjustments of the media bitrate, s.
RATE_ADJUST_INTERVAL = 0.2
#: Fastest rise of the target bitrate, bps per second.
RAMP_UP_SPEED = 200_000.0
#: Guard against early congestion; more of it gives less jitter and less bitrate.
PRE_CONGESTION_GUARD = 0.1
#: Guard against a growing RTP queue.
TX_QUEUE_SIZE_FACTOR = 1.0
#: An RTP queue of more than this is too long, s.
RTP_QDELAY_TH = 0.02
#: What an RTP queue that is too long leaves of the target bitrate.
TARGET_RATE_SCALE_RTP_QDELAY = 0.95
#: Below this `qdelay_trend` there is no sign of congestion.
QDELAY_TREND_LO = 0.2
#: After so long without one, fast increase resumes, s.
T_RESUME_FAST_INCREASE = 5.0
#: Least pacing rate, bps.
RATE_PACE_MIN = 50_000.0

# --- Lengths that the text and pseudocode of section 4.1 give -------------------------------------

#: Samples in `qdelay_fraction_hist` (section 4.1.1.2).
QDELAY_FRACTION_HIST = 20
#: Samples of `qdelay_norm_history` in the variance, and in the average (section 4.1.2.3).
QDELAY_NORM_VARIANCE_HIST = 200
QDELAY_NORM_AVERAGE_HIST = 50
#: More loss events per round trip than this are a sign of competing flows (section 4.1.2.3).
LOSS_EVENT_RATE_TH = 0.002
#: A normalized variance below this makes the average safe to follow (section 4.1.2.3).
QDELAY_NORM_VAR_TH = 0.2
#: Sliding window of `max_bytes_in_flight`, s (section 4.1.2.2).
MAX_BYTES_IN_FLIGHT_WINDOW = 5.0
#: `rate_media_median` is over more than this, s (section 4.1.1.2).
RATE_MEDIA_MEDIAN_WINDOW = 10.0


# --- Network congestion control, section 4.1.2 ----------------------------------------------------


def autocorrelation_ratio(values: Sequence[float]) -> float:
    """R(1) / R(0) of the values less their mean, section 4.1.2; 0 where they do not vary."""
    mean = sum(values) / len(values)
    r0 = r1 = previous = 0.0
    for position, value in enumerate(values):
        deviation = value - mean
        r0 += deviation * deviation
        if position > 0:
            r1 += deviation * previous
        previous = deviation
    return r1 / r0 if r0 > 0.0 else 0.0


def qdelay_fraction_average(average: float, qdelay_s: float, qdelay_target_s: float) -> float:
    """`qdelay_fraction_avg` after another sample, section 4.1.2."""
    return (1.0 - QDELAY_WEIGHT) * average + QDELAY_WEIGHT * qdelay_s / qdelay_target_s


def qdelay_trend(fraction_hist: Sequence[float], fraction_avg: float) -> float:
    """Sign of incipient congestion, 0 to 1, section 4.1.2."""
    return min(1.0, max(0.0, autocorrelation_ratio(fraction_hist) * fraction_avg))


def qdelay_trend_memory(memory: float, trend: float) -> float:
    """`qdelay_trend_mem`, the slowly fading peak of the trend, section 4.1.2."""
    return max(0.99 * memory, trend)


def cwnd_after_loss(cwnd: float) -> float:
    """The window after a loss event, section 4.1.2.2."""
    return max(MIN_CWND, cwnd * BETA_LOSS)


def cwnd_in_fast_increase(cwnd: float, bytes_in_flight: int, bytes_newly_acked: int) -> float:
    """The window grows by what is acknowledged while it is used well enough, section 4.1.2.2."""
    if bytes_in_flight * 1.5 + bytes_newly_acked > cwnd:
        return cwnd + bytes_newly_acked
    return cwnd


def cwnd_update(
    cwnd: float,
    *,
    qdelay_s: float,
    qdelay_target_s: float,
    bytes_in_flight: int,
    bytes_newly_acked: int,
    max_bytes_in_flight: int,
) -> float:
    """The window out of fast increase: towards the queue delay target, section 4.1.2.2."""
    off_target = (qdelay_target_s - qdelay_s) / qdelay_target_s
    cwnd_delta = GAIN * off_target * bytes_newly_acked * MSS / cwnd
    if off_target > 0.0 and bytes_in_flight * 1.25 + bytes_newly_acked <= cwnd:
        cwnd_delta = 0.0  # no rise of a window that is not used
    cwnd = min(cwnd + cwnd_delta, max_bytes_in_flight * MAX_BYTES_IN_FLIGHT_HEAD_ROOM)
    return max(cwnd, MIN_CWND)


def adjusted_qdelay_target(
    qdelay_target_s: float, norm_avg: float, norm_var: float, loss_event_rate: float
) -> float:
    """The queue delay target under competing flows, section 4.1.2.3.

    Args:
        norm_avg: of the last 50 queue delays, in units of `QDELAY_TARGET_LO`.
        norm_var: variance of the last 200.
        loss_event_rate: share of round trips with losses.
    """
    new_target = (norm_avg + math.sqrt(norm_var)) * QDELAY_TARGET_LO
    if loss_event_rate > LOSS_EVENT_RATE_TH:
        qdelay_target_s = 1.5 * new_target
    elif norm_var < QDELAY_NORM_VAR_TH:
        qdelay_target_s = new_target
    elif new_target < QDELAY_TARGET_LO:
        qdelay_target_s = max(qdelay_target_s * 0.5, new_target)
    else:
        qdelay_target_s *= 0.9
    return max(QDELAY_TARGET_LO, min(QDELAY_TARGET_HI, qdelay_target_s))


def send_limit(cwnd: float, qdelay_s: float, qdelay_target_s: float) -> float:
    """Bytes in flight below which a packet may leave, section 4.1.2.5: `send_wnd` is what is left.

    A strict window above the queue delay target, one packet of slack at or below it.
    """
    return cwnd + MSS if qdelay_s <= qdelay_target_s else cwnd


def pace_bitrate(cwnd: float, s_rtt_s: float) -> float:
    """Pacing rate, bps, section 4.1.2.6."""
    return max(RATE_PACE_MIN, cwnd * BITS_PER_BYTE / s_rtt_s)


# --- Media rate control, section 4.1.3 ------------------------------------------------------------


def target_bitrate_after_loss(target_bitrate: float, target_bitrate_min: float) -> float:
    """The target after a loss event."""
    return max(BETA_R * target_bitrate, target_bitrate_min)


def ramp_up_scale(target_bitrate: float, target_bitrate_last_max: float) -> float:
    """`scale_t`: slower near the target at which congestion was last seen, 0.2 to 1."""
    scale = (target_bitrate - target_bitrate_last_max) / target_bitrate_last_max
    return max(0.2, min(1.0, (scale * 4.0) ** 2))


def target_bitrate_update(
    target_bitrate: float,
    *,
    target_bitrate_last_max: float,
    in_fast_increase: bool,
    current_rate: float,
    trend: float,
    rtp_queue_bits: float,
) -> float:
    """The target after a `RATE_ADJUST_INTERVAL` without a loss event, before its limits."""
    ramp_up = min(RAMP_UP_SPEED, target_bitrate / 2.0) * RATE_ADJUST_INTERVAL
    scale = ramp_up_scale(target_bitrate, target_bitrate_last_max)
    if in_fast_increase:
        return target_bitrate + ramp_up * scale
    delta_rate = current_rate * (1.0 - PRE_CONGESTION_GUARD * trend)
    delta_rate -= TX_QUEUE_SIZE_FACTOR * rtp_queue_bits
    if delta_rate > 0.0:
        delta_rate = min(delta_rate * scale, ramp_up)
    target_bitrate += delta_rate
    if rtp_queue_bits > RTP_QDELAY_TH * current_rate:  # rtp_queue_delay_t, without a division by 0
        target_bitrate *= TARGET_RATE_SCALE_RTP_QDELAY
    return target_bitrate


def rate_media_limit(
    current_rate: float, rate_media: float, rate_media_median: float, trend_memory: float
) -> float:
    """The target goes no further beyond what the encoder makes and the path carries."""
    return max(current_rate, rate_media, rate_media_median) * (2.0 - trend_memory)
