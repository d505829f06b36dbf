"""Statistics of a comparison: means, interquartile means, chances to win, profiles, all paired.

**Unit.** The network. Values of its calls (several seeds) are averaged, and whole networks are
resampled within their type by the rescaled bootstrap of `experiments.stats`. All estimators meet
the same resamples, so differences are paired. Networks weigh the same ("as drawn"), or every
network type does ("equal types").

**Training runs.** An estimator that was trained several times has one row of values per run. Runs
are resampled as a second factor, independently of the networks, and a drawn run counts on every
network: the product of both weights (the pigeonhole bootstrap of A. Owen, Annals of Applied
Statistics 1, 2007, which errs to the wide side). With R runs, R - 1 are drawn, for the reason given
in `experiments.stats`. One run alone adds nothing: its interval speaks of that policy, not of its
training. Percentiles of few runs are narrow; five are the least that say something.

**Interquartile mean.** The mean between the quartiles of all values (runs and networks together),
as R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice",
NeurIPS 2021, have it. Values at the quartiles count by the part that lies inside, which weights
need. The program rliable leaves out whole values, so that both agree exactly where 4 divides their
number, and differ by less than the gap between neighbouring values elsewhere.

**Probability of improvement.** The chance that a call is better than one of the reference on the
same network, over all pairs of their runs and seeds; equal ones count half (Mann-Whitney, averaged
over networks; the same source). `share_won` compares only calls of the same seed.

**Performance profile.** The share of calls above each score (the same source).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.stats import resampled_weights

Array = NDArray[np.float64]

#: Resamples of a comparison: ends of a 95 % interval then move by 2 % of its width from seed to
#: seed, and a p-value is resolved to 1/4000. Ours.
COMPARE_RESAMPLES = 4_000
#: Of the intervals.
LEVEL = 0.95
#: Bound on the memory of an interquartile mean, in weights. Ours.
BLOCK_WEIGHTS = 4_000_000


@dataclass(frozen=True)
class Sampled:
    """A statistic and what it is in every resample."""

    value: float
    resampled: Array
    """shape (resamples,); NaN where nothing is known"""

    def __sub__(self, other: Sampled) -> Sampled:
        """The difference in every resample; paired where both met the same ones."""
        return Sampled(self.value - other.value, self.resampled - other.resampled)

    def ends(self, level: float = LEVEL) -> tuple[float, float]:
        """The percentile interval; NaN where any resample is unknown."""
        tail = (1.0 - level) / 2.0
        if not np.isfinite(self.resampled).all():
            return math.nan, math.nan
        low, high = np.quantile(self.resampled, [tail, 1.0 - tail])
        return float(low), float(high)


@dataclass(frozen=True)
class Draws:
    """What networks weigh, in the statistic and in every resample."""

    base: Array
    """shape (networks,), adds up to 1"""
    drawn: Array
    """shape (resamples, networks); rows add up to 1"""

    def of(self, is_kept: NDArray[np.bool_]) -> Draws:
        """Without some networks; the others' weights add up to 1 again."""
        if is_kept.all():
            return self
        base, drawn = self.base[is_kept], self.drawn[:, is_kept]
        with np.errstate(invalid="ignore", divide="ignore"):
            return Draws(base / base.sum(), drawn / drawn.sum(axis=1, keepdims=True))


def draw_networks(
    types: NDArray[np.str_], *, equal_types: bool, resamples: int, seed: int = 0
) -> Draws:
    """Weights of networks.

    Args:
        types: network type of each, shape (networks,).
        equal_types: every type weighs the same; else every network does.
    """
    numbers = np.unique(types, return_inverse=True)[1]
    sizes = np.bincount(numbers)[numbers]
    base = 1.0 / sizes if equal_types else np.ones(len(types))
    base = base / base.sum()
    drawn = resampled_weights(base, types, resamples=resamples, seed=seed)
    return Draws(base, drawn)


def draw_runs(label: str, count: int, *, resamples: int, seed: int = 0) -> Array:
    """What training runs of an estimator weigh in every resample, shape (resamples, count).

    Which runs are drawn depends on the label, not on who else is compared.
    """
    if count == 1:
        return np.ones((resamples, 1))
    stream = [seed, zlib.crc32(label.encode())]
    generator = np.random.default_rng(stream)
    return generator.multinomial(count - 1, np.full(count, 1.0 / count), size=resamples) / (
        count - 1
    )


def per_network(calls: Array) -> Array:
    """Mean over the last axis (seeds), NaN left out; NaN where nothing is left."""
    defined = np.isfinite(calls)
    count = defined.sum(axis=-1)
    total = np.where(defined, calls, 0.0).sum(axis=-1)
    means = np.full(count.shape, np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def mean(values: Array, draws: Draws, runs: Array) -> Sampled:
    """Mean over training runs and networks.

    Args:
        values: shape (training runs, networks); a network that is NaN for any run is left out.
        runs: of `draw_runs`.
    """
    values, kept = _where_defined(values, draws)
    if not values.size:
        return Sampled(math.nan, np.full(len(runs), np.nan))
    value = float(values.mean(axis=0) @ kept.base)
    return Sampled(value, ((kept.drawn @ values.T) * runs).sum(axis=1))


def _where_defined(values: Array, draws: Draws) -> tuple[Array, Draws]:
    """Only the networks on which every training run has a value."""
    is_defined = np.asarray(np.isfinite(values).all(axis=0), dtype=bool)
    return values[:, is_defined], draws.of(is_defined)


def difference(
    values: Array, others: Array, draws: Draws, runs: Array, other_runs: Array
) -> Sampled:
    """Mean of ``values - others`` over networks where both are defined."""
    is_defined = np.isfinite(values).all(axis=0) & np.isfinite(others).all(axis=0)
    both = [np.where(is_defined, part, np.nan) for part in (values, others)]
    return mean(both[0], draws, runs) - mean(both[1], draws, other_runs)


# --- Interquartile mean ---------------------------------------------------------------------------


def interquartile_mean(values: Array, draws: Draws, runs: Array) -> Sampled:
    """Interquartile mean over training runs and networks; arguments as for `mean`."""
    values, kept = _where_defined(values, draws)
    if not values.size:
        return Sampled(math.nan, np.full(len(runs), np.nan))
    order = np.argsort(values, axis=None, kind="stable")
    ordered = values.ravel()[order]
    equal_runs = np.full((1, len(values)), 1.0 / len(values))
    value = float(_inner_means(ordered, _products(equal_runs, kept.base[None, :])[:, order])[0])
    resampled = np.empty(len(runs))
    block = max(1, BLOCK_WEIGHTS // values.size)
    for start in range(0, len(runs), block):
        part = slice(start, start + block)
        weights = _products(runs[part], kept.drawn[part])
        resampled[part] = _inner_means(ordered, weights[:, order])
    return Sampled(value, resampled)


def _products(runs: Array, networks: Array) -> Array:
    """Weights of all pairs of a run and a network, shape (resamples, runs * networks)."""
    return (runs[:, :, None] * networks[:, None, :]).reshape(len(networks), -1)


def _inner_means(ordered: Array, weights: Array) -> Array:
    """Means of the distribution between its quartiles.

    Args:
        ordered: values in rising order, shape (n,).
        weights: of each value, shape (resamples, n).
    """
    shares = np.cumsum(weights, axis=1)
    shares /= shares[:, -1:]
    inner = np.diff(np.clip(shares, 0.25, 0.75), axis=1, prepend=0.25)
    return np.asarray(inner @ ordered / 0.5)


# --- Chances --------------------------------------------------------------------------------------


def chances_to_win(calls: Array, others: Array, *, same_seed: bool) -> Array:
    """How often calls are better than others on each network; equal ones count half.

    Args:
        calls: shape (training runs, networks, seeds), larger is better; NaN is left out.
        others: shape (their runs, networks, seeds).
        same_seed: compare only calls of the same seed; else every call with every other.

    Returns:
        Shape (training runs, their runs, networks); NaN where no pair is left.
    """
    first, second = calls[:, None, :, :], others[None, :, :, :]
    if not same_seed:
        first, second = first[..., :, None], second[..., None, :]
    won = np.where(first > second, 1.0, np.where(first == second, 0.5, 0.0))
    won[~(np.isfinite(first) & np.isfinite(second))] = np.nan
    return per_network(won.reshape(*won.shape[:3], -1))


def mean_chance(chances: Array, draws: Draws, runs: Array, other_runs: Array) -> Sampled:
    """Mean of `chances_to_win` over networks and both sides' runs."""
    count, other_count, networks = chances.shape
    flat = chances.reshape(-1, networks)
    both = (runs[:, :, None] * other_runs[:, None, :]).reshape(len(runs), count * other_count)
    return mean(flat, draws, both)


# --- Profiles, gaps, margins ----------------------------------------------------------------------


def profile(calls: Array, scores: Sequence[float], draws: Draws, runs: Array) -> list[Sampled]:
    """Share of calls above each score; arguments as for `chances_to_win` and `mean`."""
    is_call = np.isfinite(calls)
    above = [np.where(is_call, (calls > score).astype(float), np.nan) for score in scores]
    shares = np.stack([per_network(part) for part in above])
    count, networks = len(scores), calls.shape[1]
    values, kept = _where_defined(shares.reshape(-1, networks), draws)
    if not values.size:
        return [Sampled(math.nan, np.full(len(runs), np.nan))] * count
    means = values.reshape(count, -1, values.shape[1]).mean(axis=1) @ kept.base
    # One product for all scores: it reads the weights once.
    drawn = (kept.drawn @ values.T).reshape(len(runs), count, -1) * runs[:, None, :]
    resampled = drawn.sum(axis=2)
    return [Sampled(float(means[i]), resampled[:, i]) for i in range(count)]


def gap_closed(estimator: Sampled, reference: Sampled, oracle: Sampled) -> Sampled:
    """Share of the way from the reference to the oracle, as a ratio of means.

    Unknown (NaN) unless the oracle is better than the reference in the interval's resamples: a
    share of nothing means nothing.
    """
    way, whole = estimator - reference, oracle - reference
    low, _ = whole.ends()
    if not low > 0.0:
        return Sampled(math.nan, np.full_like(way.resampled, np.nan))
    # Beyond the interval's lower end there may be resamples without a gap to share.
    has_gap = whole.resampled > 0.0
    return Sampled(way.value / whole.value, way.resampled[has_gap] / whole.resampled[has_gap])


def worse_by_margin_p(gain: Sampled, margin: float, networks: int) -> float:
    """One-sided p-value of being worse by the margin or more.

    The share of resamples in which the gain is ``-margin`` or less, and never below what so many
    networks can tell: without an effect, n signs all point one way with probability ``2^-n``.

    Args:
        gain: estimator minus reference, signed so that more is better.
        margin: > 0.
    """
    if not np.isfinite(gain.resampled).all():
        return 1.0
    worse = int(np.count_nonzero(gain.resampled <= -margin))
    return max((1 + worse) / (len(gain.resampled) + 1), 0.5**networks)
