"""Contests are held on the same windows and networks, and thresholds mean what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.network_model import Inputs, NetworkModel, NetworkModelConfig
from bwe_env.network_features import DENSE_NAMES, NUM_DENSE, NUM_SERIES, SERIES_NAMES
from experiments.classification import expected_calibration_error, roc_auc
from experiments.model_scores import (
    answers_of,
    calibration_errors,
    hold,
    operating_point,
    permutation_importance,
    subset_of,
    threshold_of_best_f1,
)
from experiments.model_training import predict
from experiments.samples import Samples
from tests.experiments.planted_windows import planted

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def on_networks(task: str, count: int, *, windows: int = 4) -> Samples:
    """Planted windows, some to a network."""
    samples = planted(task, count=count * windows)
    return replace(
        samples,
        network=np.repeat(np.arange(count), windows),
        networks=tuple(f"n{i}" for i in range(count)),
        types=("3G", "wifi") * (count // 2),
    )


def first_feature_model(task: str, inputs: str) -> NetworkModel:
    """Its yes rises with the first dense feature, or with the newest bin's first series feature."""
    model: Any = NetworkModel(NetworkModelConfig(tasks=(task,), inputs=cast(Inputs, inputs)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        if inputs == "dense":
            model.dense[0].weight[0, 0] = 1.0
            model.dense[0].bias[0] = 5.0
        else:
            units = model.config.series_units
            model.lstm.weight_ih_l0[2 * units, 0] = 0.1  # the cell's input, of its first unit
        model.shared[0].weight[0, 0] = 1.0
        model.shared[0].bias[0] = 5.0
        model.heads[task].weight[0, 0] = 1.0
        model.heads[task].bias[0] = -10.0 if inputs == "dense" else -5.0
    return cast(NetworkModel, model.eval())


# --- Contests -------------------------------------------------------------------------------------


def test_a_contest_scores_each_seed_and_counts_the_mean_of_their_scores() -> None:
    samples = on_networks("congestion", 20)
    generator = np.random.default_rng(1)
    answers = [samples.labels + generator.normal(size=len(samples)) for _ in range(3)]
    contests = hold(samples, {"model": answers, "rule": [np.zeros(len(samples))]}, subset="all")
    assert [contest.metric for contest in contests] == ["ROC-AUC", "PR-AUC"]
    contest = contests[0]
    once = np.ones((1, len(samples)))
    expected = [float(roc_auc(answer, samples.labels == 1, once)[0]) for answer in answers]
    np.testing.assert_allclose(contest.by_seed["model"], expected)
    assert contest.interval("model").mean == pytest.approx(np.mean(expected))
    ensemble = float(roc_auc(np.sum(answers, axis=0), samples.labels == 1, once)[0])
    assert contest.interval("model").mean < ensemble  # an ensemble would be another contestant
    assert contest.interval("rule").low == contest.interval("rule").high == 0.5
    assert (contest.windows, contest.networks) == (80, 20)
    assert contest.positive_ratio == pytest.approx(samples.labels.mean())


def test_a_difference_is_paired_on_the_networks_that_were_drawn() -> None:
    samples = on_networks("congestion", 40)
    generator = np.random.default_rng(2)
    noisy = samples.labels + generator.normal(size=len(samples))
    nearly = noisy + 0.01 * generator.normal(size=len(samples))
    contest = hold(samples, {"a": [noisy], "b": [nearly]}, subset="all")[0]
    difference = contest.difference("a", "b")
    assert difference.mean == pytest.approx(contest.interval("a").mean - contest.interval("b").mean)
    own = contest.interval("a")
    assert difference.high - difference.low < 0.3 * (own.high - own.low)
    same = contest.difference("a", "a")
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def test_networks_without_a_window_are_not_drawn() -> None:
    samples = on_networks("congestion", 20)
    kept = subset_of(samples, samples.network % 5 == 3)
    contest = hold(kept, {"a": [kept.labels + 0.0]}, subset="some")[0]
    assert (contest.networks, contest.windows, contest.subset) == (4, 16, "some")
    assert contest.interval("a").mean == 1.0


def test_classes_are_scored_by_macro_f1() -> None:
    samples = on_networks("network_type", 20)
    named = {"right": [samples.labels], "one": [np.zeros_like(samples.labels)]}
    (contest,) = hold(samples, named, subset="all")
    assert contest.metric == "macro F1"
    assert contest.interval("right").mean == 1.0
    share = (samples.labels == 0).mean()
    assert contest.interval("one").mean == pytest.approx(2 * share / (share + 1) / 5)
    assert np.isnan(contest.positive_ratio)


def test_a_subset_keeps_windows_whole() -> None:
    samples = planted("congestion", count=30)
    keep = np.arange(30) % 4 == 1
    some = subset_of(samples, keep)
    np.testing.assert_array_equal(
        some.windows(np.arange(len(some))), samples.windows(np.flatnonzero(keep))
    )
    for name in ("dense", "labels", "is_special", "network", "call", "bin"):
        np.testing.assert_array_equal(getattr(some, name), getattr(samples, name)[keep])


def test_answers_are_probabilities_of_yes_or_the_likeliest_class() -> None:
    torch.manual_seed(0)
    for task in ("congestion", "network_type"):
        model = NetworkModel(NetworkModelConfig(tasks=(task,))).eval()
        samples = planted(task, count=40)
        (answer,) = answers_of([model], samples)
        probabilities = predict(model, samples)
        expected = probabilities[:, 0] if task == "congestion" else probabilities.argmax(axis=1)
        np.testing.assert_array_equal(answer, expected)


# --- Thresholds -----------------------------------------------------------------------------------


def test_an_operating_point_by_hand() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.1])
    labels = np.array([True, True, False, True])
    point = operating_point(scores, labels, 0.5)
    assert (point.precision, point.recall) == pytest.approx((2 / 3, 2 / 3))
    nothing = operating_point(scores, labels, 0.95)
    assert np.isnan(nothing.precision)
    assert nothing.recall == 0.0
    assert np.isnan(operating_point(scores, np.zeros(4, dtype=bool), 0.5).recall)


def f1(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    named = scores >= threshold
    sizes = named.sum() + labels.sum()
    return float(2.0 * (named & labels).sum() / sizes) if sizes else 0.0


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20))
def test_no_other_threshold_has_a_larger_f1(rows: list[tuple[int, bool]]) -> None:
    """Rules score in whole numbers: a threshold takes all of its ties or none."""
    scores = np.array([row[0] for row in rows], dtype=np.float64)
    labels = np.array([row[1] for row in rows])
    best = f1(scores, labels, threshold_of_best_f1(scores, labels))
    assert best == pytest.approx(max(f1(scores, labels, value) for value in scores))


# --- What models rest on --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "name", "features"),
    [
        ("dense", DENSE_NAMES[0], NUM_DENSE),
        ("series", f"{SERIES_NAMES[0]} (series)", NUM_SERIES),
    ],
)
def test_only_what_a_model_reads_matters_and_it_comes_first(
    inputs: str, name: str, features: int
) -> None:
    model = first_feature_model("congestion", inputs)
    samples = planted("congestion", count=400)
    importances = permutation_importance(model, samples, windows=300)
    assert len(importances) == features
    assert importances[0].feature == name
    # From nearly 1 to about one half: what is shuffled tells nothing.
    assert importances[0].loss == pytest.approx(0.5, abs=0.1)
    assert {importance.loss for importance in importances[1:]} == {0.0}
    again = permutation_importance(model, samples, windows=300)
    assert again == importances


def test_calibration_errors_of_classes_are_those_of_the_likeliest() -> None:
    torch.manual_seed(0)
    for task in ("congestion", "network_type"):
        model = NetworkModel(NetworkModelConfig(tasks=(task,))).eval()
        samples = planted(task, count=60)
        probabilities = predict(model, samples)
        if task == "congestion":
            expected = expected_calibration_error(probabilities[:, 0], samples.labels == 1)
        else:
            is_right = probabilities.argmax(axis=1) == samples.labels
            expected = expected_calibration_error(probabilities.max(axis=1), is_right)
        assert calibration_errors([model, model], samples) == [expected, expected]
