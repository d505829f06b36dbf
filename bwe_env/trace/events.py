"""What happens to a link now and then: outages, dips of cross traffic, periodic dips.

Arrays have the shape (steps, traces); an event keeps the depth and duration that were drawn at
the step it began, and events of one sort do not nest.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bwe_env.trace.recipes import OUTAGE_BPS, STEP_S, Dips, Outages, PeriodicDips, Recipe

Floats = NDArray[np.float64]

#: STATS counts a step of 1 s as outage when all of it is one: an event of n + 1 seconds covers n
#: such steps on average.
OUTAGE_EDGES_S = 1.0


def outage_limit_bps(
    recipe: Recipe,
    outages: Outages,
    prone: Floats,
    z: Floats,
    begin: Floats,
    normal_duration: Floats,
    depth: Floats,
) -> Floats:
    """What outages leave of the capacity, at most `OUTAGE_BPS`; infinite where there is none.

    Args:
        prone: uniform per trace; whether it has outages at all.
        z: the standard normal that moves the link, low where it is weak.
        begin: uniform per step; whether one begins.
        normal_duration: standard normal per step.
        depth: uniform per step.
    """
    duration_s = outages.median_s * np.exp(outages.ln_sd * normal_duration)
    duration_s = np.minimum(duration_s, outages.longest_s) + OUTAGE_EDGES_S
    share = outages.time_share / outages.prone_share
    per_step = STEP_S * share / (1.0 - share) / outages.mean_s
    # A log-normal with mean 1.
    weakness = np.exp(-outages.weakness * z - outages.weakness**2 / 2.0)
    begins = (begin < per_step * weakness) & (prone < outages.prone_share)
    origins = _origins(begins, duration_s)
    # As deep as the quantile table says below the outages' share, in a session of typical median:
    # an outage is one in absolute terms.
    cut = recipe.outage_percent
    lower = [(percent, value) for percent, value in recipe.ln_ratio_percentiles if percent < cut]
    lower.append((cut, recipe.outage_ln_ratio))
    percents = [percent for percent, _ in lower]
    ln_ratio = np.interp(_held(depth, origins) * cut, percents, [value for _, value in lower])
    limit_bps = OUTAGE_BPS * np.exp(np.minimum(ln_ratio - recipe.outage_ln_ratio, 0.0))
    return np.where(origins >= 0, limit_bps, np.inf)


def dips_ln_ratio(
    dips: Dips, rate: Floats, begin: Floats, duration: Floats, depth: Floats
) -> Floats:
    """Logarithm of what dips leave: 0 where there is none.

    Args:
        rate: uniform per trace; how often they come.
        begin: uniform per step, like `duration` and `depth`.
    """
    begins_per_min = dips.per_min[0] + (dips.per_min[1] - dips.per_min[0]) * rate
    low_s, high_s = dips.duration_s
    duration_s = low_s + (high_s - low_s) * duration
    origins = _origins(begin < begins_per_min / 60.0 * STEP_S, duration_s)
    low, high = dips.ratio
    ln_ratio = math.log(low) + math.log(high / low) * _held(depth, origins)
    return np.where(origins >= 0, ln_ratio, 0.0)


def periodic_dips_ln_ratio(
    periodic: PeriodicDips, phase: Floats, change: Floats, depth: Floats
) -> Floats:
    """Logarithm of what dips leave that return every `period_s` while an episode lasts.

    Args:
        phase: uniform per trace; where in a period it begins.
        change: uniform per step; the one at the start of a period says whether an episode begins
            or ends there.
        depth: uniform per step; the one at the start of a period is that of its dip.
    """
    period = round(periodic.period_s / STEP_S)
    width = round(periodic.duration_s / STEP_S)
    share = periodic.time_share
    leave = periodic.period_s / periodic.episode_s
    enter = leave * share / (1.0 - share)
    time = np.arange(len(change))[:, None]
    since = (time + (phase * period).astype(np.int64)) % period
    in_episode = np.empty(change.shape, dtype=np.bool_)
    now = phase < share
    for t in range(len(change)):
        changed = np.where(now, change[t] >= leave, change[t] < enter)
        now = np.where(since[t] == 0, changed, now)
        in_episode[t] = now
    low, high = periodic.ratio
    ratio = low + (high - low) * _held(depth, time - since)
    return np.where(in_episode & (since < width), np.log(ratio), 0.0)


def _origins(begins: NDArray[np.bool_], duration_s: Floats) -> NDArray[np.int64]:
    """The step at which the event under way began, -1 where there is none."""
    steps = np.maximum(1, np.round(duration_s / STEP_S)).astype(np.int64)
    origins = np.full(begins.shape, -1, dtype=np.int64)
    for trace in range(begins.shape[1]):
        end = 0
        for t in np.flatnonzero(begins[:, trace]).tolist():  # few: events are rare
            if t >= end:
                end = t + int(steps[t, trace])
                origins[t:end, trace] = t
    return origins


def _held(values: Floats, origins: NDArray[np.int64]) -> Floats:
    """Each step's value as drawn where its event began."""
    return np.take_along_axis(values, np.maximum(origins, 0), axis=0)
