"""Whether calls of today are still those that a configuration was tuned for.

Two tables of calls that share nothing: those of the reference (the run that a configuration was
tuned or tested in) and those of now. Each has a column `detected_type`, the network type that the
sender found. Two questions:

- *Mix*: do the types still come as often? The population stability index over types,
  ``sum of (now - reference) * ln(now / reference)`` of their shares, with a bootstrap interval and
  a permutation test: no drift means that networks could as well have been in the other table. The
  index is above 0 even without drift, so the test decides and not the interval.
- *Metrics*: within each type, does every metric of `bwe_env.metrics.FIELD_METRICS` still have its
  value? Relative changes as in `experiments.ab_statistics`, but unpaired: each table is resampled
  by itself. Holm over all rows of a report.

Networks are the unit in both: calls on one share its trace, or in the field its client.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.metrics import FIELD_METRICS, FieldMetric
from experiments.ab_pairs import metric_parts
from experiments.ab_statistics import (
    AB_RESAMPLES,
    ALPHA,
    NOT_COUNTED,
    Change,
    change_from,
    holm,
    resampled_sums,
)
from experiments.evaluation import Calls, select
from experiments.stats import Interval, resampled_means

#: What calls without a detected type are called.
NO_TYPE = "none"
#: The row over all calls.
ALL = "all"
#: A type is compared if both tables hold calls on so many networks with it: the bootstrap of fewer
#: is too narrow (see `experiments.ab_statistics`). Ours.
MIN_NETWORKS = 20
#: Added to each type's number of calls, so that a type that is new or gone has a logarithm.
#: Jeffreys' prior for shares.
PRIOR_CALLS = 0.5
#: From here an index is called a moderate and a large shift. Convention of credit scoring (N.
#: Siddiqi, Credit Risk Scorecards, 2006).
MODERATE_INDEX, LARGE_INDEX = 0.1, 0.25
#: Permutations of the test: its p-value is at least 1e-4. Ours.
PERMUTATIONS = 9_999


# --- The mix of types -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TypeShare:
    """How many of the calls have one detected type."""

    name: str
    reference: float
    """share of the reference's calls, 0 to 1"""
    now: float
    change: Interval
    """now - reference, in percentage points, with its 95 % interval"""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The types of the two tables against each other."""

    shares: tuple[TypeShare, ...]
    index: float
    """population stability index, >= 0"""
    low: float
    """ends of its 95 % bootstrap interval"""
    high: float
    p_value: float
    """of the permutation test, in (0, 1]"""

    @property
    def has_drifted(self) -> bool:
        """The mix moved, by more than a convention calls small."""
        return self.p_value < ALPHA and self.index >= MODERATE_INDEX

    @property
    def size(self) -> str:
        """The convention's word for the index."""
        if self.index < MODERATE_INDEX:
            return "small"
        return "moderate" if self.index < LARGE_INDEX else "large"


def stability_index(
    reference: NDArray[np.float64], now: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Population stability index of calls per type.

    Args:
        reference: numbers of calls, shape (..., types), >= 0.
        now: the same shape.

    Returns:
        Shape (...), >= 0; `PRIOR_CALLS` are added to every number first.
    """
    shares = []
    for counts in (reference, now):
        smoothed = counts + PRIOR_CALLS
        shares.append(smoothed / smoothed.sum(axis=-1, keepdims=True))
    index: NDArray[np.float64] = ((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum(-1)
    return index


def mix_of(reference: Calls, now: Calls, *, resamples: int = AB_RESAMPLES, seed: int = 0) -> Mix:
    """Compare how often each type was detected.

    Raises:
        ConfigError: a table has fewer than two networks.
    """
    names = sorted(set(_types(reference)) | set(_types(now)))
    counts = [_type_counts(calls, names) for calls in (reference, now)]
    totals = [table.sum(axis=0) for table in counts]
    drawn = [
        _resampled_counts(table, resamples, seed + offset) for offset, table in enumerate(counts)
    ]
    shares = [table / table.sum(axis=-1, keepdims=True) for table in (*totals, *drawn)]
    indices = stability_index(*drawn)
    low, high = np.quantile(indices, [ALPHA / 2.0, 1.0 - ALPHA / 2.0])
    points = 100.0 * (shares[3] - shares[2])
    ends = np.quantile(points, [ALPHA / 2.0, 1.0 - ALPHA / 2.0], axis=0)
    networks = len(counts[1])
    return Mix(
        shares=tuple(
            TypeShare(
                name=name,
                reference=float(shares[0][i]),
                now=float(shares[1][i]),
                change=Interval(
                    mean=100.0 * float(shares[1][i] - shares[0][i]),
                    low=float(ends[0, i]),
                    high=float(ends[1, i]),
                    networks=networks,
                ),
            )
            for i, name in enumerate(names)
        ),
        index=float(stability_index(*totals)),
        low=float(low),
        high=float(high),
        p_value=_permutation_p(*counts, seed=seed),
    )


def _types(calls: Calls) -> list[str]:
    detected: list[str] = np.asarray(calls["detected_type"], dtype=str).tolist()
    return [name or NO_TYPE for name in detected]


def _type_counts(calls: Calls, names: Sequence[str]) -> NDArray[np.float64]:
    """Calls of each type on each network, shape (networks, types)."""
    network = np.unique(calls["network"], return_inverse=True)[1]
    column = np.array([names.index(name) for name in _types(calls)])
    counts = np.zeros((network.max() + 1, len(names)))
    np.add.at(counts, (network, column), 1.0)
    return counts


def _resampled_counts(
    counts: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Resampled totals; one stratum, as here the mix of types is what is drawn."""
    strata = np.repeat(ALL, len(counts))
    return len(counts) * resampled_means(counts, strata, resamples=resamples, seed=seed)


def _permutation_p(reference: NDArray[np.float64], now: NDArray[np.float64], *, seed: int) -> float:
    """Share of re-deals of the networks to the two tables with an index as high as the observed."""
    generator = np.random.default_rng(seed)
    pooled = np.concatenate([reference, now])
    total = pooled.sum(axis=0)
    observed = stability_index(reference.sum(axis=0), now.sum(axis=0))
    order = np.tile(np.arange(len(pooled)), (100, 1))
    as_high, done = 0, 0
    while done < PERMUTATIONS:
        dealt = generator.permuted(order, axis=1)[: PERMUTATIONS - done, : len(reference)]
        first = pooled[dealt].sum(axis=1)
        as_high += int((stability_index(first, total - first) >= observed - 1e-12).sum())
        done += len(dealt)
    return (1 + as_high) / (PERMUTATIONS + 1)


# --- The metrics ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class UnpairedSums:
    """A metric of two tables of calls; see `experiments.ab_statistics.Sums`."""

    control: NDArray[np.float64]
    treatment: NDArray[np.float64]
    calls: int
    undefined_control: int
    undefined_treatment: int

    @property
    def networks(self) -> int:
        """Of both tables."""
        return len(self.control) + len(self.treatment)

    @property
    def differing(self) -> int:
        """Networks on which there is anything."""
        return sum(int(p[..., 0].any(axis=1).sum()) for p in (self.control, self.treatment))

    @property
    def least_p(self) -> float:
        """Chance that all of them fall into the table of more networks, if they fall at random."""
        share = max(len(self.control), len(self.treatment)) / self.networks
        return float(share**self.differing)


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A metric within one detected type."""

    type_name: str
    change: Change
    """from the reference ("control") to now ("treatment")"""
    counts: bool
    p_holm: float
    """over all rows of the report that count; NaN for one that does not"""

    @property
    def is_flagged(self) -> bool:
        """It moved, in whatever direction: the configuration was not tuned for these calls."""
        return self.counts and self.p_holm < ALPHA


def drifts(
    reference: Calls, now: Calls, *, resamples: int = AB_RESAMPLES, seed: int = 0
) -> list[Drift]:
    """Every metric of every detected type that is frequent enough, and of all calls together.

    Raises:
        ConfigError: a table has fewer than two networks, or with so few resamples no p-value could
            be significant after Holm.
    """
    names = (ALL, *compared_types(reference, now))
    needed = math.ceil(2.0 * len(names) * (len(FIELD_METRICS) - len(NOT_COUNTED)) / ALPHA)
    if resamples < needed:
        raise ConfigError(
            f"resamples={resamples} must be at least {needed}: a report on {len(names)} groups of "
            "calls has so many rows that Holm could find nothing with fewer."
        )
    found: list[tuple[str, Change]] = []
    for name in names:
        tables = [_of_type(calls, name) for calls in (reference, now)]
        found += [
            (name, change) for change in unpaired_changes(*tables, resamples=resamples, seed=seed)
        ]
    family = [change for _, change in found if change.metric.name not in NOT_COUNTED]
    adjusted = iter(holm([change.p_value for change in family]))
    rows = []
    for name, change in found:
        counts = change.metric.name not in NOT_COUNTED
        p_holm = next(adjusted) if counts else math.nan
        rows.append(Drift(type_name=name, change=change, counts=counts, p_holm=p_holm))
    return rows


def compared_types(reference: Calls, now: Calls) -> list[str]:
    """Detected types that both tables have on `MIN_NETWORKS` networks or more."""
    return [
        name
        for name in sorted(set(_types(reference)) & set(_types(now)))
        if all(
            len(np.unique(_of_type(calls, name)["network"])) >= MIN_NETWORKS
            for calls in (reference, now)
        )
    ]


def _of_type(calls: Calls, name: str) -> Calls:
    if name == ALL:
        return calls
    return select(calls, np.array([found == name for found in _types(calls)]))


def unpaired_changes(
    reference: Calls, now: Calls, *, resamples: int = AB_RESAMPLES, seed: int = 0
) -> list[Change]:
    """Change of each metric of `bwe_env.metrics.FIELD_METRICS` between calls that share nothing.

    Raises:
        ConfigError: a table has fewer than two networks.
    """
    metrics = tuple(FIELD_METRICS.values())
    tables = [_network_sums(calls, metrics) for calls in (reference, now)]
    drawn = [
        resampled_sums(sums, types, resamples, seed + offset)
        for offset, (sums, types, _) in enumerate(tables)
    ]
    return [
        change_from(
            metric,
            UnpairedSums(
                control=tables[0][0][i],
                treatment=tables[1][0][i],
                calls=len(reference["network"]) + len(now["network"]),
                undefined_control=tables[0][2][i],
                undefined_treatment=tables[1][2][i],
            ),
            drawn[0][i],
            drawn[1][i],
        )
        for i, metric in enumerate(metrics)
    ]


def _network_sums(
    calls: Calls, metrics: Sequence[FieldMetric]
) -> tuple[list[NDArray[np.float64]], NDArray[Any], list[int]]:
    """Sums per network of shape (networks, classes, 2) for each metric, types, undefined calls."""
    _, first, network = np.unique(calls["network"], return_index=True, return_inverse=True)
    if len(first) < 2:
        raise ConfigError(f"{len(first)} network has no spread; give calls on at least 2.")
    sums, undefined = [], []
    for metric in metrics:
        parts = metric_parts(calls, metric)
        known = np.isfinite(parts).all(axis=(1, 2))
        sums.append(np.zeros((len(first), *parts.shape[1:])))
        np.add.at(sums[-1], network[known], parts[known])
        undefined.append(int((~known).sum()))
    return sums, np.asarray(calls["network_type"], dtype=str)[first], undefined
