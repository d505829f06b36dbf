"""Scores of classifiers with intervals over networks: ROC-AUC, PR-AUC, F1, calibration.

Windows of one call, and calls of one network, are no independent samples. So the bootstrap draws
whole networks within their type (as `experiments.stats` does), and a drawn network's windows count
as often as it was drawn. Scores of several training seeds are averaged within each resample, and
differences of two classifiers are taken on the same resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from experiments.stats import Interval, without_singles

#: Resamples of networks. An end of a 95 % interval then moves by some 5 % of its width from one
#: seed to the next, which is less than what three training seeds make of it. Ours.
RESAMPLES = 1000
#: Bound on the memory of one block of resamples, in numbers. Ours.
BLOCK_NUMBERS = 8_000_000

Floats = NDArray[np.float64]
#: A score of classifiers: (scores, labels, weights of shape (resamples, n)) to (resamples,).
Metric = Callable[[NDArray[np.floating], NDArray[np.bool_], Floats], Floats]


def _sorted_sums(
    scores: NDArray[np.floating], labels: NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives at each distinct score, from the highest down.

    Returns:
        Two arrays of shape (resamples, distinct scores).
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    weight = weights[:, order]
    positive = weight * labels[order]
    return (
        np.add.reduceat(positive, starts, axis=1),
        np.add.reduceat(weight - positive, starts, axis=1),
    )


def roc_auc(scores: NDArray[np.floating], labels: NDArray[np.bool_], weights: Floats) -> Floats:
    """Chance that a positive scores above a negative, ties counting half; NaN without either.

    Args:
        scores: shape (n,), the higher the likelier positive.
        labels: shape (n,).
        weights: how often each sample counts, shape (resamples, n).

    Returns:
        Shape (resamples,).
    """
    positive, negative = _sorted_sums(scores, labels, weights)
    below = negative.sum(axis=1, keepdims=True) - np.cumsum(negative, axis=1)
    wins = (positive * (below + 0.5 * negative)).sum(axis=1)
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(wins), np.nan), where=pairs > 0)


def pr_auc(scores: NDArray[np.floating], labels: NDArray[np.bool_], weights: Floats) -> Floats:
    """Average precision: precision at every distinct score, weighted by the recall it adds.

    Arguments and result as for `roc_auc`.
    """
    positive, negative = _sorted_sums(scores, labels, weights)
    found = np.cumsum(positive, axis=1)
    asked = found + np.cumsum(negative, axis=1)
    precision = np.divide(found, asked, out=np.zeros_like(found), where=asked > 0)
    total = positive.sum(axis=1)
    area = (precision * positive).sum(axis=1)
    return np.divide(area, total, out=np.full(len(total), np.nan), where=total > 0)


def macro_f1(
    predictions: NDArray[np.int64], labels: NDArray[np.int64], weights: Floats, classes: int
) -> Floats:
    """Mean over the classes of F1; a class that neither occurs nor is named counts as 0.

    Returns:
        Shape (resamples,).
    """
    total = np.zeros(len(weights))
    for index in range(classes):
        is_true, is_named = labels == index, predictions == index
        hits = weights[:, is_true & is_named].sum(axis=1)
        sizes = weights[:, is_true].sum(axis=1) + weights[:, is_named].sum(axis=1)
        total += np.divide(2.0 * hits, sizes, out=np.zeros_like(hits), where=sizes > 0)
    return total / classes


def confusion(
    predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts, true class by row and predicted class by column."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (labels, predictions), 1)
    return table


@dataclass(frozen=True, kw_only=True)
class OperatingCurve:
    """What each threshold finds, from none of the windows to all; arrays of shape (n,)."""

    recall: Floats
    """positives that are named, of all positives; also the true positive rate"""
    false_positive_ratio: Floats
    """negatives that are named, of all negatives"""
    precision: Floats
    """positives among what is named; 1 where nothing is"""


def operating_curve(
    scores: NDArray[np.floating], labels: NDArray[np.bool_]
) -> OperatingCurve | None:
    """Points of the ROC and PR curves, one for each distinct score; None without both labels."""
    if labels.all() or not labels.any():
        return None
    positive, negative = _sorted_sums(scores, labels, np.ones((1, len(labels))))
    found = np.concatenate([[0.0], np.cumsum(positive[0])])
    false = np.concatenate([[0.0], np.cumsum(negative[0])])
    precision = np.divide(found, found + false, out=np.ones_like(found), where=found + false > 0)
    return OperatingCurve(
        recall=found / found[-1], false_positive_ratio=false / false[-1], precision=precision
    )


@dataclass(frozen=True, kw_only=True)
class CalibrationBins:
    """Bins of equal counts in the order of the probability; arrays of shape (bins,)."""

    probability: Floats
    """mean of what was said"""
    frequency: Floats
    """how often it came true"""
    counts: NDArray[np.int64]


def calibration_bins(
    probabilities: NDArray[np.floating], labels: NDArray[np.bool_], *, bins: int = 15
) -> CalibrationBins:
    """Frequency and probability over bins of equal counts; empty ones are left out.

    Equal probabilities share a bin, whichever way the windows are ordered.

    Args:
        probabilities: shape (n,), n >= 1.
        labels: shape (n,).
    """
    values = np.asarray(probabilities, dtype=np.float64)
    below = np.searchsorted(np.sort(values), values)  # how many windows have less
    numbers = below * bins // len(values)
    counts = np.bincount(numbers)
    is_used = counts > 0
    said, true = (np.bincount(numbers, weights=column) for column in (values, labels))
    return CalibrationBins(
        probability=said[is_used] / counts[is_used],
        frequency=true[is_used] / counts[is_used],
        counts=counts[is_used],
    )


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.bool_], *, bins: int = 15
) -> float:
    """Mean distance of frequency and probability over `calibration_bins`.

    Args:
        probabilities: shape (n,), n >= 1.
        labels: shape (n,).

    Returns:
        0 to 1.
    """
    drawn = calibration_bins(probabilities, labels, bins=bins)
    gaps = drawn.counts * np.abs(drawn.probability - drawn.frequency)
    return float(gaps.sum() / len(probabilities))


@dataclass(frozen=True, kw_only=True)
class NetworkResamples:
    """How often each network was drawn in each resample; the first row is all of them once."""

    counts: Floats
    """shape (1 + resamples, networks)"""

    @classmethod
    def draw(
        cls, types: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
    ) -> NetworkResamples:
        """Draw networks within their type: n - 1 of n, scaled up (Rao and Wu, see `stats`).

        Args:
            types: network type of each network.

        Raises:
            ConfigError: fewer than two networks.
        """
        if len(types) < 2:
            raise ConfigError("an interval over networks needs at least two networks.")
        strata = without_singles(np.asarray(types, dtype=str))
        generator = np.random.default_rng(seed)
        counts = np.zeros((1 + resamples, len(types)))
        counts[0] = 1.0
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            draws = max(1, len(members) - 1)
            drawn = generator.multinomial(draws, np.full(len(members), 1 / len(members)), resamples)
            counts[1:, members] = drawn * (len(members) / draws)
        return cls(counts=counts)

    def values(
        self,
        metric: Callable[[Floats], Floats],
        networks: NDArray[np.int64],
    ) -> Floats:
        """A metric on all networks and on every resample.

        Args:
            metric: of weights of shape (resamples, n).
            networks: position of each sample's network, shape (n,).

        Returns:
            Shape (1 + resamples,).
        """
        block = max(1, BLOCK_NUMBERS // max(1, len(networks)))
        parts = [
            metric(self.counts[start : start + block, :][:, networks])
            for start in range(0, len(self.counts), block)
        ]
        return np.concatenate(parts)


def interval_of(values: Floats, *, networks: int, level: float = 0.95) -> Interval:
    """The interval of what `NetworkResamples.values` gave, or of a mean or difference of such."""
    tail = (1.0 - level) / 2.0
    resampled = values[1:][np.isfinite(values[1:])]
    if len(resampled) == 0:
        return Interval(mean=float(values[0]), low=-np.inf, high=np.inf, networks=networks)
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Interval(mean=float(values[0]), low=float(low), high=float(high), networks=networks)
