"""What the test cases of RFC 8867 ask for, in numbers.

The RFC says in words what a controller should do (use the capacity, keep the delay low, follow
changes, share with its like, not starve beside TCP). Here every such wish is a statement that a
series can meet or not. Where the number in it is the RFC's, the table says so; all others are ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bwe_env.rfc8867 import MAX_MEDIA_BPS, MIN_MEDIA_BPS, PublishedCase
from bwe_env.rollout import CallSeries
from bwe_env.units import bps_to_kbps

#: After a change, and before the criteria of the settled part hold.
SETTLE_S = 10.0
#: Length of the means that a rate is judged by: RFC 8867 section 4.3 judges media over one second.
MEAN_S = 1.0

#: Of the capacity that media can use, over the settled part of a phase.
MIN_UTILISATION = 0.8
#: Queue delay, 95th percentile over settled parts: a third of the queue of section 4.2.
MAX_QUEUE_DELAY_MS = 100.0
#: Packets of the call that the full queue drops, over settled parts.
MAX_LOSS_RATIO = 0.01
#: What loss may take of the least media rate beside TCP.
MAX_LOSS_BESIDE_TCP = 0.05
#: Standard deviation of one-second means over their mean, in the settled part of a phase.
MAX_VARIATION = 0.15
#: From a step up until so much of the new capacity is used, and from a step down until the queue
#: delay is below `MAX_QUEUE_DELAY_MS`.
MAX_FOLLOW_UP_S = 10.0
MAX_FOLLOW_DOWN_S = 3.0
#: Jain's index of flows of the same kind.
MIN_JAIN_INDEX = 0.9
#: What the least flow gets of an equal share.
MIN_SHARE = 0.5
#: From its start, or its resumption, until a flow has `MIN_UTILISATION` of what it should have.
MAX_JOIN_S = 20.0
MAX_RESUME_S = 10.0
#: Of what arrives while nothing impairs the feedback.
MIN_OF_REFERENCE = 0.9


# --- Measures of series ---------------------------------------------------------------------------


def jain_index(rates: Sequence[float] | NDArray[np.float64]) -> float:
    """1 when all are equal, 1/n when one has it all. Jain, Chiu and Hawe, DEC-TR-301, 1984."""
    x = np.asarray(rates, dtype=np.float64)
    squares = float((x**2).sum())
    return float(x.sum()) ** 2 / (len(x) * squares) if squares > 0.0 else float("nan")


def mean_over(
    time_s: NDArray[np.float64], values: NDArray[np.float64], from_s: float, until_s: float
) -> float:
    """Mean of the intervals that end in ``(from_s, until_s]``; NaN when there are none."""
    chosen = values[_within(time_s, from_s, until_s)]
    return float(chosen.mean()) if len(chosen) else float("nan")


def variation(
    time_s: NDArray[np.float64], values: NDArray[np.float64], from_s: float, until_s: float
) -> float:
    """Standard deviation of means over `MEAN_S`, divided by their mean; NaN with fewer than two."""
    edges_s = np.arange(from_s, until_s + 1e-9, MEAN_S)
    means = np.array([mean_over(time_s, values, a, a + MEAN_S) for a in edges_s[:-1]])
    if len(means) < 2 or not means.mean() > 0.0:
        return float("nan")
    return float(means.std() / means.mean())


def time_until(
    time_s: NDArray[np.float64], is_so: NDArray[np.bool_], from_s: float, until_s: float
) -> float:
    """From `from_s` to the beginning of the first `MEAN_S` throughout which `is_so` holds.

    Returns:
        Seconds; infinite when that does not come before `until_s`.
    """
    rows = np.flatnonzero(_within(time_s, from_s, until_s))
    if len(rows) == 0:
        return float("nan")
    interval_s = float(time_s[1] - time_s[0]) if len(time_s) > 1 else MEAN_S
    needed = max(1, round(MEAN_S / interval_s))
    run = 0
    for row in rows.tolist():
        run = run + 1 if is_so[row] else 0
        if run == needed:
            return max(0.0, float(time_s[row]) - needed * interval_s - from_s)
    return float("inf")


def smooth(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Mean of each value and the ``count - 1`` before it; fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - count)
    return np.asarray((sums[ends] - sums[begins]) / (ends - begins))


def _within(time_s: NDArray[np.float64], from_s: float, until_s: float) -> NDArray[np.bool_]:
    # Interval ends are multiples of the interval, but for the last bits.
    return np.asarray((time_s > from_s + 1e-6) & (time_s <= until_s + 1e-6))


# --- The timeline of a case -------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """A part of a call in which nothing changes from outside."""

    from_s: float
    until_s: float
    capacity_bps: float
    active: tuple[int, ...]
    """numbers of the media flows that send video"""

    @property
    def settled_s(self) -> tuple[float, float]:
        """What is judged as the steady state; empty in a short phase."""
        return self.from_s + SETTLE_S, self.until_s

    @property
    def settles(self) -> bool:
        """Whether it is long enough for a settled part."""
        return self.until_s - self.from_s > SETTLE_S

    @property
    def usable_bps(self) -> float:
        """What all active flows together can use."""
        return min(self.capacity_bps, len(self.active) * float(MAX_MEDIA_BPS))


def phases(case: PublishedCase) -> list[Phase]:
    """The phases of a case, cut where a capacity, a start or a pause changes something."""
    video, duration_s = case.call.video, case.call.duration_s
    starts_s = case.flow_starts_s
    pause_s = (video.pause_from_s, video.pause_until_s)
    cuts = {0.0, duration_s, *starts_s, *pause_s, *(at_s for at_s, _ in case.capacity_steps)}
    edges = sorted(cut for cut in cuts if cut <= duration_s)
    made = []
    for from_s, until_s in itertools.pairwise(edges):
        capacity_bps = [bps for at_s, bps in case.capacity_steps if at_s <= from_s][-1]
        active = [number for number, start_s in enumerate(starts_s) if start_s <= from_s]
        if pause_s[0] <= from_s < pause_s[1] and 0 in active:
            active.remove(0)
        made.append(Phase(from_s, until_s, capacity_bps, tuple(active)))
    return made


# --- Criteria -------------------------------------------------------------------------------------

Measure = Callable[[CallSeries], float]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A statement about a call that is true or not."""

    statement: str
    """with the bound in it"""
    bound: float
    at_least: bool
    """whether the bound is the least that will do, or the most"""
    measure: Measure
    source: str = "ours"
    """whose number it is: RFC or ours"""
    unit: str = ""
    digits: int = 2

    def is_met(self, value: float) -> bool:
        """Whether a measured value will do; NaN never does."""
        return value >= self.bound if self.at_least else value <= self.bound


def _media_bps(series: CallSeries) -> NDArray[np.float64]:
    return np.asarray(series.flow_rates_bps.sum(axis=0))


def _worst(values: Sequence[float], *, at_least: bool) -> float:
    """The value that is furthest from being good; NaN if any is unknown or there are none."""
    if len(values) == 0:
        return float("nan")
    return float(np.min(values) if at_least else np.max(values))


def _settled(series: CallSeries, parts: Sequence[Phase]) -> NDArray[np.bool_]:
    chosen = np.zeros(len(series.time_s), dtype=np.bool_)
    for phase in parts:
        chosen |= _within(series.time_s, *phase.settled_s)
    return chosen


def utilisation(parts: Sequence[Phase]) -> Criterion:
    """All media together use what there is, in the worst of the phases."""

    def measure(series: CallSeries) -> float:
        total = _media_bps(series)
        shares = [mean_over(series.time_s, total, *p.settled_s) / p.usable_bps for p in parts]
        return _worst(shares, at_least=True)

    return Criterion(
        statement=f"media uses >= {MIN_UTILISATION:.0%} of what it can, in every settled phase",
        bound=100.0 * MIN_UTILISATION,
        at_least=True,
        measure=lambda series: 100.0 * measure(series),
        unit="%",
        digits=1,
    )


def queue_delay(parts: Sequence[Phase]) -> Criterion:
    """The queue stays short once the call has settled."""

    def measure(series: CallSeries) -> float:
        delays = series.steps["queue_delay_ms"][_settled(series, parts)]
        return float(np.percentile(delays, 95)) if len(delays) else float("nan")

    return Criterion(
        statement=f"queue delay p95 <= {MAX_QUEUE_DELAY_MS:g} ms over settled phases",
        bound=MAX_QUEUE_DELAY_MS,
        at_least=False,
        measure=measure,
        unit="ms",
        digits=0,
    )


def loss(parts: Sequence[Phase]) -> Criterion:
    """The queue does not overflow once the call has settled."""

    def measure(series: CallSeries) -> float:
        steps = series.steps[_settled(series, parts)]
        sent = float(steps["sent_rate_bps"].sum())
        if sent == 0.0:
            return float("nan")
        return float((steps["queue_loss_ratio"] * steps["sent_rate_bps"]).sum()) / sent

    return Criterion(
        statement=f"the queue drops <= {MAX_LOSS_RATIO:.0%} of packets over settled phases",
        bound=100.0 * MAX_LOSS_RATIO,
        at_least=False,
        measure=lambda series: 100.0 * measure(series),
        unit="%",
    )


def steadiness(parts: Sequence[Phase]) -> Criterion:
    """No wide oscillation of the call's own rate, in the worst of the phases."""

    def measure(series: CallSeries) -> float:
        own = series.flow_rates_bps[0]
        values = [variation(series.time_s, own, *phase.settled_s) for phase in parts]
        return _worst(values, at_least=False)

    return Criterion(
        statement=f"its rate varies by <= {MAX_VARIATION:.0%} (sd of 1 s means) when settled",
        bound=100.0 * MAX_VARIATION,
        at_least=False,
        measure=lambda series: 100.0 * measure(series),
        unit="%",
        digits=1,
    )


def follows_up(parts: Sequence[Phase]) -> Criterion:
    """New capacity is found: the slowest step up."""
    steps = [b for a, b in itertools.pairwise(parts) if b.usable_bps > a.usable_bps]

    def measure(series: CallSeries) -> float:
        total = _media_bps(series)
        times = [
            time_until(series.time_s, total >= MIN_UTILISATION * p.usable_bps, p.from_s, p.until_s)
            for p in steps
        ]
        return _worst(times, at_least=False)

    return Criterion(
        statement=f"after a step up, {MIN_UTILISATION:.0%} in use within {MAX_FOLLOW_UP_S:g} s",
        bound=MAX_FOLLOW_UP_S,
        at_least=False,
        measure=lambda series: measure(_smoothed(series)),
        unit="s",
        digits=1,
    )


def follows_down(parts: Sequence[Phase]) -> Criterion:
    """Lost capacity is given up: the slowest step down."""
    steps = [b for a, b in itertools.pairwise(parts) if b.usable_bps < a.usable_bps]

    def measure(series: CallSeries) -> float:
        is_short = series.steps["queue_delay_ms"] <= MAX_QUEUE_DELAY_MS
        # The queue needs a moment to build up; what it is at the very step says nothing.
        begun_s = 0.5
        times = [
            begun_s + time_until(series.time_s, is_short, p.from_s + begun_s, p.until_s)
            for p in steps
        ]
        return _worst(times, at_least=False)

    return Criterion(
        statement=f"after a step down, queue delay <= {MAX_QUEUE_DELAY_MS:g} ms within "
        f"{MAX_FOLLOW_DOWN_S:g} s",
        bound=MAX_FOLLOW_DOWN_S,
        at_least=False,
        measure=measure,
        unit="s",
        digits=1,
    )


def fairness(parts: Sequence[Phase]) -> Criterion:
    """Flows of the same kind share alike, over the settled parts of the phases as one."""

    def measure(series: CallSeries) -> float:
        rates = series.flow_rates_bps[:, _settled(series, parts)]
        return jain_index(rates.mean(axis=1)) if rates.shape[1] else float("nan")

    return Criterion(
        statement=f"Jain's index of the media flows >= {MIN_JAIN_INDEX:g} over settled phases",
        bound=MIN_JAIN_INDEX,
        at_least=True,
        measure=measure,
    )


def least_share(parts: Sequence[Phase]) -> Criterion:
    """No flow is left far behind."""

    def measure(series: CallSeries) -> float:
        rates = series.flow_rates_bps[:, _settled(series, parts)]
        if rates.shape[1] == 0:
            return float("nan")
        means = rates.mean(axis=1)
        return float(means.min() / means.mean()) if means.mean() > 0.0 else float("nan")

    return Criterion(
        statement=f"the least media flow has >= {MIN_SHARE:.0%} of an equal share",
        bound=100.0 * MIN_SHARE,
        at_least=True,
        measure=lambda series: 100.0 * measure(series),
        unit="%",
        digits=1,
    )


def joins(number: int, start_s: float, until_s: float, fair_bps: float) -> Criterion:
    """A newcomer gets its share from those who were there before."""

    def measure(series: CallSeries) -> float:
        own = _smoothed(series).flow_rates_bps[number]
        return time_until(series.time_s, own >= MIN_UTILISATION * fair_bps, start_s, until_s)

    return Criterion(
        statement=f"flow {number + 1} has {MIN_UTILISATION:.0%} of its equal share within "
        f"{MAX_JOIN_S:g} s of its start",
        bound=MAX_JOIN_S,
        at_least=False,
        measure=measure,
        unit="s",
        digits=1,
    )


def resumes(pause_s: tuple[float, float], until_s: float) -> Criterion:
    """A flow that was paused comes back to what it had."""

    def measure(series: CallSeries) -> float:
        before = mean_over(
            series.time_s, series.flow_rates_bps[0], pause_s[0] - SETTLE_S, pause_s[0]
        )
        own = _smoothed(series).flow_rates_bps[0]
        return time_until(series.time_s, own >= MIN_UTILISATION * before, pause_s[1], until_s)

    return Criterion(
        statement=f"{MIN_UTILISATION:.0%} of its rate before the pause within {MAX_RESUME_S:g} s",
        bound=MAX_RESUME_S,
        at_least=False,
        measure=measure,
        unit="s",
        digits=1,
    )


def keeps_minimum(parts: Sequence[Phase]) -> Criterion:
    """Beside TCP media may fall to its minimum rate, no further (section 5.6)."""

    def measure(series: CallSeries) -> float:
        rates = series.flow_rates_bps[:, _settled(series, parts)]
        return bps_to_kbps(rates.mean(axis=1).min()) if rates.shape[1] else float("nan")

    least_kbps = bps_to_kbps(MIN_MEDIA_BPS)
    return Criterion(
        statement=f"every media flow keeps the least media rate, {least_kbps:g} kbps, but for "
        f"{MAX_LOSS_BESIDE_TCP:.0%} lost",
        bound=(1.0 - MAX_LOSS_BESIDE_TCP) * least_kbps,
        at_least=True,
        measure=measure,
        source="RFC",
        unit="kbps",
        digits=0,
    )


def share_beside_tcp(parts: Sequence[Phase], equal_bps: float) -> Criterion:
    """A media flow is not starved by one TCP flow."""

    def measure(series: CallSeries) -> float:
        rates = series.flow_rates_bps[:, _settled(series, parts)]
        return float(rates.mean(axis=1).min()) / equal_bps if rates.shape[1] else float("nan")

    return Criterion(
        statement=f"every media flow has >= {MIN_SHARE:.0%} of an equal share (TCP counts as one)",
        bound=100.0 * MIN_SHARE,
        at_least=True,
        measure=lambda series: 100.0 * measure(series),
        unit="%",
        digits=1,
    )


def share_of_tcp(parts: Sequence[Phase], equal_bps: float) -> Criterion:
    """Nor does media starve TCP."""

    def measure(series: CallSeries) -> float:
        rates = series.source_rates_bps[:, _settled(series, parts)]
        return float(rates.mean(axis=1).sum()) / equal_bps if rates.shape[1] else float("nan")

    return Criterion(
        statement=f"TCP has >= {MIN_SHARE:.0%} of an equal share",
        bound=100.0 * MIN_SHARE,
        at_least=True,
        measure=lambda series: 100.0 * measure(series),
        unit="%",
        digits=1,
    )


def near_reference(reference: Sequence[CallSeries]) -> Criterion:
    """Congested feedback costs media little (section 5.3 compares with an unimpaired run)."""
    unimpaired_bps = np.median([series.flow_rates_bps[0].mean() for series in reference])

    def measure(series: CallSeries) -> float:
        rates = series.flow_rates_bps[0]
        return float(rates.mean() / unimpaired_bps) if len(rates) else float("nan")

    return Criterion(
        statement=f"media has >= {MIN_OF_REFERENCE:.0%} of its rate with an unimpaired way back",
        bound=100.0 * MIN_OF_REFERENCE,
        at_least=True,
        measure=lambda series: 100.0 * measure(series),
        unit="%",
        digits=1,
    )


def survives() -> Criterion:
    """The call goes on to its end."""
    return Criterion(
        statement="the call does not drop",
        bound=0.0,
        at_least=False,
        measure=lambda series: float(series.dropped),
        digits=0,
    )


def _smoothed(series: CallSeries) -> CallSeries:
    """The same series with rates averaged over `MEAN_S`."""
    time_s = series.time_s
    interval_s = float(time_s[0]) if len(time_s) else MEAN_S
    count = max(1, round(MEAN_S / interval_s))
    rates = np.array([smooth(row, count) for row in series.flow_rates_bps])
    return CallSeries(
        steps=series.steps,
        flow_rates_bps=rates.reshape(series.flow_rates_bps.shape),
        source_rates_bps=series.source_rates_bps,
        dropped=series.dropped,
    )


def criteria(case: PublishedCase, reference: Sequence[CallSeries] = ()) -> list[Criterion]:
    """What a case of RFC 8867 asks for; by its section.

    Args:
        reference: calls of `PublishedCase.unimpaired`, where the case carries media backward.
    """
    every = phases(case)
    parts = [phase for phase in every if phase.settles]
    full = [phase for phase in parts if len(phase.active) == case.num_flows]
    until_s = case.call.duration_s
    section = case.section
    steady = [utilisation(parts), queue_delay(parts), loss(parts)]
    if section == "5.1":
        return [*steady, steadiness(parts), follows_up(every), follows_down(every)]
    if section == "5.3":
        return [*steady, near_reference(reference), follows_up(every), follows_down(every)]
    if section == "5.2":
        return [*steady, follows_up(every), follows_down(every), fairness(full)]
    if section == "5.4":
        last = case.num_flows - 1
        fair_bps = every[-1].usable_bps / case.num_flows
        start_s = case.flow_starts_s[last]
        return [*steady, fairness(full), joins(last, start_s, until_s, fair_bps)]
    if section == "5.5":
        return [*steady, fairness(full), least_share(full)]
    if section == "5.8":
        pause_s = (case.call.video.pause_from_s, case.call.video.pause_until_s)
        return [*steady, resumes(pause_s, until_s), fairness(full[-1:])]
    # Short TCP flows come and go; they are counted as one, which an always busy link amounts to.
    sources = len(case.network.cross_traffic)
    equal_bps = every[-1].capacity_bps / (case.num_flows + min(1, sources))
    beside = [keeps_minimum(full), share_beside_tcp(full, equal_bps), survives()]
    if section == "5.6":
        return [*beside, share_of_tcp(full, equal_bps)]
    return [*beside, fairness(full)]
