"""The bottleneck and the path behind it, slow and in plain Python, written from their definitions.

No event loop, no ring, no cursor, no floating-point time: a list of offers goes in, a list of
outcomes comes out. Everything follows from five sentences.

- *Capacity.* Bits served over a span are the integral of a periodic, piecewise-constant capacity
  over it, here in exact fractions.
- *Queue.* First come, first served, one packet at a time. A packet begins its service when it is
  offered or when the one before it ends, whichever is later. It leaves on the first whole
  microsecond at which all its bits have been served.
- *Droptail.* A packet is refused when it and everything that has not left yet, the packet in
  service included, would exceed the limit: a number of bytes, or a time at the present capacity
  (of which at least 3000 bytes are always granted).
- *Grants.* What has been served waits for the next grant: number n comes after n intervals and a
  random share of one more.
- *Path.* Random loss steps a Gilbert-Elliott chain, or along a list, once per packet: once per
  packet offered where the loss is before the queue, once per packet that leaves where it is behind
  it. What survives travels for the propagation delay and its jitter, in whole microseconds, and
  waits for what travels before it where the path keeps order.

Only the random numbers are the simulator's own (`bwe_env.sim.rng.uniform`): they are an input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from bwe_env.config import LinkConfig
from bwe_env.network import Network
from bwe_env.sim.rng import STREAM_FORWARD_JITTER, STREAM_FORWARD_LOSS, STREAM_GRANTS, uniform

Fate = Literal["passed", "queue_drop", "random_loss"]

#: A queue given as time holds at least two full packets, whatever the capacity.
LEAST_TIMED_LIMIT_BYTES = 3000

US_PER_S = 1_000_000


@dataclass(frozen=True)
class Offer:
    """A packet at the entrance of the bottleneck."""

    time_us: int
    size_bytes: int


@dataclass(frozen=True)
class Outcome:
    """What became of an offer."""

    fate: Fate
    served_us: Fraction | None = None
    """when its last bit had been served; None if it never entered the queue"""
    arrival_us: int | None = None
    """at the far end; None if lost"""

    @property
    def departure_us(self) -> int | None:
        """The first whole microsecond by which it has been served."""
        return None if self.served_us is None else math.ceil(self.served_us)


class NaiveCapacity:
    """Periodic, piecewise-constant capacity; time 0 is `start_us` into the trace."""

    def __init__(
        self, duration_us: Sequence[int], capacity_bps: Sequence[float], start_us: int = 0
    ) -> None:
        self.durations = [int(duration) for duration in duration_us]
        self.rates = [Fraction(float(rate)) for rate in capacity_bps]
        self.start_us = start_us
        self.period_us = sum(self.durations)

    def pieces(self, from_us: Fraction) -> Iterator[tuple[Fraction, Fraction, Fraction]]:
        """(begin, end, bits per microsecond) of every piece from a time on, for ever."""
        rounds = (from_us + self.start_us) // self.period_us
        begin = Fraction(rounds * self.period_us - self.start_us)
        for duration, rate in itertools.cycle(zip(self.durations, self.rates, strict=True)):
            end = begin + duration
            if end > from_us:
                yield max(begin, from_us), end, rate / US_PER_S
            begin = end

    def at(self, time_us: int) -> Fraction:
        """Capacity in bits per second at a moment."""
        return next(self.pieces(Fraction(time_us)))[2] * US_PER_S

    def bits(self, from_us: int, until_us: int) -> Fraction:
        """Integral over [from, until)."""
        total = Fraction(0)
        for begin, end, rate in self.pieces(Fraction(from_us)):
            if begin >= until_us:
                break
            total += rate * (min(end, Fraction(until_us)) - begin)
        return total

    def served_us(self, start_us: Fraction, bits: int) -> Fraction:
        """When a server that begins at `start_us` has served so many bits."""
        left = Fraction(bits)
        for begin, end, rate in self.pieces(start_us):
            if rate > 0 and rate * (end - begin) >= left:
                return begin + left / rate
            left -= rate * (end - begin)
        raise AssertionError("the pieces never end")


class _Loss:
    def __init__(self, network: Network, key: int) -> None:
        self._loss = network.forward.loss
        self._key = np.uint64(key)
        self._packets = 0
        self._is_bad = False

    def strikes(self) -> bool:
        loss = self._loss
        if loss.replay:
            self._packets += 1
            return list(itertools.islice(itertools.cycle(loss.replay), self._packets))[-1]
        move = uniform(self._key, STREAM_FORWARD_LOSS, 2 * self._packets)
        strike = uniform(self._key, STREAM_FORWARD_LOSS, 2 * self._packets + 1)
        self._packets += 1
        if self._is_bad:
            self._is_bad = not move < loss.bad_to_good
        else:
            self._is_bad = move < loss.good_to_bad
        return strike < (loss.bad_loss if self._is_bad else loss.good_loss)


class _Travel:
    def __init__(self, network: Network, key: int) -> None:
        self._path = network.forward
        self._key = np.uint64(key)
        self._packets = 0
        self._deviation = 0.0  # the AR(1) process of the normal jitter
        self._latest_us = 0

    def _uniform(self, counter: int) -> float:
        return uniform(self._key, STREAM_FORWARD_JITTER, counter)

    def _extra_us(self) -> float:
        jitter = self._path.jitter
        scale_us = round(jitter.scale_s * US_PER_S)
        if jitter.distribution == "uniform":
            return 2.0 * scale_us * self._uniform(self._packets)
        if jitter.distribution == "normal":
            radius = math.sqrt(-2.0 * math.log(1.0 - self._uniform(2 * self._packets)))
            normal = radius * math.cos(2.0 * math.pi * self._uniform(2 * self._packets + 1))
            rho = jitter.correlation
            self._deviation = rho * self._deviation + math.sqrt(1.0 - rho * rho) * normal
            return max(0.0, scale_us * self._deviation)
        return 0.0

    def arrival_us(self, departure_us: int) -> int:
        delay_us = round(self._path.propagation_delay_s * US_PER_S) + math.floor(self._extra_us())
        self._packets += 1
        if not self._path.keeps_order:
            return departure_us + delay_us
        self._latest_us = max(self._latest_us, departure_us + delay_us)
        return self._latest_us


def _grants_us(link: LinkConfig, key: int) -> Iterator[int]:
    """All grants, one after the other."""
    interval_us = round(link.grant_interval_s * US_PER_S)
    for number in itertools.count():
        share = link.grant_spread * uniform(np.uint64(key), STREAM_GRANTS, number)
        yield number * interval_us + math.floor(share * interval_us)


def run_naive_link(network: Network, key: int, offers: Sequence[Offer]) -> list[Outcome]:
    """What becomes of each offer.

    Args:
        offers: in the order in which they reach the bottleneck, times not decreasing.
        key: of the call's random numbers.
    """
    trace, link = network.trace, network.link
    start_us = round(network.start_s * US_PER_S)
    capacity = NaiveCapacity(trace.duration_us.tolist(), trace.capacity_bps.tolist(), start_us)
    loss, travel = _Loss(network, key), _Travel(network, key)
    queue: list[tuple[int, int]] = []  # (departure, size) of all that was ever let in
    free = Fraction(0)  # exact end of the last service
    outcomes = []
    for offer in offers:
        if link.loss_before_queue and loss.strikes():
            outcomes.append(Outcome("random_loss"))
            continue
        if link.queue_limit_bytes:
            limit_bytes = link.queue_limit_bytes
        else:
            # The decimal that was written, not the binary fraction nearest to it.
            span_s = Fraction(str(link.queue_limit_s))
            limit_bytes = math.floor(span_s * capacity.at(offer.time_us) / 8)
            limit_bytes = max(LEAST_TIMED_LIMIT_BYTES, limit_bytes)
        queue = [entry for entry in queue if entry[0] > offer.time_us]
        if sum(size for _, size in queue) + offer.size_bytes > limit_bytes:
            outcomes.append(Outcome("queue_drop"))
            continue
        free = capacity.served_us(max(free, Fraction(offer.time_us)), 8 * offer.size_bytes)
        departure_us = math.ceil(free)
        queue.append((departure_us, offer.size_bytes))
        if not link.loss_before_queue and loss.strikes():
            outcomes.append(Outcome("random_loss", free))
        else:
            if link.grant_interval_s > 0.0:
                departure_us = next(at for at in _grants_us(link, key) if at >= departure_us)
            outcomes.append(Outcome("passed", free, travel.arrival_us(departure_us)))
    return outcomes
