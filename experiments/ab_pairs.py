"""Calls of two arms side by side: the same network and seed, and their sums per network.

Both arms meet the same calls, so a call is compared with itself. What is left per network are four
sums for each metric (numerator and denominator in either arm): every value in a report, and every
resample of it, is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from bwe_env.metrics import FieldMetric
from experiments.evaluation import Calls


@dataclass(frozen=True, kw_only=True)
class PairedCalls:
    """Row i of both tables is the same call. Made by `pair`."""

    control: Calls
    treatment: Calls

    @property
    def networks(self) -> int:
        """How many networks stand behind the calls."""
        return len(np.unique(self.control["network"]))

    @property
    def calls(self) -> int:
        """Calls of either arm."""
        return len(self.control["network"])


def pair(control: Calls, treatment: Calls) -> PairedCalls:
    """Put the rows of two tables of calls in one order, by network and seed.

    Raises:
        ConfigError: a call is there twice, or in one table only, or it has another length or
            network type in the other table.
    """
    keys = [_keys(calls) for calls in (control, treatment)]
    alone = set(keys[0]) ^ set(keys[1])
    if alone:
        network, seed = min(alone)
        raise ConfigError(
            f"{len(alone)} calls are in one arm only, e.g. network {network!r} with seed {seed}. "
            "Play both arms on one list of networks and seeds."
        )
    first, second = (
        {name: column[[row[key] for key in sorted(row)]] for name, column in calls.items()}
        for calls, row in zip((control, treatment), keys, strict=True)
    )
    for column in ("network_type", "duration_s"):
        differs = np.flatnonzero(first[column] != second[column])
        if len(differs):
            row = differs[0]
            raise ConfigError(
                f"call {first['network'][row]!r} has {column}={first[column][row]} in the control "
                f"and {second[column][row]} in the treatment. Play both arms in one setting."
            )
    return PairedCalls(control=first, treatment=second)


def _keys(calls: Calls) -> dict[tuple[str, int], int]:
    """Row of each call by its network and seed."""
    names, seeds = calls["network"].tolist(), calls["seed"].tolist()
    rows = {key: row for row, key in enumerate(zip(names, seeds, strict=True))}
    if len(rows) < len(names):
        raise ConfigError(
            f"{len(names) - len(rows)} calls are there more than once (network and seed are the "
            "same); give every call once."
        )
    return rows


@dataclass(frozen=True, kw_only=True)
class PairedSums:
    """A metric of both arms, network by network."""

    types: NDArray[Any]
    """network type, shape (networks,)"""
    control: NDArray[np.float64]
    """sums of numerator and denominator over the network's calls for each class of things that
    compare (`FieldMetric.classes`; most metrics have one), shape (networks, classes, 2)"""
    treatment: NDArray[np.float64]
    """the same of the treatment"""
    calls: int
    """pairs of calls that count"""
    undefined_control: int
    """pairs left out because the control's value is undefined (NaN), e.g. the delay of a call in
    which nothing arrived"""
    undefined_treatment: int
    """pairs left out because the treatment's is, though the control's is not"""

    @property
    def networks(self) -> int:
        """How many there are."""
        return len(self.types)

    @property
    def least_p(self) -> float:
        """What no two-sided test that flips the signs of the differing networks can be below."""
        return min(1.0, 2.0 ** (1 - self.differing))

    @property
    def differing(self) -> int:
        """Networks on which the two arms are not the same."""
        return int((self.control != self.treatment).any(axis=(1, 2)).sum())


def paired_sums(pairs: PairedCalls, metric: FieldMetric) -> PairedSums:
    """Sums per network of what a field metric is made of, over all scheduled calls.

    The mean of a column is the sum of its values over the number of calls: without `per`, that is
    the denominator. A pair counts in both arms or in none.
    """
    values = {name: metric_parts(calls, metric) for name, calls in _arms(pairs)}
    known = {name: np.isfinite(parts).all(axis=(1, 2)) for name, parts in values.items()}
    counts = known["control"] & known["treatment"]
    _, first, network = np.unique(pairs.control["network"], return_index=True, return_inverse=True)

    def per_network(parts: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.zeros((len(first), *parts.shape[1:]))
        np.add.at(sums, network[counts], parts[counts])
        return sums

    return PairedSums(
        types=np.asarray(pairs.control["network_type"], dtype=str)[first],
        control=per_network(values["control"]),
        treatment=per_network(values["treatment"]),
        calls=int(counts.sum()),
        undefined_control=int((~known["control"]).sum()),
        undefined_treatment=int((known["control"] & ~known["treatment"]).sum()),
    )


def _arms(pairs: PairedCalls) -> tuple[tuple[str, Calls], ...]:
    return (("control", pairs.control), ("treatment", pairs.treatment))


def metric_parts(calls: Calls, metric: FieldMetric) -> NDArray[np.float64]:
    """Numerator and denominator of every call and class, shape (calls, classes, 2)."""
    classes = []
    for column, per in metric.class_columns:
        above = metric.factor * np.asarray(calls[column], dtype=np.float64)
        below = np.ones(len(above)) if per is None else calls[per]
        classes.append(np.stack([above, np.asarray(below, dtype=np.float64)], axis=1))
    return np.stack(classes, axis=1)


def needed_columns(metrics: Iterable[FieldMetric]) -> set[str]:
    """Columns that these metrics are made of."""
    pairs = [pair for metric in metrics for pair in metric.class_columns]
    return {name for pair in pairs for name in pair if name is not None}
