"""BBR's constants, equations and model of the path: draft-ietf-ccwg-bbr-05 §2 and §5.5.

Names are the draft's (BBR version 3); rates are bits per second, volumes bytes, times microseconds.
The state machine that uses them is `baselines.bbr`.
"""

from __future__ import annotations

import math
from collections import deque

from baselines.delivery_rate import LostPacket, RateSample
from bwe_env.units import BITS_PER_BYTE, US_PER_S, s_to_us

# --- Constants, §2 and §5.6.1 ---------------------------------------------------------------------

#: 4 ln 2: doubles the sending rate each round (§2.4).
STARTUP_PACING_GAIN = 2.77
#: Empties Startup's queue in a round trip or less (§2.4).
DRAIN_PACING_GAIN = 0.5
#: §5.3.3.1, §5.3.3.4.
PROBE_BW_DOWN_PACING_GAIN = 0.9
PROBE_BW_UP_PACING_GAIN = 1.25
#: §2.5, §5.3.3.4, §2.13.2.
DEFAULT_CWND_GAIN = 2.0
PROBE_BW_UP_CWND_GAIN = 2.25
PROBE_RTT_CWND_GAIN = 0.5
#: Paces 1 % below the bandwidth (§2.4, BBR.PacingMarginPercent).
PACING_MARGIN_RATIO = 0.01
#: Most loss per round trip while probing for bandwidth (§2.7).
LOSS_THRESH = 0.02
#: What a round trip with loss leaves at least of the short-term bounds (§2.7).
BETA = 0.7
#: Share of `inflight_longterm` left to others while cruising (§2.7).
HEADROOM = 0.15
#: A round without so much growth is one without (§5.3.1.2), and so many fill the pipe.
FULL_BW_GROWTH = 1.25
FULL_BW_COUNT = 3
#: Runs of lost packets in a round that end Startup (§5.3.1.3, BBRStartupFullLossCnt).
STARTUP_FULL_LOSS_COUNT = 6
#: Drain ends after so many rounds at the latest (§5.3.2).
MOST_DRAIN_ROUNDS = 3
#: §2.13.
MIN_RTT_FILTER_LEN_US = s_to_us(10.0)
PROBE_RTT_INTERVAL_US = s_to_us(5.0)
PROBE_RTT_DURATION_US = s_to_us(0.2)
#: Round trips that the aggregation filter remembers (§2.11).
EXTRA_ACKED_FILTER_LEN = 10
#: Most round trips between probes for bandwidth (§5.3.3.5), and the wall clock's 2 to 3 s.
MOST_RENO_ROUNDS = 63
LEAST_PROBE_WAIT_US = s_to_us(2.0)
#: Sender's maximum segment size: the largest packet of a call, its headers apart (MTU_BYTES).
SMSS = 1_200
#: §2.7, BBR.MinPipeCwnd.
MIN_PIPE_CWND = 4 * SMSS
#: C.InitialCwnd (RFC 6928).
INITIAL_CWND = 10 * SMSS


# --- Equations ------------------------------------------------------------------------------------


def bdp_bytes(bw_bps: float, min_rtt_us: float) -> float:
    """Bandwidth-delay product, §2.8.2; C.InitialCwnd before the first round trip (§5.6.4.2)."""
    if math.isinf(min_rtt_us):
        return INITIAL_CWND
    return bw_bps * min_rtt_us / (BITS_PER_BYTE * US_PER_S)


def quantization_budget(inflight_cap: float, is_probing_up: bool) -> float:
    """BBRQuantizationBudget, §5.6.4.2, of a sender without offload."""
    inflight_cap = max(inflight_cap, MIN_PIPE_CWND)
    return inflight_cap + 2 * SMSS if is_probing_up else inflight_cap


def pacing_rate_bps(pacing_gain: float, bw_bps: float) -> float:
    """BBRSetPacingRateWithGain, §5.6.2."""
    return pacing_gain * bw_bps * (1.0 - PACING_MARGIN_RATIO)


def is_inflight_too_high(lost_bytes: float, tx_in_flight_bytes: float) -> bool:
    """IsInflightTooHigh, §5.5.10.2, where losses can be told apart."""
    return lost_bytes > tx_in_flight_bytes * LOSS_THRESH


def inflight_at_loss(tx_in_flight_bytes: float, lost_bytes: float, size_bytes: int) -> float:
    """BBRInflightAtLoss, §5.5.10.2: bytes in flight at which losses passed the threshold.

    Args:
        tx_in_flight_bytes: when the lost packet was sent, itself included.
        lost_bytes: lost since then, itself included.
        size_bytes: of the packet.
    """
    inflight_prev = tx_in_flight_bytes - size_bytes
    lost_prev = lost_bytes - size_bytes
    lost_prefix = (LOSS_THRESH * inflight_prev - lost_prev) / (1.0 - LOSS_THRESH)
    return inflight_prev + lost_prefix


def short_term_bound(bound: float, start: float, latest: float) -> float:
    """BBRInitLowerBounds and BBRLossLowerBounds, §5.5.10.3: the bound after a round with loss."""
    return max(latest, BETA * (start if math.isinf(bound) else bound))


def inflight_with_headroom(inflight_longterm: float) -> float:
    """BBRInflightWithHeadroom, §5.3.3.6."""
    if math.isinf(inflight_longterm):
        return math.inf
    headroom = max(SMSS, HEADROOM * inflight_longterm)
    return max(inflight_longterm - headroom, MIN_PIPE_CWND)


# --- The model ------------------------------------------------------------------------------------


class PathModel:
    """Bandwidth and volume of the path at both time scales, §2.8, and what they follow from.

    Attributes:
        max_bw_bps: greatest delivery rate of this and the last cycle of ProbeBW.
        bw_bps: the same under the short-term bound.
        bw_shortterm_bps: infinite for none, as the next two.
        inflight_longterm: bytes.
        inflight_shortterm: bytes.
        min_rtt_us: least round trip of 10 s, infinite before the first.
        extra_acked: bytes that are acknowledged at once beyond what the bandwidth explains.
        round_count: packet-timed round trips.
        round_start: whether the last report began one.
        loss_in_round: whether this round trip has had losses.
        full_bw_reached: whether the pipe was ever full.
        full_bw_now: whether it is full since the latest look.
        probe_rtt_expired: whether it is time to look for a lower round trip.
    """

    def __init__(self) -> None:
        self.bw_bps = 0.0
        self._max_bw = [0.0, 0.0]  # of the last cycle, and of this
        self.bw_shortterm_bps = math.inf
        self.inflight_longterm = math.inf
        self.inflight_shortterm = math.inf
        self.bw_latest_bps = 0.0
        self.inflight_latest = 0.0

        self.min_rtt_us = math.inf
        self._min_rtt_stamp_us = 0
        self._probe_rtt_min_delay_us = math.inf
        self.probe_rtt_min_stamp_us = 0
        self.probe_rtt_expired = False

        self.round_count = 0
        self.round_start = False
        self._next_round_delivered = 0
        self.loss_in_round = False
        self.loss_round_start = False
        self._loss_round_delivered = 0
        self._lost_in_round = 0
        self._acked_in_round = 0
        self._loss_runs_in_round = 0
        self._newest_lost_seq = -2
        self.startup_loss_is_high = False

        self.full_bw_reached = False
        self.full_bw_now = False
        self._full_bw_bps = 0.0
        self._full_bw_count = 0

        self.extra_acked = 0.0
        self._extra_acked_maxima: deque[tuple[int, float]] = deque()
        self._extra_interval_start_us = 0
        self._extra_delivered = 0

    @property
    def max_bw_bps(self) -> float:
        """BBR.max_bw, §5.5.3."""
        return max(self._max_bw)

    @property
    def bdp(self) -> float:
        """Bytes."""
        return bdp_bytes(self.bw_bps, self.min_rtt_us)

    def note_loss(self, lost: LostPacket, delivered_bytes: int) -> None:
        """BBRNoteLoss, §5.5.10.2."""
        if not self.loss_in_round:
            self._loss_round_delivered = delivered_bytes
        self.loss_in_round = True
        self._lost_in_round += lost.size_bytes
        self._loss_runs_in_round += lost.seq != self._newest_lost_seq + 1
        self._newest_lost_seq = lost.seq

    def start_round(self, delivered_bytes: int) -> None:
        """BBRStartRound, §5.5.1."""
        self._next_round_delivered = delivered_bytes

    def update_round(self, rs: RateSample, delivered_bytes: int) -> None:
        """BBRUpdateRound, §5.5.1, and the round of losses of BBRUpdateLatestDeliverySignals."""
        self.round_start = rs.prior_delivered_bytes >= self._next_round_delivered
        if self.round_start:
            self.start_round(delivered_bytes)
            self.round_count += 1
        self.bw_latest_bps = max(self.bw_latest_bps, rs.delivery_rate_bps)
        self.inflight_latest = max(self.inflight_latest, rs.delivered_bytes)
        self._acked_in_round += rs.newly_acked_bytes
        self.loss_round_start = rs.prior_delivered_bytes >= self._loss_round_delivered
        if self.loss_round_start:
            self._loss_round_delivered = delivered_bytes

    def update_max_bw(self, rs: RateSample) -> None:
        """BBRUpdateMaxBw, §5.5.5."""
        rate_bps = rs.delivery_rate_bps
        if rate_bps > 0.0 and (rate_bps >= self.max_bw_bps or not rs.is_app_limited):
            self._max_bw[1] = max(self._max_bw[1], rate_bps)

    def advance_max_bw_filter(self) -> None:
        """BBRAdvanceMaxBwFilter, §5.5.6: a new cycle."""
        if self._max_bw[1] > 0.0:  # ours: a cycle without a sample forgets nothing
            self._max_bw = [self._max_bw[1], 0.0]

    def adapt_to_losses(self, is_probing_bw: bool, cwnd_bytes: float) -> None:
        """Once per round trip with losses: BBRUpdateCongestionSignals, §5.5.10.3, and Startup's."""
        if not self.loss_round_start:
            return
        if self.loss_in_round and not is_probing_bw:
            self.bw_shortterm_bps = short_term_bound(
                self.bw_shortterm_bps, self.max_bw_bps, self.bw_latest_bps
            )
            self.inflight_shortterm = short_term_bound(
                self.inflight_shortterm, cwnd_bytes, self.inflight_latest
            )
        self.startup_loss_is_high = (
            self._loss_runs_in_round >= STARTUP_FULL_LOSS_COUNT
            and is_inflight_too_high(
                self._lost_in_round, self._lost_in_round + self._acked_in_round
            )
        )
        self.loss_in_round = False
        self._lost_in_round = self._acked_in_round = self._loss_runs_in_round = 0

    def advance_latest(self, rs: RateSample) -> None:
        """BBRAdvanceLatestDeliverySignals and BBRBoundBWForModel, at the end of a report."""
        if self.loss_round_start:
            self.bw_latest_bps = rs.delivery_rate_bps
            self.inflight_latest = rs.delivered_bytes
        self.bw_bps = min(self.max_bw_bps, self.bw_shortterm_bps)

    def reset_congestion_signals(self) -> None:
        """BBRResetCongestionSignals."""
        self.loss_in_round = False
        self.bw_latest_bps = 0.0
        self.inflight_latest = 0.0

    def reset_short_term(self) -> None:
        """BBRResetShortTermModel."""
        self.bw_shortterm_bps = math.inf
        self.inflight_shortterm = math.inf

    def reset_full_bw(self, full_bw_bps: float = 0.0) -> None:
        """BBRResetFullBW, §5.3.1.2, with a rate to grow from."""
        self._full_bw_bps = full_bw_bps
        self._full_bw_count = 0
        self.full_bw_now = False

    def check_full_bw(self, rs: RateSample) -> None:
        """BBRCheckFullBWReached, §5.3.1.2."""
        if self.full_bw_now or not self.round_start or rs.is_app_limited:
            return
        if rs.delivery_rate_bps <= 0.0:  # ours: no reliable sample, no round without growth
            return
        if rs.delivery_rate_bps >= self._full_bw_bps * FULL_BW_GROWTH:
            self.reset_full_bw(rs.delivery_rate_bps)
            return
        self._full_bw_count += 1
        self.full_bw_now = self._full_bw_count >= FULL_BW_COUNT
        self.full_bw_reached |= self.full_bw_now

    def update_min_rtt(self, rs: RateSample, now_us: int) -> None:
        """BBRUpdateMinRTT, §5.3.4.3."""
        self.probe_rtt_expired = now_us > self.probe_rtt_min_stamp_us + PROBE_RTT_INTERVAL_US
        is_lower = rs.rtt_us < self._probe_rtt_min_delay_us
        if rs.rtt_us >= 0 and (is_lower or self.probe_rtt_expired):
            self._probe_rtt_min_delay_us = rs.rtt_us
            self.probe_rtt_min_stamp_us = now_us
        min_rtt_expired = now_us > self._min_rtt_stamp_us + MIN_RTT_FILTER_LEN_US
        if self._probe_rtt_min_delay_us < self.min_rtt_us or min_rtt_expired:
            self.min_rtt_us = self._probe_rtt_min_delay_us
            self._min_rtt_stamp_us = self.probe_rtt_min_stamp_us

    def restart_aggregation(self, now_us: int) -> None:
        """A flow that was idle sends again: the silence is no aggregation, §5.4.1."""
        self._extra_interval_start_us = now_us

    def update_aggregation(self, rs: RateSample, cwnd_bytes: float, now_us: int) -> None:
        """BBRUpdateACKAggregation, §5.5.9."""
        elapsed_us = now_us - self._extra_interval_start_us
        expected = bdp_bytes(self.bw_bps, elapsed_us)
        if self._extra_delivered <= expected:
            self._extra_delivered = 0
            self._extra_interval_start_us = now_us
            expected = 0.0
        self._extra_delivered += rs.newly_acked_bytes
        extra = min(self._extra_delivered - expected, cwnd_bytes)
        maxima = self._extra_acked_maxima
        while maxima and maxima[-1][1] <= extra:
            maxima.pop()
        maxima.append((self.round_count, extra))
        rounds = EXTRA_ACKED_FILTER_LEN if self.full_bw_reached else 1
        while maxima[0][0] <= self.round_count - rounds:
            maxima.popleft()
        self.extra_acked = maxima[0][1]
