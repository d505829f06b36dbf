"""Copa for real-time media: a window that aims at the rate 1 / (delta * queueing delay).

Arun and Balakrishnan, "Copa: Practical Delay-Based Congestion Control for the Internet", NSDI 2018.
For every packet acknowledged the window moves a little towards the target rate, up where it is
below and down where it is above, so that the queue swings about 1 / delta packets of each flow and
runs empty every few round trips. Where it does not run empty, somebody else fills it; then delta
follows an AIMD rule on loss (competitive mode).

The paper's sender has data whenever its window opens, and an acknowledgement for every packet. A
video call has neither. What is different here:

- The window is kept by the sender's pacer, and the encoder is asked for the mean of
  cwnd / RTTstanding over a period of the window's swing. An encoder that followed every swing, late
  as encoders are, would take over as the thing that swings: on a link of 1 Mbps the target went
  from 0.2 to 2 Mbps.
- Packets are acknowledged by transport-wide reports, many at once, and 50 to 250 ms apart.
  Round-trip times leave that wait out: they feed RTTmin and RTTstanding as single acknowledgements
  would. But the wait belongs to the control loop: "per round trip" (change of the window by
  v / delta, velocity, mode switching) is here per *loop*, from sending a packet to reading of it,
  and what may be out is the window scaled by loop / RTTstanding, plus the packet that uses it up.
- RTTstanding is the minimum of srtt / 2 in the paper. It is of at least one frame interval here:
  a frame leaves in a burst, and only its first packet meets the queue that stands.
- The window grows up to twice what was delivered lately: an encoder that lags or is limited by the
  application does not show what the link would carry (the idea of RFC 7661).
- A step is at most the window itself in a loop, however large the velocity.
- A queue of less than a packet counts as nearly empty, too: on a slow link no share of RTTmax says
  so. Below some 200 kbps competitive mode still comes by mistake.
- Packets differ in size, so that window and rate are of bytes; the "packet" of 1 / delta is the
  mean of those delivered lately, which are small where the rate is low. With full packets a link of
  150 kbps would have to hold 0.3 s for the swing of the window alone.
- The first window is the call's start rate times the first round-trip time, and the rate keeps to
  the call's minimum and maximum.
- Silence halves window and rate as the nofeedback timer of RFC 5348 section 4.4 would
  (`baselines.report_reading`); the paper leaves timeouts to TCP.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from baselines.report_reading import (
    NO_FEEDBACK_FACTOR,
    SRTT_MEMORY,
    ReportReader,
    round_trip_us,
)
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.estimator import RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.units import BITS_PER_BYTE, US_PER_S, s_to_us

#: The window is validated by what was delivered in this time. Ours: several frames.
DELIVERY_WINDOW_US = 200_000
#: And is at most so many times that. As in slow start, which doubles it.
DELIVERY_HEADROOM = 2.0
#: Loops of which the encoder gets the mean: the period of the swing, section 3 (5 round trips).
MEDIA_LOOPS = 5.0
#: Pacing over the rate. Section 2.1: 2 * cwnd / RTTstanding.
PACING_FACTOR = 2.0


@dataclass(frozen=True, kw_only=True)
class CopaParameters:
    """Values of the paper, section 2."""

    delta: float = 0.5
    """in default mode; a flow's mean queue is about 1 / delta packets"""
    rtt_min_window_s: float = 10.0
    """RTTmin is the minimum of this time"""
    standing_share: float = 0.5
    """RTTstanding is the minimum of this share of srtt"""
    same_direction_windows: int = 3
    """after which the velocity doubles"""
    switches_mode: bool = True
    """to competitive mode, where the queue does not run empty"""
    empty_share: float = 0.1
    """of RTTmax - RTTmin, below which the queue is nearly empty"""
    empty_loops: float = 5.0
    """the queue runs empty within so many, or somebody fills it"""
    rtt_max_loops: float = 4.0
    """RTTmax is the maximum of so many"""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "switches_mode" and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"CopaParameters.{name}={value!r} must be finite and above 0.")


def target_rate_pps(queue_delay_s: float, delta: float) -> float:
    """lambda_t in packets per second, equation (1): infinite on an empty queue."""
    return math.inf if queue_delay_s <= 0 else 1.0 / (delta * queue_delay_s)


def window_step_bytes(
    velocity: float,
    delta: float,
    *,
    cwnd_bytes: float,
    packet_bytes: float,
    loop_share: float,
) -> float:
    """How far the window moves for what has been acknowledged: v / delta packets in a loop. §2.1.

    At most its own size in a loop: the velocity never makes it faster than slow start (ours).

    Args:
        loop_share: what has been acknowledged, over what is in a loop.
    """
    return min(velocity * packet_bytes / delta, cwnd_bytes) * loop_share


def next_velocity(velocity: float, same_windows: int, p: CopaParameters) -> float:
    """Velocity v at the end of a window, `same_windows` after the direction last changed."""
    if same_windows == 0:
        return 1.0
    return 2.0 * velocity if same_windows >= p.same_direction_windows else velocity


def competitive_delta(delta: float, *, has_lost: bool, p: CopaParameters) -> float:
    """The delta after a loop in competitive mode: AIMD on 1 / delta, section 2.2."""
    inverse = 0.5 / delta if has_lost else 1.0 / delta + 1.0
    return min(p.delta, 1.0 / inverse)


class WindowedMinimum:
    """The minimum of the values of a time window, as a queue of rising values."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, float]] = deque()

    def update(self, value: float, now_us: int, window_us: float) -> float:
        """Take a value; returns the minimum since `now_us - window_us`."""
        samples = self._samples
        while samples and samples[-1][1] >= value:
            samples.pop()
        samples.append((now_us, value))
        while samples[0][0] < now_us - window_us:
            samples.popleft()
        return samples[0][1]


class QueueSignals:
    """What Copa reads from round-trip times, in seconds. Section 2.1 and 2.2."""

    def __init__(self, parameters: CopaParameters, *, frame_interval_us: int) -> None:
        self._p = parameters
        self._frame_interval_us = frame_interval_us
        self._minimum = WindowedMinimum()
        self._standing = WindowedMinimum()
        self._maximum = WindowedMinimum()  # of negative values
        self._empty_us = 0
        self.srtt_us = 0.0
        self.loop_us = 0.0  # from sending to reading of it, smoothed as srtt is
        self.standing_us = 0.0  # RTTstanding
        self.queue_us = 0.0  # d_q
        self.is_competing = False

    def on_ack(self, rtt_us: int, *, loop_us: int, packet_us: float, ack_us: int) -> None:
        """A packet has been acknowledged.

        Args:
            rtt_us: without its wait for the report.
            loop_us: with it.
            packet_us: between packets at the present rate.
            ack_us: when its own acknowledgement would have come.
        """
        p = self._p
        memory = SRTT_MEMORY if self.srtt_us > 0 else 0.0
        self.srtt_us = memory * self.srtt_us + (1.0 - memory) * rtt_us
        self.loop_us = memory * self.loop_us + (1.0 - memory) * loop_us
        minimum_us = self._minimum.update(rtt_us, ack_us, s_to_us(p.rtt_min_window_s))
        standing_window_us = max(p.standing_share * self.srtt_us, self._frame_interval_us)
        self.standing_us = self._standing.update(rtt_us, ack_us, standing_window_us)
        self.queue_us = self.standing_us - minimum_us
        maximum_us = -self._maximum.update(-rtt_us, ack_us, p.rtt_max_loops * self.loop_us)
        empty_us = max(p.empty_share * (maximum_us - minimum_us), packet_us)
        if self._empty_us == 0 or self.queue_us <= empty_us:
            self._empty_us = ack_us
        self.is_competing = ack_us - self._empty_us > p.empty_loops * self.loop_us


class Delivery:
    """What has been acknowledged lately."""

    def __init__(self) -> None:
        self._packets: deque[tuple[int, int]] = deque()  # acknowledged when, bytes
        self._bytes = 0  # sum of them

    def on_ack(self, size_bytes: int, ack_us: int) -> None:
        """A packet has been acknowledged."""
        self._packets.append((ack_us, size_bytes))
        self._bytes += size_bytes
        while self._packets[0][0] <= ack_us - DELIVERY_WINDOW_US:
            self._bytes -= self._packets.popleft()[1]

    @property
    def rate_bps(self) -> float:
        """Delivered bits per second."""
        return BITS_PER_BYTE * self._bytes * US_PER_S / DELIVERY_WINDOW_US

    @property
    def packet_bytes(self) -> float:
        """Mean size; there is at least the newest one."""
        return self._bytes / len(self._packets)


class Copa:
    """A sender-side `BandwidthEstimator`; see the module for what it follows and where it differs.

    Args:
        call: its rates, largest packet and frame rate.
        parameters: those of the paper.
    """

    def __init__(self, *, call: CallConfig, parameters: CopaParameters | None = None) -> None:
        self._p = parameters or CopaParameters()
        self._min_bps = float(call.min_rate_bps)
        self._max_bps = float(call.max_rate_bps)
        self._rate_bps = float(call.start_rate_bps)  # lambda
        self._media_bps = self._rate_bps  # its mean
        self._media_us = 0  # when it was last taken
        self._cwnd_bytes = 0.0  # cwnd; 0 before the first round-trip time
        self._delta = self._p.delta
        self._velocity = 1.0
        self._is_rising = True
        self._same_windows = 0
        self._is_slow_start = True
        self._window_end_seq = -1
        self._window_start_bytes = 0.0  # cwnd when the window began
        self._has_lost = False  # in this window
        self._largest_bytes = call.packets.mtu_bytes + call.packets.overhead_bytes
        self._reader = ReportReader()
        self._delivery = Delivery()
        frame_interval_us = s_to_us(1.0 / call.video.frame_rate_hz)
        self._signals = QueueSignals(self._p, frame_interval_us=frame_interval_us)

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """A packet has left."""
        self._reader.newest_sent_seq = packet.seq

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """A report has arrived: each packet of it moves the window."""
        for result in self._reader.first_verdicts(report):
            if result.arrival_time_us is None:
                self._has_lost = True
                continue
            sent = result.sent
            rtt_us = round_trip_us(result, report, now_us)
            ack_us = sent.send_time_us + rtt_us
            self._delivery.on_ack(sent.size_bytes, ack_us)
            self._signals.on_ack(
                rtt_us,
                loop_us=now_us - sent.send_time_us,
                packet_us=self._delivery.packet_bytes * _bytes_us(self._rate_bps),
                ack_us=ack_us,
            )
            self._move_window(sent.size_bytes)
            if sent.seq > self._window_end_seq:
                self._end_window()
        self._set_rate(now_us)
        self._reader.restart_timer(self._signals.srtt_us, now_us)
        return self._decision()

    def on_timeout(self, now_us: int) -> RateDecision:
        """Reports have stayed away: halve the window, unless nothing is out."""
        if self._reader.is_silent(now_us):
            self._is_slow_start = False
            self._velocity = 1.0
            self._set_window(NO_FEEDBACK_FACTOR * self._cwnd_bytes)
            self._set_rate(now_us)
            self._media_bps = min(self._media_bps, self._rate_bps)
        self._reader.restart_timer(self._signals.srtt_us, now_us)
        return self._decision()

    def next_timeout_us(self) -> int:
        """When silence will have lasted too long."""
        return self._reader.timer_us

    def _move_window(self, acked_bytes: int) -> None:
        """Section 2.1, steps 2 and 3 (1 has been done by the signals)."""
        signals, packet_bytes = self._signals, self._delivery.packet_bytes
        if self._cwnd_bytes == 0.0:
            self._cwnd_bytes = signals.standing_us / _bytes_us(self._rate_bps)
            self._window_start_bytes = self._cwnd_bytes
        target_pps = target_rate_pps(signals.queue_us / US_PER_S, self._delta)
        is_below = self._cwnd_bytes * US_PER_S <= target_pps * packet_bytes * signals.standing_us
        self._is_slow_start = self._is_slow_start and is_below
        loop_share = acked_bytes * signals.standing_us / (self._cwnd_bytes * signals.loop_us)
        step_bytes = self._cwnd_bytes * loop_share  # slow start: twice as much after a loop
        if not self._is_slow_start:
            step_bytes = window_step_bytes(
                self._velocity,
                self._delta,
                cwnd_bytes=self._cwnd_bytes,
                packet_bytes=packet_bytes,
                loop_share=loop_share,
            )
        if is_below:
            delivered_bytes = signals.standing_us / _bytes_us(self._delivery.rate_bps)
            most_bytes = max(self._cwnd_bytes, DELIVERY_HEADROOM * delivered_bytes)
            self._set_window(min(most_bytes, self._cwnd_bytes + step_bytes))
        else:
            self._set_window(self._cwnd_bytes - step_bytes)

    def _end_window(self) -> None:
        """All that was out when the window began has been told of: step 4, and the mode."""
        is_rising = self._cwnd_bytes > self._window_start_bytes
        self._same_windows = self._same_windows + 1 if is_rising == self._is_rising else 0
        self._velocity = next_velocity(self._velocity, self._same_windows, self._p)
        if self._is_slow_start:
            self._velocity = 1.0
        self._is_rising = is_rising
        self._window_start_bytes = self._cwnd_bytes
        self._window_end_seq = self._reader.newest_sent_seq
        if self._p.switches_mode and self._signals.is_competing:
            self._delta = competitive_delta(self._delta, has_lost=self._has_lost, p=self._p)
        else:
            self._delta = self._p.delta
        self._has_lost = False

    def _set_window(self, cwnd_bytes: float) -> None:
        standing_us = self._signals.standing_us
        least_bytes = standing_us / _bytes_us(self._min_bps)
        most_bytes = standing_us / _bytes_us(self._max_bps)
        self._cwnd_bytes = max(least_bytes, min(most_bytes, cwnd_bytes))

    def _set_rate(self, now_us: int) -> None:
        """The rate from the window, and what the encoder gets of it."""
        signals = self._signals
        if self._cwnd_bytes == 0.0:
            return
        rate_bps = BITS_PER_BYTE * self._cwnd_bytes * US_PER_S / signals.standing_us
        self._rate_bps = max(self._min_bps, min(self._max_bps, rate_bps))
        loops = (now_us - self._media_us) / signals.loop_us
        share = 1.0 if self._is_slow_start else 1.0 - math.exp(-loops / MEDIA_LOOPS)
        self._media_bps += share * (self._rate_bps - self._media_bps)
        self._media_us = now_us

    def _decision(self) -> RateDecision:
        out_bytes = 0.0
        if self._cwnd_bytes > 0:
            out_bytes = self._signals.loop_us / _bytes_us(self._rate_bps)
            out_bytes += self._largest_bytes
        return RateDecision(
            target_rate_bps=self._media_bps,
            pacing_rate_bps=PACING_FACTOR * self._rate_bps,
            cwnd_bytes=int(out_bytes),
        )


def _bytes_us(rate_bps: float) -> float:
    """Microseconds that a byte takes at a rate."""
    return BITS_PER_BYTE * US_PER_S / rate_bps
