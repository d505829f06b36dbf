"""BBR for media: version 3 of draft-ietf-ccwg-bbr-05, sender side.

Taken from the draft: Startup (2.77), Drain (0.5), ProbeBW with DOWN (0.9), CRUISE
(1.0), REFILL (1.0) and UP (1.25), ProbeRTT (half a bandwidth-delay product for 0.2 s when no lower
round trip was met for 5 s); the maximum of delivery rates over two cycles of ProbeBW (version 1
took ten round trips) and the minimum of round trips over 10 s; windows of 2 (UP: 2.25) products
plus the volume that acknowledgements come in at once; the response to more than 2 % loss while
probing (`inflight_longterm`) and to any loss otherwise (short-term bounds, not below 0.7 a round).
Rate samples: `baselines.delivery_rate`; model of the path: `baselines.bbr_model`. Nothing is taken
from version 1.

Differences to the draft:

- The bandwidth is for everything on the wire, and the media gets MEDIA_RATE_SHARE of it, times the
  pacing gain where that is below 1, half in ProbeRTT (whose window lets no more through): else
  frames, which come in bursts, would wait for the pacer without end. A window that has been full
  for 0.2 s at every report means that the capacity has fallen, which the filter of delivery rates
  learns two cycles later. A sender of files would simply stop at its window, an encoder has to be
  told: its target is MEDIA_RATE_SHARE of the latest delivery rate at most, until the next REFILL.
  (Where losses have cut the window, they have cut the bandwidth, too.)
- Random loss below 2 % does cost throughput at video's rates, though the draft promises otherwise
  for large flights: where less than 50 packets are in flight, a single loss is more than 2 % of
  them, and bounds `inflight_longterm`, which has no room for what reports make wait; and a round
  trip with a loss lowers the short-term bandwidth to the latest delivery rate, which is the media's
  share of it. On 2 Mbps with 50 ms, 1 % of loss takes about 0.2 to 0.4 of the throughput.
- Media is application limited always, and the draft says that BBR "does not deal well" with it
  (§3.8). So in Startup, REFILL and UP, where BBR must send what it paces to learn anything, padding
  fills the pacing rate, up to the bandwidth that the call's maximum rate needs; samples of these
  packets count as not application limited. It is real traffic, and its cost is BBR's.
- Whether the sender ran dry is told from what left (`baselines.flight`).
- The first pacing rate is 2.77 times the call's start rate, not of ten packets per millisecond, and
  in Startup the target is no lower than the start rate, as the pacing rate is never lowered there.
- A Startup ended by loss does not wait for a round in recovery: there is no such state here.
- With the round after a probe its samples end, too (`bw_probe_samples`, `ack_phase`), as in -06: in
  -05 both stay as they are, and any later loss bounds `inflight_longterm`.
- The random parts of the time between probes follow a fixed sequence (an estimator has no dice).
- Without a report for 1 s (RFC 6298 section 2.4) a timeout lets one packet more leave, as the draft
  says of an RTO; the media target is the minimum until a report comes. Ours.
- Spurious losses are not undone (§5.5.11) but counted as delivered when they come. No offload
  budget, no ECN. A report counts as one ACK. `inflight_longterm` grows smoothly in bytes, not by
  whole packets.
"""

from __future__ import annotations

import math

from baselines.bbr_model import (
    BETA,
    INITIAL_CWND,
    LEAST_PROBE_WAIT_US,
    MIN_PIPE_CWND,
    MOST_DRAIN_ROUNDS,
    MOST_RENO_ROUNDS,
    PROBE_RTT_CWND_GAIN,
    PROBE_RTT_DURATION_US,
    SMSS,
    STARTUP_PACING_GAIN,
    PathModel,
    inflight_at_loss,
    inflight_with_headroom,
    is_inflight_too_high,
    pacing_rate_bps,
    quantization_budget,
)
from baselines.bbr_states import GAINS, PROBE_BW_STATES, PROBING_STATES, AckPhase, State
from baselines.delivery_rate import DeliveryRateSampler, LostPacket, RateSample
from baselines.flight import Flight
from bwe_env.config import CallConfig
from bwe_env.estimator import RateDecision
from bwe_env.feedback import FeedbackReport, SentPacket
from bwe_env.units import s_to_us

#: Share of the bandwidth that the media gets. Ours: a tenth for frames larger than the average.
MEDIA_RATE_SHARE = 0.9
#: Without a report for so long, acknowledgements have timed out (RFC 6298 section 2.4, minimum).
TIMEOUT_US = s_to_us(1.0)
#: A window that is full for so long is no accident of a large frame. Ours: some frames.
BLOCKED_US = s_to_us(0.2)
#: Multiples of it, modulo 1, fill the unit interval evenly: the golden ratio's fraction.
GOLDEN_FRACTION = (math.sqrt(5.0) - 1.0) / 2.0


class Bbr:
    """A sender-side `BandwidthEstimator`; `state`, `model` and `cwnd` are there to be looked at.

    Args:
        call: the target's start and limits.
    """

    def __init__(self, call: CallConfig) -> None:
        self._min_rate_bps = float(call.min_rate_bps)
        self._max_rate_bps = float(call.max_rate_bps)
        self._start_rate_bps = float(call.start_rate_bps)
        self.state = State.STARTUP
        self.model = PathModel()
        self.flight = Flight()
        self.sampler = DeliveryRateSampler()
        self.cwnd = float(INITIAL_CWND)
        self._prior_cwnd = 0.0
        self._pacing_bps = STARTUP_PACING_GAIN * self._start_rate_bps
        self._is_padding = False
        self._limited_rounds = (False, False)  # cwnd-limited in the last round, and in this
        self._idle_restart = False
        self._open_us = 0  # the window was last seen not to be full
        self._blocked_rate_bps = math.inf  # delivery rate under a full window

        self._ack_phase = AckPhase.INIT
        self._has_probe_samples = False  # BBR.bw_probe_samples
        self._cycle_stamp_us = 0
        self._cycles = 0
        self._probe_wait_us = 0
        self._rounds_since_probe = 0
        self._up_rounds = 0
        self._longterm_growth = 0.0  # bytes of inflight_longterm per byte acknowledged
        self._drain_start_round = 0
        self._probe_rtt_done_us = 0
        self._probe_rtt_round_done = False

        self._report_us = 0
        self._timeout_us = 0
        self._has_timed_out = False

    # --- The one door -----------------------------------------------------------------------------

    def on_packet_sent(self, packet: SentPacket, now_us: int) -> None:
        """§4.1.2.2, §5.2.2."""
        flight = self.flight
        size_bytes = packet.size_bytes
        if flight.on_sent(size_bytes, now_us) and not self._is_padding:
            self.sampler.mark_app_limited(flight.bytes_in_flight - size_bytes)
        if flight.bytes_in_flight == size_bytes and self.sampler.is_app_limited:
            self._restart_from_idle(now_us)
        if flight.is_window_full:
            self._limited_rounds = (self._limited_rounds[0], True)
        self.sampler.on_sent(packet.seq, size_bytes, now_us, flight.bytes_in_flight)

    def on_feedback(self, report: FeedbackReport, now_us: int) -> RateDecision:
        """§5.2.3 and §5.2.4: what was lost, then the model, the state, and what may be sent."""
        self._timeout_us = now_us + TIMEOUT_US
        min_rtt_us = self.model.min_rtt_us
        known_us = 0.0 if math.isinf(min_rtt_us) else min_rtt_us
        rs = self.sampler.on_report(report, now_us, known_us)
        self._look_at_window(rs, now_us)
        self.flight.bytes_in_flight = report.bytes_in_flight
        if self._has_timed_out:
            self._has_timed_out = False
            self.cwnd = max(self.cwnd, self._prior_cwnd)
        for lost in rs.losses:
            self._on_lost(lost, rs, now_us)
        if rs.newly_acked_bytes > 0:
            self._update_model_and_state(rs, now_us)
            self._set_pacing_rate()
            self._set_cwnd(rs.newly_acked_bytes)
        return self._decide(now_us)

    def on_timeout(self, now_us: int) -> RateDecision:
        """No report for a second, or the call begins."""
        has_begun = self._timeout_us > 0
        self._timeout_us = now_us + TIMEOUT_US
        if has_begun:
            if not self._has_timed_out:
                self._save_cwnd()
                self._has_timed_out = True
            self.cwnd = float(self.flight.bytes_in_flight + SMSS)  # BBROnEnterRTO, §5.6.4.4
        return self._decide(now_us)

    def next_timeout_us(self) -> int:
        """The next time to give up on acknowledgements."""
        return self._timeout_us

    # --- Model and state, §5.2.3 ------------------------------------------------------------------

    def _update_model_and_state(self, rs: RateSample, now_us: int) -> None:
        model = self.model
        model.update_round(rs, self.sampler.delivered_bytes)
        if model.round_start:
            self._rounds_since_probe += 1
            self._limited_rounds = (self._limited_rounds[1], self.flight.is_window_full)
        model.update_max_bw(rs)
        model.adapt_to_losses(self.state in PROBING_STATES, self.cwnd)
        model.update_aggregation(rs, self.cwnd, now_us)
        model.check_full_bw(rs)
        self._check_startup_done()
        self._check_drain_done(now_us)
        self._update_probe_bw(rs, now_us)
        model.update_min_rtt(rs, now_us)
        self._check_probe_rtt(now_us)
        model.advance_latest(rs)

    @property
    def _is_cwnd_limited(self) -> bool:
        return any(self._limited_rounds)

    def _start_round(self) -> None:
        self.model.start_round(self.sampler.delivered_bytes)

    def _inflight(self, gain: float) -> float:
        """BBRInflight, §5.6.4.2."""
        return quantization_budget(gain * self.model.bdp, self.state is State.UP)

    def _check_startup_done(self) -> None:
        """§5.3.1."""
        model = self.model
        if self.state is State.STARTUP and model.startup_loss_is_high:
            model.full_bw_reached = True
            model.inflight_longterm = max(model.bdp, model.inflight_latest)
        if self.state is State.STARTUP and model.full_bw_reached:
            self.state = State.DRAIN
            self._drain_start_round = model.round_count

    def _check_drain_done(self, now_us: int) -> None:
        """§5.3.2."""
        if self.state is not State.DRAIN:
            return
        is_late = self.model.round_count > self._drain_start_round + MOST_DRAIN_ROUNDS
        if self.flight.bytes_in_flight <= self._inflight(1.0) or is_late:
            self._start_down(now_us)

    # --- ProbeBW, §5.3.3.6 ------------------------------------------------------------------------

    def _start_down(self, now_us: int) -> None:
        self.model.reset_congestion_signals()
        self._longterm_growth = 0.0
        # BBRPickProbeWait: 0 or 1 round trips less, and 2 to 3 s.
        self._cycles += 1
        fraction = self._cycles * GOLDEN_FRACTION % 1.0
        self._rounds_since_probe = round(fraction)
        self._probe_wait_us = LEAST_PROBE_WAIT_US + s_to_us(fraction)
        self._cycle_stamp_us = now_us
        self._ack_phase = AckPhase.PROBE_STOPPING
        self._start_round()
        self.state = State.DOWN

    def _start_refill(self) -> None:
        self.model.reset_short_term()
        self._blocked_rate_bps = math.inf
        self._up_rounds = 0
        self._ack_phase = AckPhase.REFILLING
        self._start_round()
        self.state = State.REFILL

    def _start_up(self, rs: RateSample) -> None:
        self._has_probe_samples = True
        self._ack_phase = AckPhase.PROBE_STARTING
        self._start_round()
        self.model.reset_full_bw(rs.delivery_rate_bps)
        self.state = State.UP
        self._raise_longterm_slope()

    def _update_probe_bw(self, rs: RateSample, now_us: int) -> None:
        """BBRUpdateProbeBWCyclePhase."""
        if not self.model.full_bw_reached:
            return
        self._adapt_longterm_model(rs)
        if self.state in (State.DOWN, State.CRUISE):
            if self._is_time_to_probe(now_us):
                self._start_refill()
            elif self.state is State.DOWN and self._is_time_to_cruise():
                self.state = State.CRUISE
        elif self.state is State.REFILL:
            if self.model.round_start:
                self._start_up(rs)
        elif self.state is State.UP and self._is_time_to_go_down(rs):
            self._start_down(now_us)

    def _is_time_to_probe(self, now_us: int) -> bool:
        """BBRIsTimeToProbeBW, §5.3.3.5.3."""
        reno_rounds = min(self._target_inflight() / SMSS, MOST_RENO_ROUNDS)
        has_waited = now_us > self._cycle_stamp_us + self._probe_wait_us
        return has_waited or self._rounds_since_probe >= reno_rounds

    def _target_inflight(self) -> float:
        return min(self.model.bdp, self.cwnd)

    def _is_time_to_cruise(self) -> bool:
        most_bytes = min(inflight_with_headroom(self.model.inflight_longterm), self._inflight(1.0))
        return self.flight.bytes_in_flight <= most_bytes

    def _is_time_to_go_down(self, rs: RateSample) -> bool:
        if self._is_cwnd_limited and self.cwnd >= self.model.inflight_longterm:
            self.model.reset_full_bw(rs.delivery_rate_bps)
            return False
        return self.model.full_bw_now

    def _raise_longterm_slope(self) -> None:
        """BBRRaiseInflightLongtermSlope: a round trip adds 1, 2, 4, … packets."""
        self._longterm_growth = min(1.0, (SMSS << self._up_rounds) / self.cwnd)
        self._up_rounds = min(self._up_rounds + 1, 30)

    def _adapt_longterm_model(self, rs: RateSample) -> None:
        """BBRAdaptLongTermModel."""
        model = self.model
        if model.round_start and self._ack_phase is AckPhase.PROBE_STARTING:
            self._ack_phase = AckPhase.PROBE_FEEDBACK
        if model.round_start and self._ack_phase is AckPhase.PROBE_STOPPING:
            self._ack_phase = AckPhase.INIT
            self._has_probe_samples = False  # losses from now on are of packets after the probe
            if self.state in PROBE_BW_STATES and not rs.is_app_limited:
                model.advance_max_bw_filter()
        if is_inflight_too_high(rs.lost_bytes, rs.tx_in_flight_bytes):
            return
        if math.isinf(model.inflight_longterm):
            return
        model.inflight_longterm = max(model.inflight_longterm, rs.tx_in_flight_bytes)
        if self.state is State.UP:
            self._probe_longterm_upward(rs)

    def _probe_longterm_upward(self, rs: RateSample) -> None:
        """BBRProbeInflightLongtermUpward."""
        model = self.model
        if not self._is_cwnd_limited or self.cwnd < model.inflight_longterm:
            return
        model.inflight_longterm += self._longterm_growth * rs.newly_acked_bytes
        if model.round_start:
            self._raise_longterm_slope()

    def _on_lost(self, lost: LostPacket, rs: RateSample, now_us: int) -> None:
        """BBRHandleLostPacket and BBRHandleInflightTooHigh, §5.5.10.2."""
        self.model.note_loss(lost, self.sampler.delivered_bytes)
        if not self._has_probe_samples:
            return
        if not is_inflight_too_high(lost.lost_bytes, lost.tx_in_flight_bytes):
            return
        self._has_probe_samples = False  # only react once per probe
        if not lost.is_app_limited:
            at_loss = inflight_at_loss(lost.tx_in_flight_bytes, lost.lost_bytes, lost.size_bytes)
            self.model.inflight_longterm = max(at_loss, BETA * self._target_inflight())
        if self.state is State.UP:
            self._start_down(now_us)

    # --- ProbeRTT, §5.3.4.3 -----------------------------------------------------------------------

    def _probe_rtt_cwnd(self) -> float:
        return max(PROBE_RTT_CWND_GAIN * self.model.bdp, MIN_PIPE_CWND)

    def _check_probe_rtt(self, now_us: int) -> None:
        is_due = self.model.probe_rtt_expired and not self._idle_restart
        if self.state is not State.PROBE_RTT and is_due:
            self._save_cwnd()
            self.state = State.PROBE_RTT
            self._probe_rtt_done_us = 0
            self._ack_phase = AckPhase.PROBE_STOPPING
            self._start_round()
        if self.state is State.PROBE_RTT:
            self._handle_probe_rtt(now_us)
        self._idle_restart = False

    def _handle_probe_rtt(self, now_us: int) -> None:
        in_flight = self.flight.bytes_in_flight
        self.sampler.mark_app_limited(in_flight)  # ignore low rate samples
        if self._probe_rtt_done_us == 0:
            if in_flight <= self._probe_rtt_cwnd():
                self._probe_rtt_done_us = now_us + PROBE_RTT_DURATION_US
                self._probe_rtt_round_done = False
                self._start_round()
            return
        self._probe_rtt_round_done |= self.model.round_start
        if self._probe_rtt_round_done:
            self._check_probe_rtt_done(now_us)

    def _check_probe_rtt_done(self, now_us: int) -> None:
        if self._probe_rtt_done_us == 0 or now_us <= self._probe_rtt_done_us:
            return
        self.model.probe_rtt_min_stamp_us = now_us  # schedules the next one
        self.cwnd = max(self.cwnd, self._prior_cwnd)
        self.model.reset_short_term()
        if self.model.full_bw_reached:
            self._start_down(now_us)
            self.state = State.CRUISE
        else:
            self.state = State.STARTUP

    # --- What may be sent, §5.4 and §5.6 ----------------------------------------------------------

    def _restart_from_idle(self, now_us: int) -> None:
        """BBRHandleRestartFromIdle."""
        self._idle_restart = True
        self.model.restart_aggregation(now_us)
        if self.state in PROBE_BW_STATES:
            self._pacing_bps = pacing_rate_bps(1.0, self.model.bw_bps)
        elif self.state is State.PROBE_RTT:
            self._check_probe_rtt_done(now_us)

    def _save_cwnd(self) -> None:
        is_whole = self.state is not State.PROBE_RTT and not self._has_timed_out
        self._prior_cwnd = self.cwnd if is_whole else max(self._prior_cwnd, self.cwnd)

    def _set_pacing_rate(self) -> None:
        rate_bps = pacing_rate_bps(GAINS[self.state][0], self.model.bw_bps)
        if self.model.full_bw_reached or rate_bps > self._pacing_bps:
            self._pacing_bps = rate_bps

    def _set_cwnd(self, newly_acked_bytes: int) -> None:
        """BBRSetCwnd, §5.6.4.6, and the bounds of §5.6.4.5 and §5.6.4.7."""
        model = self.model
        cap = GAINS[self.state][1] * model.bdp + model.extra_acked
        max_inflight = quantization_budget(cap, self.state is State.UP)
        if model.full_bw_reached:
            self.cwnd = min(self.cwnd + newly_acked_bytes, max_inflight)
        elif self.cwnd < max_inflight or self.sampler.delivered_bytes < INITIAL_CWND:
            self.cwnd += newly_acked_bytes
        self.cwnd = max(self.cwnd, MIN_PIPE_CWND)
        if self.state is State.PROBE_RTT:
            self.cwnd = min(self.cwnd, self._probe_rtt_cwnd())
        cap = math.inf
        if self.state in (State.CRUISE, State.PROBE_RTT):
            cap = inflight_with_headroom(model.inflight_longterm)
        elif self.state in PROBE_BW_STATES:
            cap = model.inflight_longterm
        self.cwnd = min(self.cwnd, max(min(cap, model.inflight_shortterm), MIN_PIPE_CWND))

    def _look_at_window(self, rs: RateSample, now_us: int) -> None:
        """Before a report opens it: is the window full all the time, and not because it is cut?"""
        is_cut = self.state is State.PROBE_RTT or not math.isinf(self.model.inflight_shortterm)
        if is_cut or self.state is State.STARTUP or not self.flight.is_window_full:
            self._open_us = now_us
        elif now_us - self._open_us > BLOCKED_US and rs.delivery_rate_bps > 0.0:
            self._blocked_rate_bps = rs.delivery_rate_bps

    def _target_rate_bps(self) -> float:
        """The media's share of what pacing gain, bandwidth and window let through."""
        if self._has_timed_out:
            return self._min_rate_bps
        if self.state is State.STARTUP:
            target_bps = max(MEDIA_RATE_SHARE * self.model.bw_bps, self._start_rate_bps)
        else:
            # Either gain lets no more through: 0.5 of Drain is not made good by a window of 2.
            share = MEDIA_RATE_SHARE * math.prod(min(1.0, gain) for gain in GAINS[self.state])
            most_bps = MEDIA_RATE_SHARE * self._blocked_rate_bps
            target_bps = min(share * self.model.bw_bps, most_bps)
        return max(self._min_rate_bps, min(self._max_rate_bps, target_bps))

    def _decide(self, now_us: int) -> RateDecision:
        pacing_bps = max(self._pacing_bps, self._min_rate_bps)
        self._is_padding = self.state in PROBING_STATES and not self._has_timed_out
        most_padding_bps = self._max_rate_bps / MEDIA_RATE_SHARE
        cwnd_bytes = math.ceil(self.cwnd)
        self.flight.decide(self.flight.bytes_in_flight, cwnd_bytes, pacing_bps, now_us)
        return RateDecision(
            target_rate_bps=self._target_rate_bps(),
            pacing_rate_bps=pacing_bps,
            padding_rate_bps=min(pacing_bps, most_padding_bps) if self._is_padding else 0.0,
            cwnd_bytes=cwnd_bytes,
        )
