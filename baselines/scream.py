"""SCReAM: self-clocked rate adaptation for multimedia, RFC 8298 (version 1), sender side.

Network congestion control (section 4.1.2) keeps a congestion window after LEDBAT (RFC 6817), with
fast increase at the start and after calm; media rate control (section 4.1.3) sets the encoder's
target, slower near the target at which congestion was last seen and lower when packets wait to be
sent. Equations and constants: `baselines.scream_equations`.

Differences to the RFC, because of what an estimator is told and asked for:

- Feedback is transport-wide reports every 50 to 250 ms, not an acknowledgement every 20 to 400 ms
  (section 4.2); each report is one acknowledgement. A queue delay sample is the newest arrival's.
- No ECN: reports do not carry it, so BETA_ECN has no place.
- The RTP queue is not visible. It is reckoned from what the encoder should have made since the
  queue was last known to be empty (`baselines.flight`): the target over that time, less what left,
  less a frame that is still in the making (an interval of the call's frames). `rate_media` is what
  left and what this queue grew by. An encoder that misses its target for long while the window is
  full misleads it, and frames that a sender skips then count as queued; no more than 2 s are, the
  limit of the pacer of libwebrtc, whose sender skips frames beyond.
- The target starts at the call's start rate, not at 0, and the first window and pacing rate hold
  until the first report, as there is no `s_rtt` before.
- `target_bitrate_last_max` is the target at a loss event and whenever `qdelay_trend` rises through
  QDELAY_TREND_TH ("updated when congestion is detected").
- `loss_event_rate`, which the RFC does not define further, is an average over round trips with
  QDELAY_WEIGHT for the newest.
- The reordering window (section 4.1.2.4) is the last reordering seen, a round trip at most (RFC
  8985 section 6.2 bounds it so).
- The base delay of RFC 6817 is the least one-way delay of the last ten minutes, by the minute;
  there is no filter over current delays (section 4.1.2: no smoothing).
- "The minimum send rate maintained by SCReAM when no feedback is received" (section 9) is
  RATE_PACE_MIN: without a report for twice the longest interval of section 4.2.1 (0.8 s), a full
  window lets as many bytes go each adjustment interval.
- The window holds back video, retransmissions and padding; audio does not wait in this sender.
- Rates and sizes count IP and UDP headers, as all targets here do.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from baselines.flight import Flight
from baselines.scream_equations import (
    MAX_BYTES_IN_FLIGHT_WINDOW,
    MIN_CWND,
    QDELAY_FRACTION_HIST,
    QDELAY_TARGET_LO,
    QDELAY_TREND_LO,
    QDELAY_TREND_TH,
    QDELAY_WEIGHT,
    RATE_ADJUST_INTERVAL,
    RATE_MEDIA_MEDIAN_WINDOW,
    RATE_PACE_MIN,
    T_RESUME_FAST_INCREASE,
    adjusted_qdelay_target,
    cwnd_after_loss,
    cwnd_in_fast_increase,
    cwnd_update,
    pace_bitrate,
    qdelay_fraction_average,
    qdelay_trend,
    qdelay_trend_memory,
    rate_media_limit,
    send_limit,
    target_bitrate_after_loss,
    target_bitrate_update,
)
from baselines.scream_history import BaseDelay, LossDetector, NormHistory
from bwe_env.config import CallConfig
from bwe_env.estimator import RateDecision
from bwe_env.feedback import FeedbackReport, PacketResult, SentPacket
from bwe_env.units import BITS_PER_BYTE, s_to_us, us_to_s

#: Weight of a new sample in the smoothed round-trip time (RFC 6298 section 2.3, alpha).
RTT_WEIGHT = 1.0 / 8.0
#: Longest interval between reports that RFC 8298 section 4.2.1 allows, twice 400 ms, s.
LONGEST_FEEDBACK_INTERVAL = 0.8
#: The RTP queue holds no more than this, s (libwebrtc kMaxExpectedQueueLength).
RTP_QUEUE_LIMIT = 2.0
#: Slots of `max_bytes_in_flight`'s sliding window. Ours.
_IN_FLIGHT_SLOTS = 10
_SLOT_US = s_to_us(MAX_BYTES_IN_FLIGHT_WINDOW) // _IN_FLIGHT_SLOTS


class Scream:
    """A sender-side `BandwidthEstimator`; the attributes are the state of section 4.1.1.2.

    Args:
        call: where the target starts, and its TARGET_BITRATE_MIN and TARGET_BITRATE_MAX.
        compensates_competing_flows: whether the queue delay target follows section 4.1.2.3, which
            "MAY be turned off". It also answers to losses and queues of the flow's own making:
            on 60 validation networks it costs 0.05 MOS and freezes 1.7 points more, so that it is
            off unless asked for.
    """

    def __init__(self, call: CallConfig, *, compensates_competing_flows: bool = False) -> None:
        self._compensates_competing_flows = compensates_competing_flows
        self._target_bitrate_min = float(call.min_rate_bps)
        self._target_bitrate_max = float(call.max_rate_bps)
        self._frame_interval = 1.0 / call.video.frame_rate_hz  # s; a frame may be in the making
        self.target_bitrate = float(call.start_rate_bps)
        self.target_bitrate_last_max = 1.0  # "initialized to 1 bps"
        self.cwnd = float(MIN_CWND)
        self.in_fast_increase = True
        self.qdelay_s = 0.0
        self.qdelay_target_s = QDELAY_TARGET_LO
        self.qdelay_fraction_avg = 0.0
        self.qdelay_trend = 0.0
        self.qdelay_trend_mem = 0.0
        self.s_rtt_s = 0.0
        self.loss_event_rate = 0.0
        self.rtp_queue_bits = 0.0
        self.loss_events = 0  # ours, to be read by tests and logs

        self.flight = Flight()
        self._send_limit_bytes = 0
        self._delays = BaseDelay()
        self._losses = LossDetector()
        self._fraction_hist: deque[float] = deque([0.0] * QDELAY_FRACTION_HIST)
        self._norm_hist = NormHistory()
        self._calm_since_us = 0  # qdelay_trend has been low
        self._loss_event_us = -(1 << 62)
        self._round_ends_us = 0
        self._round_had_loss = False

        self._in_flight_maxima: deque[tuple[int, int]] = deque()  # (slot, most bytes in it)
        self._last_sent_us = 0
        self._sent_bytes = 0  # since the last adjustment of the media rate
        self._acked_bytes = 0
        self._queued_bits = 0.0  # rtp_queue_bits at the last adjustment
        length = int(RATE_MEDIA_MEDIAN_WINDOW / RATE_ADJUST_INTERVAL) + 1
        self._rates_media: deque[float] = deque(maxlen=length)
        self._adjusted_us = 0
        self._report_us = 0
        self._is_asked = False

    # --- The one door -----------------------------------------------------------------------------

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """A packet has left the RTP queue."""
        size_bytes = packet.size_bytes
        self._elapse_rtp_queue(now_us)
        if self.flight.on_sent(size_bytes, now_us):
            self.rtp_queue_bits = 0.0
        self.rtp_queue_bits = max(0.0, self.rtp_queue_bits - BITS_PER_BYTE * size_bytes)
        self._sent_bytes += size_bytes
        slot = now_us // _SLOT_US
        maxima = self._in_flight_maxima
        in_flight = self.flight.bytes_in_flight
        if maxima and maxima[-1][0] == slot:
            if in_flight > maxima[-1][1]:
                maxima[-1] = (slot, in_flight)
        else:
            maxima.append((slot, in_flight))
            while maxima[0][0] <= slot - _IN_FLIGHT_SLOTS:
                maxima.popleft()

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """An acknowledgement, sections 4.1.2.1 and 4.1.2.2."""
        self._report_us = now_us
        bytes_newly_acked = max(0, self.flight.bytes_in_flight - report.bytes_in_flight)
        self.flight.bytes_in_flight = report.bytes_in_flight
        received = report.received
        self._acked_bytes += sum(result.sent.size_bytes for result in received)
        if received:
            self._measure(received[-1], now_us)
        has_loss = self._losses.update(report, now_us, self.s_rtt_s)
        self._count_rounds(has_loss, now_us)
        if has_loss and now_us - self._loss_event_us >= s_to_us(self.s_rtt_s):
            self._on_loss_event(now_us)
        elif received:
            self._update_cwnd(bytes_newly_acked)
            self._adjust_qdelay_target()
            self._check_to_resume_fast_increase(now_us)
        return self._decide(now_us)

    def on_timeout(self, now_us: int) -> RateDecision:
        """An adjustment of the media rate, section 4.1.3, and the minimum send rate, section 9."""
        if not self._is_asked:
            self._is_asked = True
            self._adjusted_us = now_us
            return self._decide(now_us)
        self._elapse_rtp_queue(now_us)
        if self.flight.is_dry(now_us):
            self.rtp_queue_bits = 0.0
        self._adjust_rate(now_us)
        is_silent = us_to_s(now_us - self._report_us) > LONGEST_FEEDBACK_INTERVAL
        if is_silent and self.flight.is_window_full:
            allowed_bytes = int(RATE_PACE_MIN * RATE_ADJUST_INTERVAL / BITS_PER_BYTE)
            return self._decide(now_us, self.flight.bytes_in_flight + allowed_bytes)
        return self._decide(now_us, self._send_limit_bytes if is_silent else 0)

    def next_timeout_us(self) -> int:
        """The next adjustment of the media rate."""
        return self._adjusted_us + s_to_us(RATE_ADJUST_INTERVAL) if self._is_asked else 0

    # --- Network congestion control, section 4.1.2 ------------------------------------------------

    @property
    def max_bytes_in_flight(self) -> int:
        """Most bytes in flight in the last 5 s."""
        return max((most for _, most in self._in_flight_maxima), default=0)

    def _measure(self, newest: PacketResult, now_us: int) -> None:
        """Round-trip time, queue delay, and its trend, from the highest number received."""
        rtt_s = us_to_s(now_us - newest.sent.send_time_us)
        self.s_rtt_s += (RTT_WEIGHT if self.s_rtt_s else 1.0) * (rtt_s - self.s_rtt_s)
        assert newest.arrival_time_us is not None
        delay_us = newest.arrival_time_us - newest.sent.send_time_us
        self.qdelay_s = us_to_s(delay_us - self._delays.update(delay_us, now_us))
        fraction = self.qdelay_s / self.qdelay_target_s
        self.qdelay_fraction_avg = qdelay_fraction_average(
            self.qdelay_fraction_avg, self.qdelay_s, self.qdelay_target_s
        )
        self._fraction_hist.popleft()
        self._fraction_hist.append(fraction)
        before = self.qdelay_trend
        self.qdelay_trend = qdelay_trend(self._fraction_hist, self.qdelay_fraction_avg)
        self.qdelay_trend_mem = qdelay_trend_memory(self.qdelay_trend_mem, self.qdelay_trend)
        if self.qdelay_trend >= QDELAY_TREND_TH > before:
            self.target_bitrate_last_max = self.target_bitrate
        if self.qdelay_trend >= QDELAY_TREND_LO:
            self._calm_since_us = now_us
        self._norm_hist.append(self.qdelay_s / QDELAY_TARGET_LO)

    def _count_rounds(self, has_loss: bool, now_us: int) -> None:
        """`loss_event_rate`: the share of round trips with losses."""
        self._round_had_loss |= has_loss
        if now_us >= self._round_ends_us:
            self.loss_event_rate += QDELAY_WEIGHT * (self._round_had_loss - self.loss_event_rate)
            self._round_had_loss = False
            self._round_ends_us = now_us + s_to_us(self.s_rtt_s)

    def _on_loss_event(self, now_us: int) -> None:
        """At most once per round trip, sections 4.1.2.2 and 4.1.3."""
        self.loss_events += 1
        self._loss_event_us = now_us
        self.in_fast_increase = False
        self.cwnd = cwnd_after_loss(self.cwnd)
        self._adjust_qdelay_target()
        self.target_bitrate_last_max = self.target_bitrate
        self.target_bitrate = target_bitrate_after_loss(
            self.target_bitrate, self._target_bitrate_min
        )

    def _update_cwnd(self, bytes_newly_acked: int) -> None:
        """Section 4.1.2.2."""
        if self.in_fast_increase and self.qdelay_trend >= QDELAY_TREND_TH:
            self.in_fast_increase = False
        in_flight = self.flight.bytes_in_flight
        if self.in_fast_increase:
            self.cwnd = cwnd_in_fast_increase(self.cwnd, in_flight, bytes_newly_acked)
            return
        self.cwnd = cwnd_update(
            self.cwnd,
            qdelay_s=self.qdelay_s,
            qdelay_target_s=self.qdelay_target_s,
            bytes_in_flight=in_flight,
            bytes_newly_acked=bytes_newly_acked,
            max_bytes_in_flight=self.max_bytes_in_flight,
        )

    def _adjust_qdelay_target(self) -> None:
        """Section 4.1.2.3."""
        if not self._compensates_competing_flows:
            return
        self.qdelay_target_s = adjusted_qdelay_target(
            self.qdelay_target_s,
            self._norm_hist.average,
            self._norm_hist.variance,
            self.loss_event_rate,
        )

    def _check_to_resume_fast_increase(self, now_us: int) -> None:
        """Section 4.1.2.7."""
        calm_s = us_to_s(now_us - max(self._calm_since_us, self._loss_event_us))
        if calm_s >= T_RESUME_FAST_INCREASE:
            self.in_fast_increase = True

    # --- Media rate control, section 4.1.3 --------------------------------------------------------

    def _elapse_rtp_queue(self, now_us: int) -> None:
        """The encoder goes on at its target."""
        made_bits = self.target_bitrate * us_to_s(now_us - self._last_sent_us)
        most_bits = RTP_QUEUE_LIMIT * self.target_bitrate
        self.rtp_queue_bits = min(self.rtp_queue_bits + made_bits, most_bits)
        self._last_sent_us = now_us

    def _adjust_rate(self, now_us: int) -> None:
        elapsed_s = us_to_s(now_us - self._adjusted_us)
        self._adjusted_us = now_us
        rate_transmit = BITS_PER_BYTE * self._sent_bytes / elapsed_s
        rate_ack = BITS_PER_BYTE * self._acked_bytes / elapsed_s
        self._sent_bytes = self._acked_bytes = 0
        rate_media = rate_transmit + (self.rtp_queue_bits - self._queued_bits) / elapsed_s
        self._queued_bits = self.rtp_queue_bits
        self._rates_media.append(rate_media)
        current_rate = max(rate_transmit, rate_ack)
        in_the_making = self._frame_interval * self.target_bitrate
        target = target_bitrate_update(
            self.target_bitrate,
            target_bitrate_last_max=self.target_bitrate_last_max,
            in_fast_increase=self.in_fast_increase,
            current_rate=current_rate,
            trend=self.qdelay_trend,
            rtp_queue_bits=max(0.0, self.rtp_queue_bits - in_the_making),
        )
        limit = rate_media_limit(
            current_rate, rate_media, median(self._rates_media), self.qdelay_trend_mem
        )
        target = min(target, limit, self._target_bitrate_max)
        self.target_bitrate = max(target, self._target_bitrate_min)

    def _decide(self, now_us: int, send_limit_bytes: int = 0) -> RateDecision:
        """The target, and the window and pacing rate of sections 4.1.2.5 and 4.1.2.6."""
        limit = send_limit(self.cwnd, self.qdelay_s, self.qdelay_target_s)
        self._send_limit_bytes = max(send_limit_bytes, math.ceil(limit))
        has_rtt = self.s_rtt_s > 0.0
        pacing_bps = pace_bitrate(self.cwnd, self.s_rtt_s) if has_rtt else self.target_bitrate
        in_flight = self.flight.bytes_in_flight
        self.flight.decide(in_flight, self._send_limit_bytes, pacing_bps, now_us)
        return RateDecision(
            target_rate_bps=self.target_bitrate,
            pacing_rate_bps=pacing_bps,
            cwnd_bytes=self._send_limit_bytes,
        )
