"""How two who share a queue treat each other, in numbers.

Jain's index is that of R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and
Discrimination for Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984. RFC 8868
section 3.1 asks for fairness and for convergence time (how long it takes until rates settle after a
flow has joined), gives no formula for either, and names two limits of unfairness: with similar
round trips no stream should have more than 3 times the throughput of the least one, and the RTT of
those who were there should not grow by a factor of 3 when another joins. All other numbers are
ours, as is what they are taken over.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bwe_env.rollout import CallSeries
from experiments.rfc8867_criteria import MEAN_S, MIN_UTILISATION, jain_index, smooth, time_until

#: The second joins when the first has settled; what is judged begins as long after. Ours.
JOIN_S = 30.0
SETTLED_S = 60.0
DURATION_S = 120.0
#: A flow starves while one-second means of its rate are below this share of its fair one, if that
#: lasts for longer than so much. Ours.
STARVED_SHARE = 0.1
STARVED_S = 5.0

#: Limits of unfairness between flows with similar round trips, RFC 8868 section 3.1.
MAX_THROUGHPUT_RATIO = 3.0
MAX_RTT_GROWTH = 3.0

#: Every measure of one call, and what it is.
MEASURES = {
    "jain_index": "Jain's index of the two mean rates: 1 for equals, 0.5 where one has it all",
    "throughput_ratio": "the larger mean rate over the smaller; RFC 8868: at most 3",
    "first_share": "mean rate of the first over its fair share",
    "second_share": "the same of the second",
    "utilisation": "both mean rates over the capacity",
    "first_starved": "times that the first starved, from the join on",
    "second_starved": "the same of the second",
    "first_starved_s": "the longest of them in seconds, 0 for none",
    "second_starved_s": "the same of the second",
    "join_s": "from the join until the second has 80 % of its fair share for one second; where "
    "that does not come, the rest of the call",
    "never_joined": "1 where it does not come",
    "queue_delay_ms_p95": "queue delay of the first's packets, 95th percentile of intervals",
    "rtt_growth": "median RTT of the first, over that of the 15 s before the join; RFC 8868: < 3",
    "first_score": "mean call score of the first",
    "second_score": "the same of the second; NaN for TCP",
    "dropped": "1 where the first call drops: what comes after is missing in all the others",
}


def fair_shares(capacity_bps: float, limits_bps: tuple[float, float]) -> tuple[float, float]:
    """Max-min fair shares of two flows (Bertsekas and Gallager, "Data Networks", section 6.5.2).

    Args:
        limits_bps: what each can use at most; infinite for TCP.

    >>> fair_shares(2e6, (6e6, 6e6))
    (1000000.0, 1000000.0)
    >>> fair_shares(5e6, (1.5e6, math.inf))
    (1500000.0, 3500000.0)
    """
    half_bps = 0.5 * capacity_bps
    first_bps, second_bps = (min(half_bps, limit_bps) for limit_bps in limits_bps)
    return (
        min(limits_bps[0], capacity_bps - second_bps),
        min(limits_bps[1], capacity_bps - first_bps),
    )


def starvation(
    rate_bps: NDArray[np.float64], fair_bps: float, interval_s: float
) -> tuple[int, float]:
    """How often a flow starved, and for how long at most.

    Args:
        rate_bps: what arrived in each interval, shape (intervals,).

    Returns:
        Number of spells longer than `STARVED_S`, and the longest of them in seconds (0 for none).
    """
    means = smooth(rate_bps, max(1, round(MEAN_S / interval_s)))
    is_low = np.concatenate([[False], means < STARVED_SHARE * fair_bps, [False]])
    changes = np.flatnonzero(np.diff(is_low.astype(np.int8)))
    lengths_s = (changes[1::2] - changes[::2]) * interval_s
    spells = lengths_s[lengths_s > STARVED_S + 1e-9]
    return len(spells), float(spells.max(initial=0.0))


def measure(
    series: CallSeries, capacity_bps: float, limits_bps: tuple[float, float]
) -> dict[str, float]:
    """All `MEASURES` of a call whose queue somebody joined at `JOIN_S`."""
    values = dict.fromkeys(MEASURES, math.nan)
    values["dropped"] = float(series.dropped)
    time_s = series.time_s
    if series.dropped or len(time_s) == 0:
        return values
    rates_bps = np.concatenate([series.flow_rates_bps, series.source_rates_bps])[:2]
    fair_bps = fair_shares(capacity_bps, limits_bps)
    shared, settled = (time_s > from_s + 1e-6 for from_s in (JOIN_S, SETTLED_S))
    interval_s = float(time_s[0])
    means_bps = rates_bps[:, settled].mean(axis=1)
    values["jain_index"] = jain_index(means_bps)
    values["throughput_ratio"] = float(means_bps.max() / max(1.0, means_bps.min()))
    values["utilisation"] = float(means_bps.sum()) / capacity_bps
    for row, name in enumerate(("first", "second")):
        values[f"{name}_share"] = float(means_bps[row]) / fair_bps[row]
        spells, longest_s = starvation(rates_bps[row, shared], fair_bps[row], interval_s)
        values[f"{name}_starved"], values[f"{name}_starved_s"] = float(spells), longest_s
    values |= _joining(time_s, rates_bps[1], fair_bps[1])
    steps = series.steps
    values["queue_delay_ms_p95"] = float(np.percentile(steps["queue_delay_ms"][settled], 95))
    before = (time_s > JOIN_S / 2 + 1e-6) & ~shared
    medians_ms = (float(np.median(steps["rtt_ms"][rows])) for rows in (settled, before))
    values["rtt_growth"] = next(medians_ms) / next(medians_ms)
    values["first_score"] = mean_score(steps[settled], interval_s)
    if len(series.competing_steps):
        values["second_score"] = mean_score(series.competing_steps[0, settled], interval_s)
    return values


def _joining(
    time_s: NDArray[np.float64], rate_bps: NDArray[np.float64], fair_bps: float
) -> dict[str, float]:
    means = smooth(rate_bps, max(1, round(MEAN_S / float(time_s[0]))))
    until_s = float(time_s[-1])
    join_s = time_until(time_s, means >= MIN_UTILISATION * fair_bps, JOIN_S, until_s)
    is_never = math.isinf(join_s)
    return {"join_s": until_s - JOIN_S if is_never else join_s, "never_joined": float(is_never)}


def mean_score(steps: NDArray[np.void], interval_s: float) -> float:
    """Mean call score of whole seconds, as `call_score` of `bwe_env.metrics` takes it."""
    count = max(1, round(MEAN_S / interval_s))
    return float(steps["call_score"][count - 1 :: count].mean())
