"""The observation of the MMSys'24 bandwidth-estimation challenge, from a receiver's arrivals.

Models of that challenge see 150 numbers every 60 ms: 15 features, each over the five newest
intervals of 60 ms and the five newest of 600 ms, the newest first. All windows end with the arrival
of the last packet at time L, not with the clock: interval k is ``(L - d (k + 1), L - d k]``. So the
newest interval is never empty, and while nothing arrives the observation stays what it was.

The layout and the identities between features were checked on recorded calls of the challenge.
What its publication leaves open is ours, and named where it is settled:

- *Loss* is what a gap in the sequence numbers says when the packet behind it arrives, and counts
  in the interval of that arrival; one burst is one gap. What comes late after all is not taken
  back.
- *Delay* is on a clock on which the first packet of a call took 200 ms, so that the ends' clocks
  need not agree. Here it may be a fraction of a millisecond; recorded calls have whole ones.
- *Kinds*: retransmissions and FEC count as video (they repair nothing else), padding as probing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bwe_env.feedback import PacketKind, PacketResult
from bwe_env.units import BITS_PER_BYTE, US_PER_MS, us_to_s

#: Features in their order, with units.
FEATURES = (
    "receive_rate_bps",
    "packets",
    "bytes",
    "queuing_delay_ms",  # mean delay less the smallest of the call so far
    "delay_ms",  # mean delay less `FIRST_DELAY_MS`
    "min_delay_ms",  # the smallest of the call so far, the same in every interval
    "delay_ratio",  # mean delay over the interval's smallest
    "delay_above_min_ms",  # mean delay less the interval's smallest
    "mean_gap_ms",  # between arrivals; the interval's first follows the last before it
    "gap_deviation_ms",  # standard deviation of the same, of a population
    "loss_ratio",  # lost over lost and received
    "loss_burst_packets",  # mean length
    "video_ratio",  # of packets
    "audio_ratio",
    "probing_ratio",
)
#: Newest intervals of each length.
NUM_INTERVALS = 5
#: Lengths of an interval: short and long ones.
INTERVALS_US = (60_000, 600_000)
#: What an observation of shape (150,) may be reshaped to: (feature, length, interval).
SHAPE = (len(FEATURES), len(INTERVALS_US), NUM_INTERVALS)
#: Numbers in an observation.
OBSERVATION_SIZE = len(FEATURES) * len(INTERVALS_US) * NUM_INTERVALS
#: How often a model of the challenge is asked.
OBSERVATION_INTERVAL_S = 0.06
#: Delay of the first packet of a call, by definition.
FIRST_DELAY_MS = 200.0
#: Smallest divisor of `delay_ratio`: a later packet may be faster than the first by more than
#: `FIRST_DELAY_MS`. Ours.
_LEAST_DELAY_MS = 1.0

_SPAN_US = NUM_INTERVALS * max(INTERVALS_US)
_SHARE_OF_KIND: dict[PacketKind, int] = {
    "video": 0,
    "retransmission": 0,
    "fec": 0,
    "audio": 1,
    "padding": 2,
}

# Columns of what is kept of each packet: terms of sums over intervals.
_BYTES, _DELAY_MS, _GAP_MS, _SQUARED_GAP, _LOST, _BURSTS, _SHARES = range(7)
_COLUMNS = _SHARES + 3


class Mmsys24Observer:
    """Follows one call's arrivals; keeps those of the last 3 s.

    >>> observer = Mmsys24Observer()
    >>> observer.observation().shape
    (150,)
    """

    def __init__(self) -> None:
        self._arrival_us = np.zeros(256, dtype=np.int64)
        self._terms = np.zeros((256, _COLUMNS))
        self._count = 0
        self._first_us: int | None = None
        self._first_transit_us = 0
        self._newest_seq = -1
        self._min_delay_ms = np.inf

    @property
    def has_arrivals(self) -> bool:
        """Whether anything has arrived yet: before, all features are 0."""
        return self._first_us is not None

    def add(self, packets: Iterable[PacketResult]) -> None:
        """Take note of packets; those without an arrival tell nothing that a gap does not.

        Args:
            packets: in any order, none of them older than what was added before.

        Raises:
            ValueError: a packet arrived before one that was added earlier.
        """
        arrived = [(p.arrival_time_us, p.sent) for p in packets if p.arrival_time_us is not None]
        for arrival_us, sent in sorted(arrived, key=lambda one: (one[0], one[1].seq)):
            transit_us = arrival_us - sent.send_time_us
            if self._first_us is None:
                self._first_us, self._first_transit_us = arrival_us, transit_us
                self._newest_seq = sent.seq - 1
            row = self._next_row(arrival_us)
            previous_us = self._arrival_us[row - 1] if row > 0 else arrival_us
            gap_ms = (arrival_us - previous_us) / US_PER_MS
            if gap_ms < 0:
                raise ValueError(
                    f"packet {sent.seq} arrived at {arrival_us} us, before one at {previous_us} us "
                    "that was added earlier. Add packets in the order of their arrival."
                )
            delay_ms = FIRST_DELAY_MS + (transit_us - self._first_transit_us) / US_PER_MS
            lost = max(0, sent.seq - self._newest_seq - 1)
            self._arrival_us[row] = arrival_us
            terms = (sent.size_bytes, delay_ms, gap_ms, gap_ms * gap_ms, lost, lost > 0)
            self._terms[row, :_SHARES] = terms
            self._terms[row, _SHARES:] = 0.0
            self._terms[row, _SHARES + _SHARE_OF_KIND[sent.kind]] = 1.0
            self._min_delay_ms = min(self._min_delay_ms, delay_ms)
            self._newest_seq = max(self._newest_seq, sent.seq)
            self._count += 1

    def observation(self) -> NDArray[np.float32]:
        """The features as of the last arrival, shape (150,); zeros before the first."""
        features = np.zeros(SHAPE)
        if self._first_us is not None:
            for length, interval_us in enumerate(INTERVALS_US):
                features[:, length] = self._features(interval_us, self._first_us)
        return features.astype(np.float32).reshape(-1)

    def _next_row(self, now_us: int) -> int:
        """Where the next packet is kept; makes room by forgetting, or else by growing."""
        if self._count == len(self._arrival_us):
            kept = self._arrival_us > now_us - _SPAN_US
            kept[-1] = True  # the next gap begins with it
            self._count = int(kept.sum())
            self._arrival_us[: self._count] = self._arrival_us[kept]
            self._terms[: self._count] = self._terms[kept]
            if 2 * self._count > len(self._arrival_us):
                self._arrival_us = np.concatenate([self._arrival_us, self._arrival_us])
                self._terms = np.concatenate([self._terms, self._terms])
        return self._count

    def _features(self, interval_us: int, first_us: int) -> NDArray[np.float64]:
        """Shape (features, intervals), the newest interval first."""
        arrival_us = self._arrival_us[: self._count]
        terms = self._terms[: self._count]
        ends_us = arrival_us[-1] - interval_us * np.arange(NUM_INTERVALS)  # newest first
        edges = np.searchsorted(arrival_us, np.append(ends_us, ends_us[-1] - interval_us), "right")
        packets = -np.diff(edges)
        oldest_first = edges[:0:-1]  # where each begins; all of them within the rows
        sums = np.add.reduceat(terms, oldest_first)[::-1].T
        least_ms = np.minimum.reduceat(terms[:, _DELAY_MS], oldest_first)[::-1]
        count = np.maximum(packets, 1)
        mean = sums / count
        delay_ms, gap_ms, lost = mean[_DELAY_MS], mean[_GAP_MS], sums[_LOST]
        features = np.stack(
            [
                BITS_PER_BYTE * sums[_BYTES] / us_to_s(interval_us),
                packets,
                sums[_BYTES],
                delay_ms - self._min_delay_ms,
                delay_ms - FIRST_DELAY_MS,
                np.zeros(NUM_INTERVALS),  # below: of empty intervals, too
                delay_ms / np.maximum(least_ms, _LEAST_DELAY_MS),
                delay_ms - least_ms,
                gap_ms,
                np.sqrt(np.maximum(mean[_SQUARED_GAP] - gap_ms**2, 0.0)),
                lost / (lost + count),
                lost / np.maximum(sums[_BURSTS], 1.0),
                *mean[_SHARES:],
            ]
        )
        features[:, packets == 0] = 0.0
        # Recorded calls have it in every interval that does not end before the call begins.
        features[FEATURES.index("min_delay_ms")] = np.where(
            ends_us >= first_us, self._min_delay_ms, 0.0
        )
        return features
