"""What tuning makes of windows whose answer is planted, and what the rate alone tells."""

from __future__ import annotations

import copy
import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from baselines import rules
from baselines.network_rules import (
    BurstPointsRule,
    LossPointsRule,
    PredictedRttRule,
    ScoreRule,
    answers,
)
from baselines.network_type_rules import TypeTree
from baselines.rules import RULES, BitrateControl, Candidate, tune
from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.network_features import DENSE_NAMES
from tests.baselines.windows import mean_f1, precision, random_windows, window

CANDIDATES = [candidate for candidates in RULES.values() for candidate in candidates]

# --- Grids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "candidate", CANDIDATES, ids=lambda candidate: type(candidate.rule).__name__
)
def test_a_grid_ascends_from_end_to_end_and_holds_the_value_before_tuning(
    candidate: Candidate,
) -> None:
    for name, grid in candidate.grid.items():
        assert all(lower < higher for lower, higher in pairwise(grid)), name
        assert grid[0] <= getattr(candidate.rule, name) <= grid[-1], name
    assert candidate.at(candidate.start()) == candidate.rule


def test_a_position_between_two_values_of_a_grid_is_a_value_between_them() -> None:
    candidate = Candidate(rule=PredictedRttRule(), grid={"horizon_s": (0.0, 1.0, 3.0)})
    horizons_s = [candidate.at([place]) for place in (0.0, 0.25, 1.5, 2.0)]
    assert horizons_s == [PredictedRttRule(horizon_s=value) for value in (0.0, 0.25, 2.0, 3.0)]


# --- Tuning ---------------------------------------------------------------------------------------


def test_tuning_finds_the_horizon_that_congestion_was_planted_with() -> None:
    dense = random_windows(1500)
    planted = PredictedRttRule(horizon_s=4.0).score(dense)
    labels = (planted > np.quantile(planted, 0.7)).astype(np.int64)
    rule = tune("congestion", dense, labels, precision)
    assert isinstance(rule, PredictedRttRule)
    assert rule.horizon_s == pytest.approx(4.0, rel=0.1)
    assert str(rule) == f"PredictedRttRule(horizon_s={rule.horizon_s})"


def test_tuning_finds_the_thresholds_that_a_tree_was_planted_with() -> None:
    planted = TypeTree(
        slow_bps=400e3,
        slow_floor_ms=110.0,
        wire_floor_ms=60.0,
        wire_variation_ms=3.0,
        satellite_spike_share=0.6,
        wifi_floor_ms=90.0,
    )
    dense = random_windows(3000)
    labels = planted.classify(dense)
    rule = tune("network_type", dense, labels, mean_f1)
    assert isinstance(rule, TypeTree)
    for name, value in dataclasses.asdict(planted).items():
        assert getattr(rule, name) == pytest.approx(value, rel=0.1), name
    unseen = random_windows(3000, seed=1)
    assert mean_f1(rule.classify(unseen), planted.classify(unseen)) > 0.98


@pytest.mark.parametrize(
    ("task", "planted"),
    [
        (
            "random_loss",
            LossPointsRule(rank_points=2.0, delay_points=0.0, gap_points=0.25, sent_points=0.0),
        ),
        (
            "bursty_loss",
            BurstPointsRule(window_points=2.0, longest_points=0.0, limit_doublings=2.0),
        ),
    ],
)
def test_tuning_comes_close_to_points_that_were_planted_also_on_unseen_windows(
    task: str, planted: ScoreRule
) -> None:
    dense, unseen = random_windows(1500), random_windows(1500, seed=1)
    threshold = np.quantile(planted.score(dense), 0.6)
    labels = (planted.score(dense) > threshold).astype(np.int64)
    rule = tune(task, dense, labels, precision)
    assert type(rule) is type(planted)
    unseen_labels = (planted.score(unseen) > threshold).astype(np.int64)
    # Before tuning 0.77 at best; what is left is windows near the threshold.
    assert precision(answers(rule, unseen), unseen_labels) > 0.97


def test_a_tuned_rule_is_at_least_as_good_as_every_rule_before_tuning() -> None:
    dense = random_windows(400)
    labels = np.random.default_rng(2).integers(0, 2, 400)
    for task in ("random_loss", "congestion", "bursty_loss"):
        tuned = precision(answers(tune(task, dense, labels, precision), dense), labels)
        untuned = [precision(answers(c.rule, dense), labels) for c in RULES[task]]
        assert tuned >= max(untuned), task


def test_tuning_touches_nothing_but_its_arguments_and_leaves_them_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "SEARCH_WINDOWS", 100)
    dense = random_windows(250)
    labels = np.random.default_rng(3).integers(0, 2, 250)
    dense_before, labels_before = dense.copy(), labels.copy()
    rules_before = copy.deepcopy(RULES)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (that nobody uses it is the point)
    seen: list[NDArray[np.int64]] = []

    def watched(scores: NDArray[Any], of_labels: NDArray[np.int64]) -> float:
        seen.append(of_labels)
        return precision(scores, of_labels)

    first = tune("congestion", dense, labels, watched)
    assert {len(part) for part in seen} == {84, 250}  # every third to search, all to compare
    for part in seen:
        np.testing.assert_array_equal(part, labels if len(part) == 250 else labels[::3])
    np.testing.assert_array_equal(dense, dense_before)
    np.testing.assert_array_equal(labels, labels_before)
    assert rules_before == RULES
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert tune("congestion", dense, labels, precision) == first


def test_an_unknown_task_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown task 'congestions'. Did you mean 'cong"):
        tune("congestions", random_windows(2), np.array([0, 1]), precision)


@pytest.mark.parametrize("labels", [[], [0, 1, 0]])
def test_windows_without_one_label_each_are_refused(labels: list[int]) -> None:
    dense = random_windows(2 if labels else 0)
    with pytest.raises(ConfigError, match="one label each"):
        tune("congestion", dense, np.array(labels, dtype=np.int64), precision)
    with pytest.raises(ConfigError, match="one label each"):
        BitrateControl.fit(dense, np.array(labels, dtype=np.int64))


# --- What the rate alone tells --------------------------------------------------------------------


def test_the_bitrate_control_scores_a_window_by_the_odds_of_its_rates() -> None:
    slow = window(acked_rate_w=100e3, acked_rate_1s=100e3)
    fast = window(acked_rate_w=1e6, acked_rate_1s=1e6)
    dense = np.stack([slow] * 4 + [fast] * 4)
    control = BitrateControl.fit(dense, np.array([1, 1, 1, 0, 0, 0, 0, 0]), bins=2)
    # With one window of each answer added: 4 to 2 where it is slow, 1 to 5 where it is fast.
    expected = np.log([4 / 2, 1 / 5])
    np.testing.assert_allclose(control.score(np.stack([slow, fast])), expected)
    np.testing.assert_allclose(control.score(fast), expected[1])


def test_the_bitrate_control_tells_a_rate_that_falls_from_one_that_stays() -> None:
    steady = window(acked_rate_w=1e6, acked_rate_1s=1e6)
    falling = window(acked_rate_w=1e6, acked_rate_1s=400e3)
    dense = np.stack([steady, falling] * 20)
    control = BitrateControl.fit(dense, np.array([1, 0] * 20), bins=2)
    assert control.score(steady) > 0.0 > control.score(falling)


def test_the_bitrate_control_sees_nothing_but_the_rate_that_arrives() -> None:
    dense = random_windows(500)
    labels = np.random.default_rng(4).integers(0, 2, 500)
    control = BitrateControl.fit(dense, labels)
    others = random_windows(500, seed=5)
    for name in ("acked_rate_1s", "acked_rate_w"):
        others[:, DENSE_NAMES.index(name)] = dense[:, DENSE_NAMES.index(name)]
    np.testing.assert_array_equal(control.score(others), control.score(dense))
    refitted = BitrateControl.fit(others, labels)
    np.testing.assert_array_equal(refitted.log_odds, control.log_odds)
