"""NADA: Network-Assisted Dynamic Adaptation for real-time media, RFC 8698 (experimental).

The receiver's half (section 4.2) condenses queueing delay, loss and marking into one congestion
signal in milliseconds; the sender's half (section 4.3) steers its rate to where the signal is
PRIO * XREF * RMAX / rate. So a flow near its maximum rate accepts a queue of about XREF, and one
far below it a longer one: a link of 1 Mbps and RMAX = 6 Mbps stand at 60 ms.

Known deviations from RFC 8698:

- Feedback is a transport-wide report of every packet, so that the receiver's half runs at the
  sender, on the receiver's clock. Its interval is what the reports allow: the first one at least
  DELTA after the last update counts, where reports come up to 250 ms apart.
- The rate starts at the call's start rate instead of RMIN (section 4.3), as a call's other
  controllers do. RMIN and RMAX are the call's minimum and maximum: 6 Mbps rather than the 1.5 of
  Figure 3, so that a slow link rests at a longer queue. A PRIO of 0.25, which gives (5) the RMAX of
  Figure 3, freezes less and scores lower on 60 validation networks (2.93 against 3.01 MOS).
- There is no rate-shaping buffer (section 5.2.1): its place is taken by the simulated sender's
  pacer, whose length a controller does not know. FPS, BETA_V and BETA_S have no meaning then: video
  is coded and sent at the reference rate.
- The criterion of accelerated ramp-up looks at queueing delays after the minimum filter of section
  5.1.1, as the signal does: packets of one frame leave faster than the link may be, and the last of
  them would end ramp-up on an empty queue.
- The base delay is the minimum of the whole call: the "tens of minutes" of section 5.1.1 are
  longer.
- No ECN in the simulated network: p_mark is always 0.
- Where reports stay away, the rate is halved as by the nofeedback timer of RFC 5348 section 4.4
  (`baselines.report_reading`).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from baselines.loss_interval import LossIntervals
from baselines.report_reading import NO_FEEDBACK_FACTOR, SRTT_MEMORY, ReportReader, round_trip_us
from bwe_env.config import CallConfig
from bwe_env.errors import ConfigError
from bwe_env.estimator import RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.units import BITS_PER_BYTE, US_PER_MS, US_PER_S, us_to_ms

#: Taps of the minimum filter over queueing delays of packets. RFC 8698 section 5.1.1.
MIN_FILTER_PACKETS = 15


@dataclass(frozen=True, kw_only=True)
class NadaParameters:
    """Figure 3 of RFC 8698, less what the rate-shaping buffer and the media codec bring."""

    prio: float = 1.0
    """PRIO, weight of priority"""
    x_ref_ms: float = 10.0
    """XREF, reference congestion level"""
    kappa: float = 0.5
    """KAPPA, gain of the gradual update"""
    eta: float = 2.0
    """ETA, weight of the signal's change in it"""
    tau_ms: float = 500.0
    """TAU, upper bound of the RTT in it"""
    delta_ms: float = 100.0
    """DELTA, target feedback interval"""
    log_window_ms: float = 500.0
    """LOGWIN, observation window of the receiver"""
    q_eps_ms: float = 10.0
    """QEPS, queueing delay that ends accelerated ramp-up"""
    d_filt_ms: float = 120.0
    """DFILT, bound on the delay of filtering"""
    gamma_max: float = 0.5
    """GAMMA_MAX, largest increase of accelerated ramp-up"""
    q_bound_ms: float = 50.0
    """QBOUND, queueing delay that ramp-up may cause"""
    multi_loss: float = 7.0
    """MULTILOSS, mean loss intervals for which a loss is recent"""
    q_th_ms: float = 50.0
    """QTH, queueing delay beyond which it is warped"""
    lambda_warp: float = 0.5
    """LAMBDA, exponent of the warping"""
    plr_ref: float = 0.01
    """PLRREF, reference loss ratio"""
    pmr_ref: float = 0.01
    """PMRREF, reference marking ratio"""
    d_loss_ms: float = 10.0
    """DLOSS, delay penalty at PLRREF"""
    d_mark_ms: float = 2.0
    """DMARK, delay penalty at PMRREF"""
    alpha: float = 0.1
    """ALPHA, weight of the newest loss ratio"""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"NadaParameters.{name}={value!r} must be finite and above 0.")


def warped_delay_ms(queue_delay_ms: float, p: NadaParameters) -> float:
    """d_tilde, (1): the queueing delay, less and less of it beyond QTH."""
    if queue_delay_ms < p.q_th_ms:
        return queue_delay_ms
    return p.q_th_ms * math.exp(-p.lambda_warp * (queue_delay_ms - p.q_th_ms) / p.q_th_ms)


def warping_share(packets_since_loss: int | None, loss_int: float, p: NadaParameters) -> float:
    """How far (1) holds: 1 up to loss_exp = MULTILOSS * loss_int packets after a loss, then falling
    to 0 within another loss_int. Section 4.2.

    Args:
        packets_since_loss: None before the first loss, where nothing is warped.
        loss_int: average loss interval in packets.
    """
    if packets_since_loss is None:
        return 0.0
    overdue = (packets_since_loss - p.multi_loss * loss_int) / loss_int
    return min(1.0, max(0.0, 1.0 - overdue))


def congestion_signal_ms(
    d_tilde_ms: float, p_mark: float, p_loss: float, p: NadaParameters
) -> float:
    """x_curr, (2); ratios are 0 … 1."""
    marking_ms = p.d_mark_ms * (p_mark / p.pmr_ref) ** 2
    return d_tilde_ms + marking_ms + p.d_loss_ms * (p_loss / p.plr_ref) ** 2


def ramp_up_gain(rtt_ms: float, p: NadaParameters) -> float:
    """gamma, (3). With the values of Figure 3, GAMMA_MAX never binds: at most 50/220."""
    return min(p.gamma_max, p.q_bound_ms / (rtt_ms + p.delta_ms + p.d_filt_ms))


def accelerated_rate_bps(
    r_ref_bps: float, r_recv_bps: float, rtt_ms: float, p: NadaParameters
) -> float:
    """r_ref of accelerated ramp-up, (4)."""
    return max(r_ref_bps, (1.0 + ramp_up_gain(rtt_ms, p)) * r_recv_bps)


def equilibrium_signal_ms(rate_bps: float, r_max_bps: float, p: NadaParameters) -> float:
    """The signal at which a rate neither rises nor falls, from (5)."""
    return p.prio * p.x_ref_ms * r_max_bps / rate_bps


def gradual_rate_bps(
    r_ref_bps: float,
    x_curr_ms: float,
    x_prev_ms: float,
    *,
    delta_ms: float,
    r_max_bps: float,
    p: NadaParameters,
) -> float:
    """r_ref of the gradual update, (5) to (7); not clipped.

    Args:
        delta_ms: time since the last update.
    """
    x_offset_ms = x_curr_ms - equilibrium_signal_ms(r_ref_bps, r_max_bps, p)
    x_diff_ms = x_curr_ms - x_prev_ms
    offset_share = p.kappa * (delta_ms / p.tau_ms) * (x_offset_ms / p.tau_ms)
    return r_ref_bps * (1.0 - offset_share - p.kappa * p.eta * x_diff_ms / p.tau_ms)


@dataclass(slots=True)
class Observation:
    """What the receiver's half reports, section 5.3."""

    is_ramping_up: bool
    """rmode = 0"""
    x_curr_ms: float
    r_recv_bps: float


class NadaReceiver:
    """Section 4.2: from arrivals on the receiver's clock to the congestion signal."""

    def __init__(self, parameters: NadaParameters) -> None:
        self._p = parameters
        self._d_base_ms = math.inf  # d_base; holds the offset of the clocks, too
        self._p_loss = 0.0  # p_loss, smoothed
        self._d_queue_ms = 0.0  # d_queue after the minimum filter
        self._taps_ms: deque[float] = deque(maxlen=MIN_FILTER_PACKETS)
        # Of each packet in LOGWIN: when it came or the gap was seen, bytes (0 for a missing one),
        # filtered d_queue.
        self._window: deque[tuple[int, int, float]] = deque()
        self._gap_packets = 0  # missing since the last arrival
        self.losses = LossIntervals()

    def on_packet(self, packet: SentPacket, arrival_time_us: int) -> None:
        """A packet has arrived; those missing before it are seen to be so now."""
        d_fwd_ms = us_to_ms(arrival_time_us - packet.send_time_us)
        self._d_base_ms = min(self._d_base_ms, d_fwd_ms)
        # Forward delays, not queueing delays: a later base then holds for the taps before it, too.
        self._taps_ms.append(d_fwd_ms)
        self._d_queue_ms = min(self._taps_ms) - self._d_base_ms
        for _ in range(self._gap_packets):
            self._window.append((arrival_time_us, 0, self._d_queue_ms))
        self._gap_packets = 0
        self._window.append((arrival_time_us, packet.size_bytes, self._d_queue_ms))

    def on_loss(self) -> None:
        """The next packet is missing."""
        self._gap_packets += 1

    def observe(self, now_us: int) -> Observation:
        """It is time to report (`now_us` on the receiver's clock)."""
        p = self._p
        window = self._window
        while window and window[0][0] <= now_us - p.log_window_ms * US_PER_MS:
            window.popleft()
        num_lost = sum(size_bytes == 0 for _, size_bytes, _ in window)
        p_inst = num_lost / len(window) if window else 0.0
        self._p_loss += p.alpha * (p_inst - self._p_loss)  # (10)
        longest_ms = max((d_queue_ms for _, _, d_queue_ms in window), default=math.inf)
        window_bits = BITS_PER_BYTE * sum(size_bytes for _, size_bytes, _ in window)
        return Observation(
            is_ramping_up=num_lost == 0 and longest_ms < p.q_eps_ms,
            x_curr_ms=congestion_signal_ms(self._d_tilde_ms(), 0.0, self._p_loss, p),
            r_recv_bps=window_bits * US_PER_S / (p.log_window_ms * US_PER_MS),
        )

    def _d_tilde_ms(self) -> float:
        share = warping_share(
            self.losses.packets_since_loss, self.losses.average_packets(), self._p
        )
        if share == 0.0:
            return self._d_queue_ms
        warped_ms = warped_delay_ms(self._d_queue_ms, self._p)
        return share * warped_ms + (1.0 - share) * self._d_queue_ms


class Nada:
    """A sender-side `BandwidthEstimator`; see the module for what it follows and where it differs.

    Args:
        call: its rates: RMIN, where the rate starts, and RMAX.
        parameters: those of Figure 3.
    """

    def __init__(self, *, call: CallConfig, parameters: NadaParameters | None = None) -> None:
        self._p = parameters or NadaParameters()
        self._r_min_bps = float(call.min_rate_bps)  # RMIN
        self._r_max_bps = float(call.max_rate_bps)  # RMAX
        self._r_ref_bps = float(call.start_rate_bps)  # r_ref
        self._x_prev_ms = 0.0  # x_prev
        self._rtt_us = 0.0  # rtt, smoothed
        self._built_us: int | None = None  # receiver's clock at the last update, as t_last of §4.2
        self._updated_us = 0  # sender's clock at the last update, t_last of §4.3
        self._reader = ReportReader()
        self._receiver = NadaReceiver(self._p)

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """A packet has left."""
        self._reader.newest_sent_seq = packet.seq

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """A report has arrived; the rate moves where DELTA is over since it last did."""
        self._read(report, now_us)
        self._reader.restart_timer(self._rtt_us, now_us)
        if self._built_us is None:  # nothing has been observed yet
            self._built_us = report.built_us
            self._updated_us = now_us
        elif report.built_us - self._built_us >= self._p.delta_ms * US_PER_MS:
            self._update(
                self._receiver.observe(report.built_us), us_to_ms(now_us - self._updated_us)
            )
            self._built_us = report.built_us
            self._updated_us = now_us
        return self._decision()

    def on_timeout(self, now_us: int) -> RateDecision:
        """Reports have stayed away: halve the rate, unless nothing is out."""
        if self._reader.is_silent(now_us):
            self._r_ref_bps = max(self._r_min_bps, NO_FEEDBACK_FACTOR * self._r_ref_bps)
        self._reader.restart_timer(self._rtt_us, now_us)
        return self._decision()

    def next_timeout_us(self) -> int:
        """When silence will have lasted too long."""
        return self._reader.timer_us

    def _read(self, report: FeedbackReport, now_us: int) -> None:
        receiver = self._receiver
        for result in self._reader.first_verdicts(report):
            is_lost = result.arrival_time_us is None
            receiver.losses.on_packet(
                is_lost=is_lost, send_time_us=result.sent.send_time_us, rtt_us=self._rtt_us
            )
            if result.arrival_time_us is None:
                receiver.on_loss()
                continue
            receiver.on_packet(result.sent, result.arrival_time_us)
            rtt_us = round_trip_us(result, report, now_us)
            memory = SRTT_MEMORY if self._rtt_us > 0 else 0.0
            self._rtt_us = memory * self._rtt_us + (1.0 - memory) * rtt_us

    def _update(self, observed: Observation, delta_ms: float) -> None:
        """The sender's half, section 4.3, up to the clipping of (8) and (9)."""
        if observed.is_ramping_up:
            r_ref_bps = accelerated_rate_bps(
                self._r_ref_bps, observed.r_recv_bps, us_to_ms(self._rtt_us), self._p
            )
        else:
            r_ref_bps = gradual_rate_bps(
                self._r_ref_bps,
                observed.x_curr_ms,
                self._x_prev_ms,
                delta_ms=delta_ms,
                r_max_bps=self._r_max_bps,
                p=self._p,
            )
        self._r_ref_bps = max(self._r_min_bps, min(self._r_max_bps, r_ref_bps))
        self._x_prev_ms = observed.x_curr_ms

    def _decision(self) -> RateDecision:
        return RateDecision(target_rate_bps=self._r_ref_bps)
