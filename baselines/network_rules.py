"""Rules that an expert would write down for the questions that network models answer.

A rule reads the window features of `bwe_env.network_features` in their units and is a function of
nothing else, so it answers for a running call (`FeatureStream.dense`) as for a dataset. Binary
rules give a score, the higher the likelier yes; yes-or-no conditions of the literature are graded
by how far they are met, because a score with two values has no curve. `baselines.rules` tunes them.

The rules of the literature are followed as far as window features go: they were written for single
packets, and here speak of the mean over the packets lost in the last second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bwe_env.feature_scale import unscaled
from bwe_env.network_features import DENSE_FEATURES, DENSE_NAMES

Dense = NDArray[np.float32]
"""window features, shape (n, NUM_DENSE), or (NUM_DENSE,) of one call"""
Floats = NDArray[np.float64]

#: A mean media packet on the wire, to count a backlog in. Ours; the order of scores does not
#: depend on it.
PACKET_BYTES = 1000.0
#: Doublings are counted from here on; what is 0 or negative has none. Ours: some way below the
#: smallest share that occurs, one bin of 100 or one packet of 500.
LEAST = 0.001


class ScoreRule(Protocol):
    """A rule that answers yes or no."""

    def score(self, dense: Dense) -> Floats:
        """The higher the likelier yes, shape (n,)."""


class ClassRule(Protocol):
    """A rule that picks a class."""

    def classify(self, dense: Dense) -> NDArray[np.int64]:
        """Position of the class among the task's, shape (n,)."""


def answers(rule: ScoreRule | ClassRule, dense: Dense) -> NDArray[Any]:
    """What a rule says: scores, or classes."""
    return rule.classify(dense) if hasattr(rule, "classify") else rule.score(dense)


def measured(dense: Dense, name: str) -> Floats:
    """A feature in its unit, shape (n,)."""
    index = DENSE_NAMES.index(name)
    return unscaled(DENSE_FEATURES[index], dense[..., index])


def doublings(values: Floats, threshold: float, limit: float) -> Floats:
    """How often a threshold must be doubled to give `values`, between -limit and limit.

    A graded "is above the threshold": 0 on it, 1 at twice, -1 at half of it.
    """
    bounded: Floats = np.clip(np.log2(np.maximum(values, LEAST) / threshold), -limit, limit)
    return bounded


# --- Random loss ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SpikeRule:
    """Loss is congestion while the one-way delay is in a spike.

    Cen, Cosman and Voelker, "End-to-end differentiation of congestion and wireless losses",
    IEEE/ACM ToN 11(5), 2003, after Tobe et al.: a spike starts where the relative one-way trip time
    exceeds ``min + start_share * (max - min)``. Their hysteresis (it ends at a third) needs the
    packets between; graded, the distance to the start is what orders losses.
    """

    start_share: float = 0.5

    def score(self, dense: Dense) -> Floats:
        """Distance below the start of a spike, as a share of the largest delay of the window."""
        return self.start_share - measured(dense, "loss_delay_share_1s")


@dataclass(frozen=True, kw_only=True)
class DelayRankRule:
    """Loss is congestion where few bins of the window had more delay than the lost packet met.

    A queue drops when it is fullest; chance takes any packet. Ours, the rank in place of the share.
    """

    congestion_rank: float = 0.8

    def score(self, dense: Dense) -> Floats:
        """Distance of the rank below that of congestion."""
        return self.congestion_rank - measured(dense, "loss_delay_rank_1s")


@dataclass(frozen=True, kw_only=True)
class ZigZagRule:
    """Loss is random if its delay is low for how many packets went together.

    ZigZag, the same paper of Cen, Cosman and Voelker: with the mean and deviation of the relative
    one-way trip time, one packet is lost by chance below ``mean - deviation``, two below ``mean -
    deviation / 2``, three below ``mean``, more below ``mean - deviation / 2`` again; here the mean
    run of losses goes between.
    """

    deviations: float = 1.0

    def score(self, dense: Dense) -> Floats:
        """Distance below the threshold in standard deviations of the delay."""
        run = measured(dense, "loss_run_1s")
        spread_ms = measured(dense, "queue_delay_sd_w")
        below_ms = measured(dense, "queue_delay_w") - measured(dense, "loss_delay_1s")
        needed = np.interp(run, [1.0, 2.0, 3.0, 4.0], [1.0, 0.5, 0.0, 0.5])
        return below_ms / spread_ms - self.deviations * needed


@dataclass(frozen=True, kw_only=True)
class BacklogRule:
    """Loss is random while few packets wait in the queue.

    TCP Veno (Fu and Liew, IEEE JSAC 21(2), 2003): random below a backlog of 3 packets. The backlog
    is the rate that arrives times the delay in front of the loss.
    """

    backlog_packets: float = 3.0

    def score(self, dense: Dense) -> Floats:
        """Packets that the backlog lacks to be congestion."""
        bytes_per_ms = measured(dense, "acked_rate_1s") / 8e3
        backlog = bytes_per_ms * measured(dense, "loss_delay_1s") / PACKET_BYTES
        return self.backlog_packets - backlog


@dataclass(frozen=True, kw_only=True)
class LossRatioRule:
    """Loss is congestion from 10 % on.

    The loss-based controller of GCC backs off from there (draft-ietf-rmcat-gcc-02 §6): what is less
    it takes for no fault of its own.
    """

    congestion_ratio: float = 0.1

    def score(self, dense: Dense) -> Floats:
        """Distance of the loss ratio of 1 s below that of congestion."""
        return self.congestion_ratio - measured(dense, "loss_ratio_1s")


@dataclass(frozen=True, kw_only=True)
class LossPointsRule:
    """Points for what speaks for chance, each counted in doublings of a threshold. Ours.

    - Losses begin rarely: the loss event rate, of runs per packet (RFC 5348 §5), is low. A queue
      that overflows drops again and again, a fading radio takes one long run.
    - The delay in front of the loss is not among the largest of the window (as `DelayRankRule`).
    - That delay is small in itself: no queue stands (as `BacklogRule`).
    - The packet lost did not follow close on another: a full queue takes what comes in a burst.
    - Little is sent. What is hardly anything fills no queue.
    """

    events_ratio: float = 0.02
    """runs of losses per packet reported, 1 s"""
    fuller_share: float = 0.1
    """share of the window's bins with at least the delay of the loss"""
    delay_ms: float = 80.0
    gap_ratio: float = 0.7
    """time since the packet before, over the mean time between packets"""
    sent_bps: float = 1e6
    rank_points: float = 0.5
    delay_points: float = 0.5
    gap_points: float = 0.5
    sent_points: float = 0.25
    delay_doublings: float = 3.0
    """limit of what the two conditions on the delay count"""
    other_doublings: float = 2.0
    """the same of the others"""

    def score(self, dense: Dense) -> Floats:
        """Sum of points; those of the loss events count once."""
        run = np.maximum(1.0, measured(dense, "loss_run_1s"))
        events_ratio = measured(dense, "loss_ratio_1s") / run
        fuller_share = 1.0 - measured(dense, "loss_delay_rank_1s")
        delay_ms = measured(dense, "loss_delay_1s")
        gap_ratio = measured(dense, "loss_gap_w")
        sent_bps = measured(dense, "sent_rate_1s")
        return (
            -doublings(events_ratio, self.events_ratio, self.other_doublings)
            + self.rank_points * doublings(fuller_share, self.fuller_share, self.delay_doublings)
            - self.delay_points * doublings(delay_ms, self.delay_ms, self.delay_doublings)
            + self.gap_points * doublings(gap_ratio, self.gap_ratio, self.other_doublings)
            - self.sent_points * doublings(sent_bps, self.sent_bps, self.other_doublings)
        )


# --- Congestion -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PredictedRttRule:
    """The RTT will be high if it goes on rising as it does.

    The trend of the delay is what GCC's overuse detector thresholds (draft-ietf-rmcat-gcc-02 §5);
    with the rise so far it says where the RTT will be.
    """

    horizon_s: float = 1.0

    def score(self, dense: Dense) -> Floats:
        """Predicted RTT above its floor of 30 s, ms."""
        slope_ms_per_s = measured(dense, "rtt_slope_1s")
        return measured(dense, "rtt_rise_now") + self.horizon_s * slope_ms_per_s


@dataclass(frozen=True, kw_only=True)
class LossPersistenceRule:
    """Who loses now will lose soon: the share of lossy bins and the loss ratio. Ours."""

    ratio_weight: float = 1.0

    def score(self, dense: Dense) -> Floats:
        """Share of the window's bins with a loss, plus loss ratio of 1 s times its weight."""
        ratio = measured(dense, "loss_ratio_1s")
        return measured(dense, "lossy_bins_w") + self.ratio_weight * ratio


@dataclass(frozen=True, kw_only=True)
class CongestionPointsRule:
    """Points for what speaks for congestion to come, counted in doublings of a threshold. Ours.

    - Many bins of the window had a loss.
    - The last second loses, and the seconds before it did.
    - More is sent than the window has ever seen delivered.
    - The RTT is on its way up (as `PredictedRttRule`).

    A window without a spike of the RTT ranks below every one with: by definition
    (`bwe_env.labels`) it has no congestion to come.
    """

    spike_share: float = 0.0375
    """of the window's bins; between one and the two bins that make a spike, of a window of 4 s"""
    lossy_share: float = 0.1
    """of the window's bins"""
    loss_ratio: float = 0.015
    """of 1 s"""
    before_ratio: float = 0.01
    """of the window before it"""
    sent_over_delivered: float = 0.9
    """rate sent in 1 s over the largest rate delivered"""
    rtt_rise_ms: float = 100.0
    """predicted above the floor"""
    horizon_s: float = 0.5
    """how far ahead that is"""
    loss_points: float = 1.0
    before_points: float = 0.5
    sent_points: float = 1.0
    rtt_points: float = 0.3
    limit_doublings: float = 2.0

    def score(self, dense: Dense) -> Floats:
        """Sum of points; those of the lossy bins count once."""
        limit = self.limit_doublings
        rise_ms = PredictedRttRule(horizon_s=self.horizon_s).score(dense)
        now, before = measured(dense, "loss_ratio_1s"), measured(dense, "loss_ratio_before")
        sent = measured(dense, "sent_over_acked_max")
        points = (
            doublings(measured(dense, "lossy_bins_w"), self.lossy_share, limit)
            + self.loss_points * doublings(now, self.loss_ratio, limit)
            + self.before_points * doublings(before, self.before_ratio, limit)
            + self.sent_points * doublings(sent, self.sent_over_delivered, limit)
            + self.rtt_points * doublings(rise_ms, self.rtt_rise_ms, limit)
        )
        weights = 1.0 + self.loss_points + self.before_points + self.sent_points + self.rtt_points
        has_spike = measured(dense, "spike_bins_w") >= self.spike_share
        # Points lie between -limit and limit times the weights; three limits lead out of there.
        return np.where(has_spike, points, points - 3.0 * limit * weights)


# --- Bursts of random loss ------------------------------------------------------------------------


def excess_run(run: Floats, loss_ratio: Floats) -> Floats:
    """Mean run of losses over that of independent ones, 1 / (1 - p): 1 where they are."""
    return np.maximum(1.0, run) * (1.0 - loss_ratio)


@dataclass(frozen=True, kw_only=True)
class MeanRunRule:
    """Loss is bursty from a mean run of losses on: Gilbert's chain against Bernoulli's."""

    run_packets: float = 2.0
    """as `bwe_env.labels.BURSTY_PACKETS`"""

    def score(self, dense: Dense) -> Floats:
        """Mean run of 1 s above the threshold, packets."""
        return measured(dense, "loss_run_1s") - self.run_packets


@dataclass(frozen=True, kw_only=True)
class BurstPointsRule:
    """Points for runs longer than independent losses make, in doublings of a threshold. Ours.

    - Runs of the last second, over those that independent losses of that ratio would make.
    - Runs of the window, likewise: the label is of the process, not of the second.
    - The longest run of the window; it also parts windows whose runs are all at the limit.
    - Few bins have a loss: chance without memory spreads its losses.
    """

    run_excess: float = 1.3
    """mean run of 1 s over that of independent losses"""
    run_excess_w: float = 1.3
    """the same in the window"""
    longest_packets: float = 3.0
    lossy_share: float = 0.45
    """of the window's bins"""
    window_points: float = 0.5
    longest_points: float = 0.5
    spread_points: float = 0.5
    limit_doublings: float = 1.0

    def score(self, dense: Dense) -> Floats:
        """Sum of points; those of the last second count once."""
        limit = self.limit_doublings
        second = excess_run(measured(dense, "loss_run_1s"), measured(dense, "loss_ratio_1s"))
        window = excess_run(measured(dense, "loss_run_w"), measured(dense, "loss_ratio_w"))
        longest, spread = measured(dense, "loss_run_max_w"), measured(dense, "lossy_bins_w")
        return (
            doublings(second, self.run_excess, limit)
            + self.window_points * doublings(window, self.run_excess_w, limit)
            + self.longest_points * doublings(longest, self.longest_packets, limit)
            - self.spread_points * doublings(spread, self.lossy_share, limit)
        )
