"""Labels of a call reckoned naively: one bin after the other, each window walked through anew.

Times are whole bins; a packet count or an RTT outside of the call does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class NaiveCongestion(NamedTuple):
    """What is said of one bin."""

    had_spike: bool
    is_positive: bool
    is_scored: bool


def _known(rtt_ms: Sequence[float], first: int, last: int) -> list[float]:
    """RTTs that were measured in the bins from `first` to `last`, both of them in."""
    found = []
    for place in range(max(first, 0), min(last, len(rtt_ms) - 1) + 1):
        if not math.isnan(rtt_ms[place]):
            found.append(rtt_ms[place])
    return found


def _second_is_lossy(
    lost: Sequence[int], reported: Sequence[int], first: int, per_second: int
) -> bool:
    num_lost = sum(lost[place] for place in range(first, first + per_second))
    num_reported = sum(reported[place] for place in range(first, first + per_second))
    return num_lost >= 2 and 100 * num_lost >= 2 * num_reported


def congestion(
    rtt_ms: Sequence[float], lost: Sequence[int], reported: Sequence[int], *, per_second: int = 10
) -> list[NaiveCongestion]:
    """The congestion label of each bin."""
    bins = len(rtt_ms)
    labels = []
    for now in range(bins):
        past = _known(rtt_ms, now - 4 * per_second + 1, now)
        future = _known(rtt_ms, now + 1, now + 4 * per_second)
        had_spike, is_positive = False, False
        if past:
            floor = min(_known(rtt_ms, now - 30 * per_second + 1, now))
            high = [rtt for rtt in past if rtt >= floor + max(40.0, 0.25 * floor)]
            had_spike = len(high) >= 2
            top = max(past)
            grows = any(rtt >= top + max(100.0, 0.5 * (top - floor)) for rtt in future)
            loses = False
            for first in range(now + 1, now + 4 * per_second + 1):
                end = first + per_second
                if end <= now + 4 * per_second + 1 and end <= bins:
                    loses = loses or _second_is_lossy(lost, reported, first, per_second)
            is_positive = had_spike and (grows or loses)
        is_whole = now + 1 >= 4 * per_second and now + 4 * per_second <= bins - 1
        labels.append(NaiveCongestion(had_spike, is_positive, is_whole and bool(past)))
    return labels


def random_loss(by_chance: Sequence[int], by_load: Sequence[int], *, per_second: int = 10) -> str:
    """The kind of each bin: R(andom), M(ixed), N(ot random), or a dot where nothing is eligible."""
    kinds = []
    for now in range(len(by_chance)):
        chance, load = 0, 0
        for place in range(max(0, now - per_second + 1), now + 1):
            chance += by_chance[place]
            load += by_load[place]
        if chance + load < 2:
            kinds.append(".")
        elif 5 * chance >= 4 * (chance + load):
            kinds.append("R")
        elif 5 * chance <= chance + load:
            kinds.append("N")
        else:
            kinds.append("M")
    return "".join(kinds)


def episodes(kinds: str) -> tuple[list[int], list[int]]:
    """The episode of each bin of `random_loss` (-1 outside), and the first bin of each episode."""
    numbers: list[int] = []
    firsts: list[int] = []
    for now, kind in enumerate(kinds):
        if kind != "." and (now == 0 or kinds[now - 1] != kind):
            firsts.append(now)
        numbers.append(-1 if kind == "." else len(firsts) - 1)
    return numbers, firsts
