"""Synthetic capacity that moves as measured capacity does.

The generator of STATS section 7 with the two remedies it suggests. ``ln(capacity / median)`` is a
table of quantiles, read at a Gaussian with a slow and a fast part. Real links are quiet most of
the time and move in bursts, so both parts run on a clock that a two-state chain speeds up and
slows down: the distribution stays as it is, the median step shrinks, large steps remain. Outages
and dips come on top as events (`events`), and the table is cut where outages begin.

Time is the only loop; everything else is vectorised over traces. A trace is a function of nothing
but its name: it is the same alone and in a batch, and a longer one begins with the shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from bwe_env.trace.events import dips_ln_ratio, outage_limit_bps, periodic_dips_ln_ratio
from bwe_env.trace.randomness import normal_pair, uniforms
from bwe_env.trace.recipes import CONGESTED_MEDIAN_BPS, MAX_LN_RATIO, STEP_S, Recipe

Floats = NDArray[np.float64]

#: Less is no link; STATS section 7 sets it to 0.
CUTOFF_BPS = 20e3
#: Capacities are whole multiples of it: finer than any of the measured traces resolves, and far
#: coarser than the last bits in which exp() and cos() differ between machines.
QUANTUM_BPS = 1e3
#: AR(1) coefficient per step of the noise within a second, and its sd in quiet times over that in
#: bursts. Ours; fitted together with `Recipe.noise_sd`.
NOISE_CORRELATION = 0.5
QUIET_NOISE_RATIO = 0.3

# What each uniform is for: once per session, once per step. Their order is part of every recorded
# network; two of them under names that end in _u and _v make a normal.
_SESSION = (
    "median_u",
    "median_v",
    "bursting",
    "noise_level",
    "gap_rate",
    "dip_rate",
    "phase",
    "outage_prone",
    "burst_share_u",
    "burst_share_v",
    "start_u",
    "start_v",
)
_STEP = (
    "move_u",
    "move_v",
    "noise_u",
    "noise_v",
    "burst",
    "outage",
    "outage_depth",
    "gap",
    "gap_depth",
    "gap_duration",
    "dip",
    "dip_depth",
    "dip_duration",
)


def synthetic_capacity_bps(
    recipe: Recipe, names: Sequence[str], *, duration_s: float, congested: bool
) -> Floats:
    """Capacity of one trace per name in steps of `STEP_S`, shape (len(names), steps).

    Args:
        names: what the randomness of each trace is a function of.
        congested: draw the session's median from `CONGESTED_MEDIAN_BPS`, not as measured.
    """
    session, step = _draw(names, round(duration_s / STEP_S))
    normal_noise, normal_outage = normal_pair(step["noise_u"], step["noise_v"])
    bursting = _bursts(recipe, session, step["burst"])
    z = _latent(recipe, session, bursting, *normal_pair(step["move_u"], step["move_v"]))
    ln_ratio = np.interp(z, *_ratio_table(recipe))
    ln_ratio += _noise(recipe, session, bursting, normal_noise)
    if recipe.gaps is not None:
        ln_ratio += dips_ln_ratio(
            recipe.gaps, session["gap_rate"], step["gap"], step["gap_duration"], step["gap_depth"]
        )
    if recipe.dips is not None:
        ln_ratio += dips_ln_ratio(
            recipe.dips, session["dip_rate"], step["dip"], step["dip_duration"], step["dip_depth"]
        )
    if recipe.periodic_dips is not None:
        ln_ratio += periodic_dips_ln_ratio(
            recipe.periodic_dips, session["phase"], step["dip"], step["dip_depth"]
        )
    capacity_bps = _median_bps(recipe, session, congested) * np.exp(ln_ratio)
    capacity_bps = np.minimum(capacity_bps, recipe.max_bps)
    if recipe.outages is not None:
        limit_bps = outage_limit_bps(
            recipe,
            recipe.outages,
            session["outage_prone"],
            z,
            step["outage"],
            normal_outage,
            step["outage_depth"],
        )
        capacity_bps = np.minimum(capacity_bps, limit_bps)
    capacity_bps[capacity_bps < CUTOFF_BPS] = 0.0
    return np.ascontiguousarray((np.round(capacity_bps / QUANTUM_BPS) * QUANTUM_BPS).T)


def _draw(names: Sequence[str], steps: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The uniforms of `_SESSION`, shape (traces,), and of `_STEP`, shape (steps, traces)."""
    numbers = len(_SESSION) + len(_STEP) * steps
    draws = np.stack([uniforms(numbers, "capacity", name) for name in names])
    session, step = np.split(draws, [len(_SESSION)], axis=1)
    step = step.reshape(len(names), steps, len(_STEP)).transpose(2, 1, 0)
    return (
        dict(zip(_SESSION, session.T, strict=True)),
        dict(zip(_STEP, np.ascontiguousarray(step), strict=True)),
    )


def _median_bps(recipe: Recipe, session: dict[str, Floats], congested: bool) -> Floats:
    if congested:
        low, high = CONGESTED_MEDIAN_BPS
        return np.asarray(low * np.exp(session["median_u"] * math.log(high / low)))
    normal, _ = normal_pair(session["median_u"], session["median_v"])
    log10 = recipe.log10_median_mean + recipe.log10_median_sd * normal
    return np.clip(np.exp(math.log(10.0) * log10), *recipe.median_range_bps)


def _bursts(recipe: Recipe, session: dict[str, Floats], u: Floats) -> NDArray[np.bool_]:
    """When the link moves fast: a two-state chain, its share of time drawn per session."""
    normal, _ = normal_pair(session["burst_share_u"], session["burst_share_v"])
    sd = recipe.burst_share_sd
    share = np.clip(recipe.burst_share * np.exp(sd * normal - sd * sd / 2.0), 0.01, 0.99)
    leave = STEP_S / recipe.burst_s
    enter = leave * share / (1.0 - share)
    bursting = np.empty(u.shape, dtype=np.bool_)
    now = session["bursting"] < share
    for t in range(len(u)):
        now = np.where(now, u[t] >= leave, u[t] < enter)
        bursting[t] = now
    return bursting


def _latent(
    recipe: Recipe,
    session: dict[str, Floats],
    bursting: NDArray[np.bool_],
    normal_slow: Floats,
    normal_fast: Floats,
) -> Floats:
    """A standard normal at every step: two Ornstein-Uhlenbeck processes on the bursting clock."""
    # The clock's mean speed is 1, so that time constants mean what they say.
    burst_speed = (1.0 - (1.0 - recipe.burst_share) * recipe.quiet_speed) / recipe.burst_share
    start_slow, start_fast = normal_pair(session["start_u"], session["start_v"])
    parts = (
        (recipe.slow_tau_s, recipe.slow_share, start_slow, normal_slow),
        (recipe.fast_tau_s, 1.0 - recipe.slow_share, start_fast, normal_fast),
    )
    z = np.zeros(bursting.shape)
    for tau_s, share, now, normal in parts:
        keep_burst = math.exp(-STEP_S * burst_speed / tau_s)
        keep_quiet = math.exp(-STEP_S * recipe.quiet_speed / tau_s)
        keep = np.where(bursting, keep_burst, keep_quiet)
        move = normal * np.where(
            bursting, math.sqrt(1.0 - keep_burst**2), math.sqrt(1.0 - keep_quiet**2)
        )
        weight = math.sqrt(share)
        for t in range(len(z)):
            now = keep[t] * now + move[t]
            z[t] += weight * now
    return z


def _ratio_table(recipe: Recipe) -> tuple[list[float], list[float]]:
    """Standard normals and the ln(capacity / median) they stand for, outages taken out."""
    cut = recipe.outage_percent
    above = [(percent, value) for percent, value in recipe.ln_ratio_percentiles if percent > cut]
    z = [NormalDist().inv_cdf((percent - cut) / (100.0 - cut)) for percent, _ in above]
    values = [min(value, MAX_LN_RATIO) for _, value in above]
    if recipe.outages is not None:
        values = [max(value, recipe.outage_ln_ratio) for value in values]
    return z, values


def _noise(
    recipe: Recipe, session: dict[str, Floats], bursting: NDArray[np.bool_], normal: Floats
) -> Floats:
    """Mean-preserving log-normal noise, mostly averaged out within a second."""
    low, high = recipe.noise_sd
    level = low + (high - low) * session["noise_level"]
    sd = level * np.where(bursting, 1.0, QUIET_NOISE_RATIO)
    move = math.sqrt(1.0 - NOISE_CORRELATION**2)
    noise = np.empty(normal.shape)
    now = normal[0]
    for t in range(len(noise)):
        now = NOISE_CORRELATION * now + move * normal[t]
        noise[t] = now
    return np.asarray(sd * noise - sd * sd / 2.0)
