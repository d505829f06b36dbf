"""Scores of classifiers hold against definitions walked through pair by pair, and by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bwe_env.errors import ConfigError
from experiments.classification import (
    NetworkResamples,
    confusion,
    expected_calibration_error,
    interval_of,
    macro_f1,
    pr_auc,
    roc_auc,
)
from experiments.model_scores import hold
from experiments.samples import Samples
from experiments.stats import mean_interval

Floats = NDArray[np.float64]


def naive_roc_auc(scores: Floats, labels: NDArray[np.bool_], weights: Floats) -> float:
    """Every positive against every negative."""
    wins = pairs = 0.0
    for i in np.flatnonzero(labels):
        for j in np.flatnonzero(~labels):
            pair = weights[i] * weights[j]
            pairs += pair
            wins += pair * (1.0 if scores[i] > scores[j] else 0.5 * (scores[i] == scores[j]))
    return wins / pairs if pairs else float("nan")


def naive_average_precision(scores: Floats, labels: NDArray[np.bool_], weights: Floats) -> float:
    """Sum over the thresholds, from the highest down, of precision times the recall it adds."""
    total = weights[labels].sum()
    if total == 0.0:
        return float("nan")
    area = recall = 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        named = scores >= threshold
        hits = weights[named & labels].sum()
        if weights[named].sum() > 0.0:
            area += hits / weights[named].sum() * (hits / total - recall)
        recall = hits / total
    return float(area)


#: Few distinct scores, so that ties are common; weights as resamples have them, 0 among them.
SAMPLES = st.lists(
    st.tuples(
        st.integers(-2, 3), st.booleans(), st.sampled_from([0.0, 1.0, 1.25, 2.5]), st.booleans()
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=200)
@given(SAMPLES)
def test_both_areas_equal_their_definitions_with_ties_and_weights(
    rows: list[tuple[int, bool, float, bool]],
) -> None:
    scores = np.array([row[0] for row in rows], dtype=np.float64)
    labels = np.array([row[1] for row in rows])
    weights = np.array([[row[2] for row in rows], [float(row[3]) for row in rows]])
    for function, naive in ((roc_auc, naive_roc_auc), (pr_auc, naive_average_precision)):
        expected = [naive(scores, labels, weight) for weight in weights]
        # 1e-12: sums of 25 numbers in another order.
        np.testing.assert_allclose(function(scores, labels, weights), expected, atol=1e-12)


@settings(max_examples=50)
@given(SAMPLES)
def test_a_weight_counts_like_that_many_copies(rows: list[tuple[int, bool, float, bool]]) -> None:
    scores = np.array([row[0] for row in rows], dtype=np.float64)
    labels = np.array([row[1] for row in rows])
    copies = np.array([round(row[2]) for row in rows])
    once = np.ones((1, copies.sum()))
    for function in (roc_auc, pr_auc):
        if copies.sum() == 0:
            continue
        weighted = function(scores, labels, copies[None].astype(np.float64))
        repeated = function(np.repeat(scores, copies), np.repeat(labels, copies), once)
        np.testing.assert_allclose(weighted, repeated, atol=1e-12)


def test_areas_of_four_windows_worked_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.1], dtype=np.float32)
    labels = np.array([True, False, True, False])
    once = np.ones((1, 4))
    # Pairs won: 0.9 wins both, 0.7 wins one of two. Precision 1/1 and 2/3, each adding half.
    assert roc_auc(scores, labels, once)[0] == pytest.approx(3 / 4)
    assert pr_auc(scores, labels, once)[0] == pytest.approx((1 + 2 / 3) / 2)


def test_a_constant_scores_one_half_and_the_share_of_positives() -> None:
    labels = np.arange(10) < 3
    once = np.ones((1, 10))
    assert roc_auc(np.zeros(10), labels, once)[0] == 0.5
    assert pr_auc(np.zeros(10), labels, once)[0] == pytest.approx(0.3)


@pytest.mark.parametrize("answer", [True, False])
def test_one_class_alone_has_no_ranking(answer: bool) -> None:
    scores, labels, once = np.arange(4.0), np.full(4, answer), np.ones((1, 4))
    assert np.isnan(roc_auc(scores, labels, once)[0])
    expected = 1.0 if answer else np.nan
    np.testing.assert_equal(pr_auc(scores, labels, once)[0], expected)


#: Six windows of three classes: rows are what is true, columns what was said.
TRUE = np.array([0, 0, 0, 1, 1, 2])
SAID = np.array([0, 0, 1, 1, 2, 1])


def test_confusion_has_the_true_class_by_row() -> None:
    assert confusion(SAID, TRUE, 4).tolist() == [
        [2, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]


def test_macro_f1_by_hand_with_weights_and_a_class_that_never_occurs() -> None:
    once = np.ones(6)
    # Class 0: 2 hits of 3 true and 2 named; class 1: 1 of 2 and 3; class 2: none.
    first = (2 * 2 / 5 + 2 * 1 / 5 + 0.0) / 3
    doubled = once.copy()
    doubled[3] = 2.0  # the one hit of class 1
    second = (2 * 2 / 5 + 2 * 2 / 7 + 0.0) / 3
    values = macro_f1(SAID, TRUE, np.stack([once, doubled]), 3)
    np.testing.assert_allclose(values, [first, second])
    np.testing.assert_allclose(macro_f1(SAID, TRUE, once[None], 4), [first * 3 / 4])


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([0.1, 0.3, 0.6, 1.0])
    labels = np.array([False, True, True, True])
    # Lower half: mean 0.2, frequency 0.5. Upper half: mean 0.8, frequency 1. Each counts half.
    error = expected_calibration_error(probabilities, labels, bins=2)
    assert error == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)


def test_calibration_error_does_not_depend_on_the_order_of_equal_probabilities() -> None:
    """Half of the answers to one probability of one half are yes: that is calibrated."""
    probabilities = np.full(100, 0.5)
    labels = np.arange(100) < 50
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.0)
    assert expected_calibration_error(probabilities, labels[::-1]) == pytest.approx(0.0)


def test_true_probabilities_have_a_small_calibration_error_and_shifted_ones_the_shift() -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.uniform(0.2, 0.8, 30_000)
    labels = generator.random(30_000) < probabilities
    # A bin of 2,000 has a standard error of 0.011; the mean of 15 absolute ones is about 0.009.
    assert expected_calibration_error(probabilities, labels) < 0.015
    shifted = expected_calibration_error(probabilities + 0.1, labels)
    assert shifted == pytest.approx(0.1, abs=0.015)


# --- Resamples of networks ------------------------------------------------------------------------

TYPES = ("3G",) * 4 + ("5G",) * 6 + ("wifi",)


def test_the_first_row_is_every_network_once_and_every_draw_keeps_the_size_of_each_type() -> None:
    counts = NetworkResamples.draw(TYPES, resamples=200).counts
    assert counts.shape == (201, len(TYPES))
    assert (counts[0] == 1.0).all()
    # The single one is drawn with the smallest type: 4 of 5, scaled by 5 / 4.
    small = [0, 1, 2, 3, 10]
    np.testing.assert_allclose(counts[1:, small].sum(axis=1), 5.0)
    np.testing.assert_allclose(counts[1:, 4:10].sum(axis=1), 6.0)
    drawn = counts[1:, small] * 4 / 5
    np.testing.assert_allclose(drawn, np.round(drawn), atol=1e-12)


def test_every_network_is_drawn_once_on_average() -> None:
    counts = NetworkResamples.draw(TYPES, resamples=20_000, seed=3).counts[1:]
    # The sd of a count is at most 1.1; five standard errors of its mean are 0.04.
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.04)


def test_resampled_means_have_the_unbiased_stratified_variance() -> None:
    values = np.random.default_rng(2).normal(size=11)
    counts = NetworkResamples.draw(TYPES, resamples=40_000, seed=4).counts[1:]
    means = counts @ values / 11
    small = [0, 1, 2, 3, 10]
    expected = sum(
        (len(part) / 11) ** 2 * part.var(ddof=1) / len(part)
        for part in (values[small], values[4:10])
    )
    # The sd of a variance of 40,000 draws is sqrt(2 / 40000) of it, 0.7 %.
    assert means.var() == pytest.approx(expected, rel=0.03)


def test_the_same_seed_draws_the_same_networks_and_one_network_is_refused() -> None:
    first = NetworkResamples.draw(TYPES, resamples=20, seed=5).counts
    assert np.array_equal(first, NetworkResamples.draw(TYPES, resamples=20, seed=5).counts)
    assert not np.array_equal(first, NetworkResamples.draw(TYPES, resamples=20, seed=6).counts)
    with pytest.raises(ConfigError, match="at least two networks"):
        NetworkResamples.draw(["3G"])


def test_values_weigh_each_window_as_its_network_was_drawn_in_blocks_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resamples = NetworkResamples.draw(TYPES, resamples=30)
    networks = np.array([0, 0, 3, 10])
    whole = resamples.values(lambda weights: weights @ np.arange(1.0, 5.0), networks)
    counts = resamples.counts
    expected = 3 * counts[:, 0] + 3 * counts[:, 3] + 4 * counts[:, 10]
    np.testing.assert_allclose(whole, expected)
    monkeypatch.setattr("experiments.classification.BLOCK_NUMBERS", 8)  # two resamples at once
    blocks = resamples.values(lambda weights: weights @ np.arange(1.0, 5.0), networks)
    np.testing.assert_array_equal(blocks, whole)


def test_an_interval_has_the_value_of_all_networks_and_the_ends_of_the_resamples() -> None:
    values = np.array([5.0, *np.arange(101.0), np.nan])
    interval = interval_of(values, networks=7, level=0.9)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((5.0, 5.0, 95.0))
    assert interval.networks == 7
    nothing = interval_of(np.array([0.5, np.nan]), networks=1)
    assert (nothing.mean, nothing.low, nothing.high) == (0.5, -np.inf, np.inf)


def test_intervals_of_a_mean_are_those_of_the_other_tables() -> None:
    """`experiments.stats` draws the same way; only the random numbers differ."""
    values = np.random.default_rng(7).normal(size=11)
    resamples = NetworkResamples.draw(TYPES, resamples=20_000)
    ours = interval_of(resamples.values(lambda w: w @ values / 11, np.arange(11)), networks=11)
    theirs = mean_interval(values, TYPES, resamples=20_000)
    assert ours.mean == pytest.approx(theirs.mean)
    width = theirs.high - theirs.low
    # Ends of 20,000 resamples scatter by about 1 % of the width.
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)


# --- What the intervals promise -------------------------------------------------------------------


def clustered(
    generator: np.random.Generator, networks: int, windows: int
) -> tuple[Samples, Floats]:
    """Windows of one network share their answer mostly, and most of their score's error."""
    network = np.repeat(np.arange(networks), windows)
    leaning = generator.random(networks) < 0.5
    labels = np.where(generator.random(len(network)) < 0.9, leaning[network], ~leaning[network])
    error = generator.normal(size=networks)[network] + 0.3 * generator.normal(size=len(network))
    count = len(network)
    return (
        Samples(
            task="congestion",
            window_bins=40,
            series=np.zeros((0, 0), dtype=np.float32),
            first_row=np.zeros(count, dtype=np.int64),
            dense=np.zeros((count, 0), dtype=np.float32),
            labels=labels.astype(np.int64),
            is_special=np.zeros(count, dtype=np.bool_),
            network=network,
            call=network,
            bin=np.arange(count),
            networks=tuple(f"n{i}" for i in range(networks)),
            types=("3G", "5G") * (networks // 2),
        ),
        1.2 * labels + error,
    )


def test_intervals_hold_the_truth_about_95_percent_of_the_time_and_windows_alone_would_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = NetworkResamples.draw
    monkeypatch.setattr(NetworkResamples, "draw", lambda types: draw(types, resamples=200))
    generator = np.random.default_rng(8)
    many, scores = clustered(generator, 20_000, 4)
    once = np.ones((1, len(many)))
    truth = float(roc_auc(scores, many.labels == 1, once)[0])
    runs, held, held_by_windows = 120, 0, 0
    for _ in range(runs):
        samples, scores = clustered(generator, 40, 12)
        (contest, _) = hold(samples, {"model": [scores]}, subset="all")
        interval = contest.interval("model")
        held += interval.low <= truth <= interval.high
        alone = NetworkResamples.draw(["x"] * len(samples))
        of_windows = alone.values(
            partial(roc_auc, scores, samples.labels == 1),
            np.arange(len(samples)),
        )
        window_interval = interval_of(of_windows, networks=len(samples))
        held_by_windows += window_interval.low <= truth <= window_interval.high
    # sd of a share of 120 is 2 %; percentile intervals of 40 networks fall short by 1-3 %.
    assert 0.88 <= held / runs <= 0.99
    assert held_by_windows / runs < 0.7
