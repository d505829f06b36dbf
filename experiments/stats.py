"""Means and paired differences with bootstrap intervals over networks.

Calls on one network share its capacity trace, so they are no independent samples: the network is
the unit. Values of several seeds are averaged within a network first; then whole networks are
resampled, within their network type, because the mix of types is chosen and not drawn.

The bootstrap is the rescaled one of Rao and Wu, "Resampling inference with complex survey data",
JASA 83 (1988): of a stratum's n networks n - 1 are drawn with replacement, which makes its variance
the usual unbiased one. Drawing n would understate it by 1/n, which matters for types with a handful
of networks. Types with a single network say nothing about their spread and are resampled together,
as one stratum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bwe_env.errors import ConfigError

#: Resamples per interval: the ends of a 95 % interval then move by about 1 % of its width from one
#: seed to the next (measured; see tests/experiments/test_stats.py). Ours.
RESAMPLES = 10_000
#: Bound on the memory of one block of resamples, in drawn numbers. Ours.
BLOCK_DRAWS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over networks and the interval that holds it at the given level."""

    mean: float
    low: float
    high: float
    networks: int
    """how many networks stand behind it"""

    @property
    def excludes_zero(self) -> bool:
        """The whole interval lies on one side of 0."""
        return self.low > 0.0 or self.high < 0.0

    def text(self, digits: int = 3) -> str:
        """``mean [low, high]``."""
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


@dataclass(frozen=True, kw_only=True)
class PerNetwork:
    """One value per network: what remains of a column of calls once seeds are averaged."""

    names: NDArray[Any]
    """network names, shape (n,), sorted"""
    types: NDArray[Any]
    """network type of each, shape (n,)"""
    values: NDArray[np.float64]
    """mean over the network's calls, shape (n,); NaN where no call had a value"""


def per_network(networks: ArrayLike, types: ArrayLike, values: ArrayLike) -> PerNetwork:
    """Average a column of calls within each network.

    Args:
        networks: name of each call's network, shape (calls,).
        types: its network type, shape (calls,).
        values: the column, shape (calls,); NaN (undefined for that call) is left out.
    """
    names, first, inverse = np.unique(
        np.asarray(networks, dtype=str), return_index=True, return_inverse=True
    )
    column = np.asarray(values, dtype=np.float64)
    defined = np.isfinite(column)
    counts = np.bincount(inverse[defined], minlength=len(names))
    sums = np.bincount(inverse[defined], weights=column[defined], minlength=len(names))
    means = np.full(len(names), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return PerNetwork(names=names, types=np.asarray(types, dtype=str)[first], values=means)


def mean_interval(
    values: ArrayLike,
    strata: Sequence[Any] | NDArray[Any],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of one value per network, with a stratified percentile bootstrap interval.

    Args:
        values: shape (n,); NaN is left out.
        strata: network type of each value, shape (n,).
        level: share of such intervals that should hold the true mean.
        seed: of the resampling; the same seed gives the same interval to the last bit.

    Returns:
        The interval; from minus to plus infinity where one network stands alone.

    Raises:
        ConfigError: no value is left.
    """
    column = np.asarray(values, dtype=np.float64)
    defined = np.isfinite(column)
    column, groups = column[defined], without_singles(np.asarray(strata, dtype=str)[defined])
    if len(column) == 0:
        raise ConfigError("a mean over no networks has no interval; give at least one value.")
    if len(column) == 1:
        return Interval(mean=float(column[0]), low=-math.inf, high=math.inf, networks=1)
    means = _bootstrap_means(column, groups, resamples, seed)
    return _percentile_interval(float(column.mean()), means, level, len(column))


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    strata: Sequence[Any] | NDArray[Any],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Ratio of the sums over networks of two columns, with the same bootstrap as `mean_interval`.

    Args:
        numerators: shape (n,); a network where either is NaN is left out.
        denominators: shape (n,), >= 0.
        strata: network type of each, shape (n,).

    Returns:
        The interval; its `mean` is the ratio. From minus to plus infinity where one network stands
        alone.

    Raises:
        ConfigError: no network is left, or the denominators are all 0.
    """
    above = np.asarray(numerators, dtype=np.float64)
    below = np.asarray(denominators, dtype=np.float64)
    defined = np.isfinite(above) & np.isfinite(below)
    above, below = above[defined], below[defined]
    if not below.sum() > 0.0:
        raise ConfigError("a ratio over nothing has no interval; its denominators add up to 0.")
    ratio = float(above.sum() / below.sum())
    if len(above) == 1:
        return Interval(mean=ratio, low=-math.inf, high=math.inf, networks=1)
    groups = without_singles(np.asarray(strata, dtype=str)[defined])
    # The same seed draws the same networks for both.
    parts = [_bootstrap_means(column, groups, resamples, seed) for column in (above, below)]
    is_drawn = parts[1] > 0.0
    return _percentile_interval(ratio, parts[0][is_drawn] / parts[1][is_drawn], level, len(above))


def _percentile_interval(
    mean: float, resampled: NDArray[np.float64], level: float, networks: int
) -> Interval:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Interval(mean=mean, low=float(low), high=float(high), networks=networks)


def _bootstrap_means(
    column: NDArray[np.float64], groups: NDArray[np.int64], resamples: int, seed: int
) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    means = np.zeros((resamples, *column.shape[1:]))
    for name in np.unique(groups):
        stratum = column[groups == name]
        means += len(stratum) / len(column) * _resampled_means(stratum, resamples, generator)
    return means


def without_singles(strata: NDArray[Any]) -> NDArray[np.int64]:
    """Strata as numbers, those of one member joined to each other or else to the smallest one."""
    numbers = np.unique(strata, return_inverse=True)[1].astype(np.int64)
    is_single = np.bincount(numbers, minlength=1)[numbers] == 1
    numbers[is_single] = -1
    if is_single.sum() == 1 and len(numbers) > 1:
        others = numbers[~is_single]
        numbers[is_single] = others[np.argmin(np.bincount(others)[others])]
    return numbers


def _resampled_means(
    stratum: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Shape (resamples,) of a column (n,), or (resamples, k) of columns (n, k)."""
    n = len(stratum)
    draws = n - 1
    means = np.empty((resamples, *stratum.shape[1:]))
    block = max(1, BLOCK_DRAWS // draws)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        rows = generator.integers(n, size=(stop - start, draws))
        if stratum.ndim == 1:
            means[start:stop] = stratum[rows].mean(axis=1)
        else:
            # How often each network was drawn, times the columns: gathering k columns is slower.
            means[start:stop] = _draw_counts(rows, n) @ stratum / draws
    return means


def _draw_counts(rows: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """How often each of n networks is in each row of draws, shape (rows, n)."""
    cells = rows + n * np.arange(len(rows))[:, None]
    counts = np.bincount(cells.ravel(), minlength=n * len(rows))
    return counts.reshape(len(rows), n).astype(np.float64)


def resampled_means(
    columns: ArrayLike,
    strata: Sequence[Any] | NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Means over networks of several columns, in resamples of networks that they all share.

    What `ratio_interval` does for two columns, for whoever needs more of them at once: a change of
    a ratio is made of four.

    Args:
        columns: shape (n, k), finite: one row per network.
        strata: network type of each row, shape (n,).

    Returns:
        Shape (resamples, k).

    Raises:
        ConfigError: fewer than two networks, or a value that is not finite.
    """
    table = np.asarray(columns, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2 or not np.isfinite(table).all():
        raise ConfigError(
            f"resampling needs finite columns of at least 2 networks, shape (n, k); got shape "
            f"{table.shape} with {int((~np.isfinite(table)).sum())} values that are not finite."
        )
    return _bootstrap_means(table, without_singles(np.asarray(strata, dtype=str)), resamples, seed)


def resampled_weights(
    base: ArrayLike,
    strata: Sequence[Any] | NDArray[Any],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """What every network weighs in every resample, for statistics that are no means.

    Args:
        base: what each network weighs in the statistic itself, shape (n,), > 0.
        strata: network type of each, shape (n,).

    Returns:
        Shape (resamples, n); every row adds up to 1. NaN where one network stands alone, because
        nothing is known of its spread.
    """
    weights = np.asarray(base, dtype=np.float64)
    if len(weights) == 1:
        return np.full((resamples, 1), np.nan)
    groups = without_singles(np.asarray(strata, dtype=str))
    drawn = np.empty((resamples, len(weights)))
    generator = np.random.default_rng(seed)
    for name in np.unique(groups):
        (members,) = np.nonzero(groups == name)
        n = len(members)
        block = max(1, BLOCK_DRAWS // n)
        for start in range(0, resamples, block):
            stop = min(start + block, resamples)
            rows = generator.integers(n, size=(stop - start, n - 1))
            drawn[start:stop, members] = _draw_counts(rows, n) * (n / (n - 1) * weights[members])
    # A no-op unless networks of unequal weights share a stratum.
    drawn /= drawn.sum(axis=1, keepdims=True)
    return drawn


def paired_difference(
    first: PerNetwork,
    second: PerNetwork,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean over networks of ``first - second``, with its interval.

    Both must come from the same networks; pairing removes what makes one network harder than the
    next, which is most of the variance.

    Raises:
        ConfigError: the networks are not the same.
    """
    if not np.array_equal(first.names, second.names):
        missing = set(first.names.tolist()) ^ set(second.names.tolist())
        raise ConfigError(
            f"a paired difference needs the same networks on both sides; {len(missing)} are on one "
            f"side only, e.g. {sorted(missing)[0]!r}. Run both on one list of networks."
        )
    return mean_interval(
        first.values - second.values, first.types, level=level, resamples=resamples, seed=seed
    )
