"""Ground-truth labels of what a sender may predict: congestion to come, and why packets are lost.

A call is cut into bins of 100 ms by when feedback reached the sender, and bin i is judged at its
end, ``t = (i + 1) * interval_s``: the past is what the sender could know by then, that bin
included. ``(t - 4 s, t]`` is thus 40 bins ending with bin i, ``(t, t + 4 s]`` the 40 bins after it.
Where a call has fewer, the window is what there is of it. Every definition here is ours.

A label is a truth about the network, so some of them need what only a simulator knows (the cause of
a loss, the chain that makes it). None of this may become an input of a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from bwe_env.config import LossConfig
from bwe_env.errors import ConfigError, unknown_name

# --- Windows --------------------------------------------------------------------------------------


def _past(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """View of shape (bins, count): row i holds the `count` bins ending with i; NaN before all."""
    # One row too many, so that a call without bins is no special case.
    return sliding_window_view(np.concatenate([np.full(count, np.nan), values]), count)[1:]


def _future(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """View of shape (bins, count): row i holds the `count` bins after i; NaN after all."""
    return sliding_window_view(np.concatenate([values, np.full(count, np.nan)]), count)[1:]


def _sum_of_past(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Sum over the `count` bins ending with each; exact, because counts are whole numbers."""
    sums = np.concatenate([np.zeros(count), np.cumsum(values)])
    total: NDArray[np.float64] = sums[count:] - sums[:-count]
    return total


# --- What is given --------------------------------------------------------------------------------


def _bins_per_second(interval_s: float) -> int:
    if math.isfinite(interval_s) and 0.0 < interval_s <= 1.0:
        count = round(1.0 / interval_s)
        if math.isclose(count * interval_s, 1.0):
            return count
    raise ConfigError(
        f"interval_s={interval_s!r}: a second must be a whole number of bins, because losses are "
        "counted over seconds; give 0.1, or another 1 / n, and bin the call anew."
    )


def _one_call(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ConfigError(f"{name} has shape {array.shape}; give one call's, shape (bins,).")
    return array


def _counts(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = _one_call(name, values)
    if not (np.isfinite(array) & (array >= 0.0) & (array == np.floor(array))).all():
        raise ConfigError(f"{name} must be counts: whole numbers >= 0, and 0 without a report.")
    return array


def _round_trip_times(values: ArrayLike) -> NDArray[np.float64]:
    rtt_ms = _one_call("rtt_ms", values)
    if np.isinf(rtt_ms).any() or (rtt_ms < 0.0).any():
        raise ConfigError(
            "rtt_ms must be >= 0 and finite; NaN stands for a bin without a report, nothing else."
        )
    return rtt_ms


def _require_same_bins(*arrays: NDArray[np.float64]) -> None:
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ConfigError(f"the arrays of one call must have the same bins, got {lengths}.")


# --- Congestion to come ---------------------------------------------------------------------------

#: The floor b is the least RTT of so long a past: after it, a change of route is forgotten.
FLOOR_S = 30.0
#: How far back a spike may lie, and how far ahead congestion is looked for.
PAST_S = 4.0
FUTURE_S = 4.0
#: A bin is high from ``b + max(40 ms, 0.25 b)`` on, and so many high bins are a spike: one late
#: report is none.
SPIKE_MS = 40.0
SPIKE_FLOOR_RATIO = 0.25
SPIKE_BINS = 2
#: Losses of some one second that are congestion: both so many, and such a share of all reported.
CONGESTION_LOST_PACKETS = 2
CONGESTION_LOSS_RATIO = 0.02
#: RTT that is congestion: ``past max + max(100 ms, half the past rise)``.
GROWTH_MS = 100.0
GROWTH_RISE_RATIO = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class CongestionLabels:
    """What `congestion_labels` says of each bin of one call."""

    had_spike: NDArray[np.bool_]
    """shape (bins,): the RTT spiked in the past 4 s. Scores are taken among these bins, too: a
    spike is part of the label, so that "there was a spike" finds every positive"""
    is_followed: NDArray[np.bool_]
    """shape (bins,): losses or a growing RTT within the next 4 s, with or without a spike before"""
    is_positive: NDArray[np.bool_]
    """shape (bins,): a spike, and losses or a growing RTT within the next 4 s"""
    is_scored: NDArray[np.bool_]
    """shape (bins,): past and future are whole and the past has an RTT. The other bins carry a
    label from what there is of their windows; keep them out of training and scores"""


def congestion_labels(
    rtt_ms: ArrayLike,
    lost_packets: ArrayLike,
    *,
    reported_packets: ArrayLike,
    interval_s: float = 0.1,
) -> CongestionLabels:
    """Whether congestion follows each bin of a call within 4 s, after a spike of the RTT.

    With the floor ``b`` of a bin the least RTT of ``(t - 30 s, t]``:

    - *past spike*: RTT >= ``b + max(40 ms, 0.25 b)`` in at least 2 bins of ``(t - 4 s, t]``, each
      held against the floor at t;
    - *positive*: a past spike, and within ``(t, t + 4 s]`` either at least 2 lost packets making at
      least 2 % of the reported ones in some one second that lies wholly inside, or an RTT of at
      least ``past max + max(100 ms, half the past rise)``. The past max is that of
      ``(t - 4 s, t]``, and the past rise is what it has above b.

    Without a spike a bin is negative, whatever follows: nothing in its past tells of it. A bin is
    *scored* if 4 s of the call lie before t and 4 s after it, and an RTT was measured in the past
    4 s. So nothing of a call shorter than 8 s is.

    Args:
        rtt_ms: RTT of each bin, ms >= 0, shape (bins,); NaN where no report arrived.
        lost_packets: packets first told of in each bin, as missing; shape (bins,). For the label by
            cause pass only those of them that a queue dropped: `reported_packets` stays the same.
        reported_packets: packets first told of in each bin, as received or as missing; shape
            (bins,), nowhere less than `lost_packets`.
        interval_s: length of a bin; a second must be a whole number of them.

    Raises:
        ConfigError: a second is no whole number of bins, arrays of different lengths, an RTT that
            is negative or infinite, or packets that are no counts.
    """
    per_second = _bins_per_second(interval_s)
    rtt = _round_trip_times(rtt_ms)
    lost = _counts("lost_packets", lost_packets)
    reported = _counts("reported_packets", reported_packets)
    _require_same_bins(rtt, lost, reported)
    if (lost > reported).any():
        raise ConfigError(
            f"bin {int(np.argmax(lost > reported))} has more lost_packets than reported_packets; "
            "count both in the bin that first told of the packet, missing ones in both."
        )
    past_bins, future_bins = round(PAST_S * per_second), round(FUTURE_S * per_second)
    # fmin and fmax pass over NaN, and give it where there is nothing else; comparisons are false.
    floor_ms = np.fmin.reduce(_past(rtt, round(FLOOR_S * per_second)), axis=1)
    past_max_ms = np.fmax.reduce(_past(rtt, past_bins), axis=1)
    future_max_ms = np.fmax.reduce(_future(rtt, future_bins), axis=1)
    had_spike = _had_spike(rtt, floor_ms, past_bins)
    growth_ms = np.maximum(GROWTH_MS, GROWTH_RISE_RATIO * (past_max_ms - floor_ms))
    is_congested = future_max_ms >= past_max_ms + growth_ms
    is_congested |= _loses(lost, reported, per_second, future_bins)
    bins = np.arange(len(rtt))
    is_whole = (bins >= past_bins - 1) & (bins < len(rtt) - future_bins)
    return CongestionLabels(
        had_spike=had_spike,
        is_followed=is_congested,
        is_positive=had_spike & is_congested,
        is_scored=is_whole & ~np.isnan(past_max_ms),
    )


def spike_threshold_ms(floor_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """RTT from which on a bin is high, ms: ``b + max(40 ms, 0.25 b)``, b being `floor_ms`."""
    threshold_ms: NDArray[np.float64] = floor_ms + np.maximum(
        SPIKE_MS, SPIKE_FLOOR_RATIO * floor_ms
    )
    return threshold_ms


def _had_spike(
    rtt_ms: NDArray[np.float64], floor_ms: NDArray[np.float64], past_bins: int
) -> NDArray[np.bool_]:
    is_high = _past(rtt_ms, past_bins) >= spike_threshold_ms(floor_ms)[:, None]
    had_spike: NDArray[np.bool_] = is_high.sum(axis=1) >= SPIKE_BINS
    return had_spike


def _loses(
    lost: NDArray[np.float64], reported: NDArray[np.float64], per_second: int, future_bins: int
) -> NDArray[np.bool_]:
    """Whether some one second within the bins ahead is full of losses."""
    lost_in_second = _sum_of_past(lost, per_second)
    reported_in_second = np.maximum(_sum_of_past(reported, per_second), 1.0)
    # A quotient, not 0.02 * reported: division rounds correctly, so exactly 2 % compares as equal.
    is_lossy = (lost_in_second >= CONGESTION_LOST_PACKETS) & (
        lost_in_second / reported_in_second >= CONGESTION_LOSS_RATIO
    )
    # Seconds are known by their last bin: the first that lies wholly ahead ends a second from here.
    seconds = _future(is_lossy.astype(np.float64), future_bins)[:, per_second - 1 :]
    loses: NDArray[np.bool_] = (seconds == 1.0).any(axis=1)
    return loses


# --- Why packets are lost -------------------------------------------------------------------------

#: Losses of the last second without which there is nothing to explain.
ELIGIBLE_LOST_PACKETS = 2
#: Share of random losses up to which, and from which on, one cause explains them.
NOT_RANDOM_RATIO = 0.2
RANDOM_RATIO = 0.8

#: Values of `RandomLossLabels.kind`.
NOT_ELIGIBLE = -1
NOT_RANDOM = 0
MIXED = 1
RANDOM = 2

#: Outside of every episode, see `loss_episodes`.
NO_EPISODE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomLossLabels:
    """What `random_loss_labels` says of each bin of one call."""

    is_eligible: NDArray[np.bool_]
    """shape (bins,): at least 2 losses were reported in the last second"""
    kind: NDArray[np.int8]
    """shape (bins,): `RANDOM`, `MIXED` or `NOT_RANDOM`; `NOT_ELIGIBLE` where there is no label"""

    @property
    def is_random(self) -> NDArray[np.bool_]:
        """The two-class label, shape (bins,): `MIXED` counts as negative."""
        is_random: NDArray[np.bool_] = self.kind == RANDOM
        return is_random


def random_loss_labels(
    random_packets: ArrayLike, congestion_packets: ArrayLike, *, interval_s: float = 0.1
) -> RandomLossLabels:
    """Whether the losses reported in the second up to each bin had nothing to do with the load.

    Args:
        random_packets: packets reported missing in each bin, and not merely late (still missing one
            RTT on), that no queue, policer or AQM dropped; shape (bins,).
        congestion_packets: the same of those that one of these dropped; shape (bins,).
        interval_s: length of a bin; a second must be a whole number of them.

    Returns:
        `RANDOM` from a random share of 80 % on, `NOT_RANDOM` up to one of 20 %, else `MIXED`.

    Raises:
        ConfigError: a second is no whole number of bins, arrays of different lengths, or packets
            that are no counts.
    """
    per_second = _bins_per_second(interval_s)
    by_chance = _counts("random_packets", random_packets)
    by_load = _counts("congestion_packets", congestion_packets)
    _require_same_bins(by_chance, by_load)
    total = _sum_of_past(by_chance + by_load, per_second)
    is_eligible = total >= ELIGIBLE_LOST_PACKETS
    random_ratio = _sum_of_past(by_chance, per_second) / np.maximum(total, 1.0)
    kind = np.full(len(total), MIXED, dtype=np.int8)
    kind[random_ratio <= NOT_RANDOM_RATIO] = NOT_RANDOM
    kind[random_ratio >= RANDOM_RATIO] = RANDOM
    kind[~is_eligible] = NOT_ELIGIBLE
    return RandomLossLabels(is_eligible=is_eligible, kind=kind)


def loss_episodes(labels: RandomLossLabels) -> NDArray[np.int64]:
    """Number of the loss episode of each bin: a longest run of eligible bins of one kind.

    Returns:
        Shape (bins,): 0, 1, 2… in order of time; `NO_EPISODE` where nothing is eligible.
    """
    before = np.concatenate([[NOT_ELIGIBLE], labels.kind])[:-1]
    begins = labels.is_eligible & (labels.kind != before)
    return np.where(labels.is_eligible, np.cumsum(begins) - 1, NO_EPISODE).astype(np.int64)


def first_of_episodes(episodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the first bin of each episode, shape (episodes,): the samples that are scored.

    The bins of an episode share most of their losses, so only one of them is evidence.

    Args:
        episodes: from `loss_episodes`, shape (bins,).
    """
    before = np.concatenate([[NO_EPISODE], episodes])[:-1]
    return np.flatnonzero((episodes != NO_EPISODE) & (episodes != before)).astype(np.int64)


# --- Kinds of networks ----------------------------------------------------------------------------

#: What a classifier of networks tells apart.
NETWORK_CLASSES = ("cellular-low", "cellular-high", "wifi", "wired", "satellite")
#: Mean capacity below which a cellular network is low. Ours: about what 720p at 30 frames a second
#: wants (`bwe_env.quality.RESOLUTION_LADDER` gives it 0.9 to 2.5 Mbps).
CELLULAR_LOW_BPS = 2e6

_CELLULAR_TYPES = ("3G", "4G-LTE", "5G")
_CLASS_OF_TYPE = {"wifi": "wifi", "wired-broadband": "wired", "satellite": "satellite"}


def network_class(network_type: str, mean_capacity_bps: float) -> str:
    """The one of `NETWORK_CLASSES` that a call's network belongs to.

    Args:
        network_type: one of `bwe_env.trace.NETWORK_TYPES`, but not ``"pattern"``, which is no
            kind of network.
        mean_capacity_bps: mean capacity over the call, >= 0; it parts the cellular types only, at
            `CELLULAR_LOW_BPS`, which itself is high.

    Raises:
        UnknownNameError: a type that has no class.
        ConfigError: a capacity that is negative or not finite.
    """
    if not (math.isfinite(mean_capacity_bps) and mean_capacity_bps >= 0.0):
        raise ConfigError(
            f"mean_capacity_bps={mean_capacity_bps!r} must be finite and >= 0, in bits per second."
        )
    if network_type in _CELLULAR_TYPES:
        return "cellular-low" if mean_capacity_bps < CELLULAR_LOW_BPS else "cellular-high"
    if network_type not in _CLASS_OF_TYPE:
        known = (*_CELLULAR_TYPES, *_CLASS_OF_TYPE)
        raise unknown_name("network type with a class", network_type, known)
    return _CLASS_OF_TYPE[network_type]


# --- Bursts of random loss ------------------------------------------------------------------------

#: Mean run of losses from which on random loss comes in bursts. Ours: twice the least a run can be,
#: and more than independent losses reach below a loss ratio of one half.
BURSTY_PACKETS = 2.0


def mean_loss_burst_packets(loss: LossConfig) -> float | None:
    """Mean number of consecutive packets that a path's random loss takes, in the long run.

    Every run of losses has one last packet. So the mean run is the chance that a packet is lost,
    over the chance that it is lost and the next one is not. The chain steps before each packet (see
    `bwe_env.sim.loss`): with the states' shares ``pi`` in the long run, their chances of loss
    ``e`` and the chances ``P`` of going from one to the other, that is::

        sum_i pi_i e_i / sum_ij pi_i e_i P_ij (1 - e_j)

    Independent losses of chance p give 1 / (1 - p), Gilbert's chain (the good state loses nothing,
    the bad one everything) 1 / bad_to_good. A replay is counted as it is repeated: a run may go on
    from its end to its start.

    Returns:
        Packets, >= 1; `inf` if nothing ever gets through, None if nothing is ever lost.
    """
    if loss.mean_loss_ratio == 0.0:
        return None
    if loss.replay:
        is_lost = np.array(loss.replay)
        last = int((is_lost & ~np.roll(is_lost, -1)).sum())
        return float(is_lost.sum()) / last if last else math.inf
    leaves = np.array([loss.good_to_bad, loss.bad_to_good])
    shares = np.array([1.0, 0.0])
    if loss.good_to_bad > 0.0:
        shares = leaves[::-1] / leaves.sum()
    chances = np.array([loss.good_loss, loss.bad_loss])
    goes = np.array([[1.0 - leaves[0], leaves[0]], [leaves[1], 1.0 - leaves[1]]])
    # Summed as it stands: the difference of two losses would cancel where runs are long.
    last_of_run = float((shares * chances) @ goes @ (1.0 - chances))
    return loss.mean_loss_ratio / last_of_run if last_of_run > 0.0 else math.inf


def burst_label(loss: LossConfig | None) -> bool | None:
    """Whether the random loss of a path comes in bursts, by the process that makes it.

    The process and not the run of losses that a call met: a sender can count the runs it is told
    of. A model would be taught what it already has in hand; what it cannot see is whether more such
    runs are to be expected.

    Args:
        loss: of one path, see `bwe_env.config.PathConfig`.

    Returns:
        True if its mean run is at least `BURSTY_PACKETS`; False for shorter ones and for every
        independent loss, however high; None if there is no random loss to label.
    """
    packets = None if loss is None else mean_loss_burst_packets(loss)
    if loss is None or packets is None:
        return None
    # Where both chances to change add up to 1, the next state is as likely from either state.
    is_independent = not loss.replay and (
        loss.good_to_bad == 0.0
        or loss.good_loss == loss.bad_loss
        or math.isclose(loss.good_to_bad + loss.bad_to_good, 1.0)
    )
    return packets >= BURSTY_PACKETS and not is_independent
