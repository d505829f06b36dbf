from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from experiments.compare_statistics import (
    Draws,
    Sampled,
    chances_to_win,
    difference,
    draw_networks,
    draw_runs,
    gap_closed,
    interquartile_mean,
    mean,
    mean_chance,
    per_network,
    profile,
    worse_by_margin_p,
)
from experiments.stats import mean_interval

Array = NDArray[np.float64]
ONE_RUN = np.ones((200, 1))


def drawn(networks: int, *, types: int = 1, equal_types: bool = False) -> Draws:
    names = np.array([f"t{i % types}" for i in range(networks)])
    return draw_networks(names, equal_types=equal_types, resamples=200)


# --- Interquartile mean ---------------------------------------------------------------------------


def test_the_interquartile_mean_of_eight_values_is_the_mean_of_the_middle_four() -> None:
    values = np.array([[100.0, 1, 2, 3, 4, 5, 6, -50]])
    found = interquartile_mean(values, drawn(8), ONE_RUN)
    assert found.value == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_values_at_the_quartiles_count_by_the_part_that_lies_inside() -> None:
    """Of 0, 1, 2, 3, 4 the middle half has 3/4 of 1, all of 2 and 3/4 of 3; here it is skewed."""
    found = interquartile_mean(np.array([[0.0, 1.0, 2.0, 5.0, 9.0]]), drawn(5), ONE_RUN)
    assert found.value == pytest.approx((0.75 * 1 + 2 + 0.75 * 5) / 2.5)


def test_the_interquartile_mean_takes_runs_and_networks_together() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    runs = draw_runs("ppo", 2, resamples=200)
    assert interquartile_mean(values, drawn(4), runs).value == pytest.approx(4.5)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 20)), min_size=2, max_size=25))
def test_a_weighted_interquartile_mean_equals_that_of_repeated_values(
    pairs: list[tuple[float, int]],
) -> None:
    values = np.array([value for value, _ in pairs])
    weights = np.array([weight for _, weight in pairs], dtype=float)
    weights = np.round(250 * weights / weights.sum() + 1)  # whole thousandths of a quarter
    base = weights / weights.sum()
    draws = Draws(base, np.tile(base, (3, 1)))
    found = interquartile_mean(values[None, :], draws, np.ones((3, 1)))
    repeated = np.sort(np.repeat(values, 4 * weights.astype(int)))
    quarter = len(repeated) // 4
    expected = repeated[quarter : len(repeated) - quarter].mean()
    assert found.value == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(found.resampled, expected, atol=1e-9)


# --- Means and their resamples --------------------------------------------------------------------


def test_the_mean_and_its_interval_are_those_of_the_other_experiments() -> None:
    """The naive twin: `experiments.stats.mean_interval` draws the same networks."""
    values = np.random.default_rng(1).normal(size=37)
    types = np.array([f"t{i % 3}" for i in range(37)])
    draws = draw_networks(types, equal_types=False, resamples=500, seed=3)
    found = mean(values[None, :], draws, np.ones((500, 1)))
    expected = mean_interval(values, types, resamples=500, seed=3)
    assert found.value == pytest.approx(expected.mean)
    assert found.ends() == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_equal_types_weigh_the_same_whatever_their_networks() -> None:
    types = np.array(["a"] * 6 + ["b"] * 2)
    values = np.array([[1.0] * 6 + [5.0] * 2])
    as_drawn, equal = (
        draw_networks(types, equal_types=choice, resamples=50) for choice in (False, True)
    )
    assert mean(values, as_drawn, np.ones((50, 1))).value == pytest.approx(2.0)
    found = mean(values, equal, np.ones((50, 1)))
    assert found.value == pytest.approx(3.0)
    np.testing.assert_allclose(found.resampled, 3.0)  # values differ between types only


@settings(max_examples=25)
@given(st.integers(2, 40), st.integers(1, 6), st.booleans())
def test_weights_of_every_resample_add_up_to_one(networks: int, types: int, equal: bool) -> None:
    draws = drawn(networks, types=types, equal_types=equal)
    np.testing.assert_allclose(draws.drawn.sum(axis=1), 1.0)
    assert draws.base.sum() == pytest.approx(1.0)
    assert (draws.drawn >= 0.0).all()
    runs = draw_runs("ppo", types, resamples=30)
    np.testing.assert_allclose(runs.sum(axis=1), 1.0)


def test_a_network_without_a_value_is_left_out_of_both_sides_of_a_difference() -> None:
    first = np.array([[1.0, 2.0, np.nan, 4.0]])
    second = np.array([[0.0, 0.0, 7.0, np.nan]])
    found = difference(first, second, drawn(4), ONE_RUN, ONE_RUN)
    assert found.value == pytest.approx(1.5)
    nothing = np.full((1, 4), np.nan)
    assert math.isnan(mean(nothing, drawn(4), ONE_RUN).value)
    assert math.isnan(interquartile_mean(nothing, drawn(4), ONE_RUN).ends()[0])


def test_what_makes_networks_hard_cancels_in_a_paired_difference() -> None:
    hardness = np.random.default_rng(2).normal(0.0, 100.0, size=(1, 30))
    found = difference(hardness + 1.0, hardness, drawn(30), ONE_RUN, ONE_RUN)
    assert found.ends() == pytest.approx((1.0, 1.0), abs=1e-9)


def test_one_network_alone_has_a_value_and_no_interval() -> None:
    found = mean(np.array([[2.0]]), drawn(1), ONE_RUN)
    assert found.value == 2.0
    assert all(math.isnan(end) for end in found.ends())
    assert worse_by_margin_p(found, 0.1, 1) == 1.0


def test_runs_that_differ_widen_the_interval_and_equal_ones_do_not() -> None:
    one = np.random.default_rng(3).normal(size=(1, 40))
    runs = draw_runs("ppo", 5, resamples=200)
    alone = mean(one, drawn(40), ONE_RUN).ends()
    same = mean(np.repeat(one, 5, axis=0), drawn(40), runs).ends()
    assert same == pytest.approx(alone, abs=1e-12)
    shifted = one + np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]])
    wide = mean(shifted, drawn(40), runs).ends()
    assert wide[1] - wide[0] > 1.5 * (alone[1] - alone[0])


def test_the_runs_that_are_drawn_do_not_depend_on_who_else_is_compared() -> None:
    assert np.array_equal(draw_runs("ppo", 3, resamples=9), draw_runs("ppo", 3, resamples=9))
    assert not np.array_equal(draw_runs("ppo", 3, resamples=9), draw_runs("lstm", 3, resamples=9))


# --- Coverage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_intervals_hold_the_truth_about_95_percent_of_the_time(statistic: object) -> None:
    """Normal values: mean and interquartile mean are both 0."""
    generator = np.random.default_rng(5)
    types = np.repeat(["a", "b", "c"], (12, 20, 28))
    experiments, held = 300, 0
    for experiment in range(experiments):
        draws = draw_networks(types, equal_types=False, resamples=400, seed=experiment)
        values = generator.normal(size=(1, 60))
        low, high = statistic(values, draws, np.ones((400, 1))).ends()  # type: ignore[operator]
        held += low <= 0.0 <= high
    # sd of the share 1.3 %; percentiles of 60 values fall short by 1 to 2 %.
    assert 0.90 <= held / experiments <= 0.985


def test_intervals_cover_training_seeds_about_95_percent_of_the_time() -> None:
    """Ten runs whose own scatter is as large as that of a mean over networks."""
    generator = np.random.default_rng(6)
    types = np.repeat(["a", "b"], 20)
    experiments, held = 300, 0
    for experiment in range(experiments):
        draws = draw_networks(types, equal_types=False, resamples=400, seed=experiment)
        runs = draw_runs("ppo", 10, resamples=400, seed=experiment)
        values = generator.normal(size=40) + generator.normal(0.0, 0.5, size=(10, 1))
        low, high = mean(values, draws, runs).ends()
        held += low <= 0.0 <= high
    assert 0.90 <= held / experiments <= 0.985


# --- Chances --------------------------------------------------------------------------------------


def naive_chance(first: Array, second: Array) -> float:
    pairs = list(itertools.product(first.ravel(), second.ravel()))
    return sum(1.0 if x > y else 0.5 if x == y else 0.0 for x, y in pairs) / len(pairs)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_the_probability_of_improvement_is_the_mann_whitney_share_averaged_over_networks(
    seed: int, runs: int, other_runs: int, seeds: int
) -> None:
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 4, size=(runs, 6, seeds)).astype(float)
    second = generator.integers(0, 4, size=(other_runs, 6, seeds)).astype(float)
    chances = chances_to_win(first, second, same_seed=False)
    weights = (draw_runs("a", n, resamples=200) for n in (runs, other_runs))
    found = mean_chance(chances, drawn(6), *weights)
    expected = np.mean([naive_chance(first[:, i], second[:, i]) for i in range(6)])
    assert found.value == pytest.approx(expected)
    low, high = found.ends()
    assert 0.0 - 1e-12 <= low <= high <= 1.0 + 1e-12


def test_won_calls_are_counted_seed_by_seed() -> None:
    first = np.array([[[1.0, 5.0], [2.0, np.nan]]])
    second = np.array([[[2.0, 4.0], [2.0, 0.0]]])
    chances = chances_to_win(first, second, same_seed=True)
    np.testing.assert_allclose(chances, [[[0.5, 0.5]]])
    every = chances_to_win(first, second, same_seed=False)
    # Network 0: 1 loses to 2 and 4, 5 beats both; network 1: 2 equals 2 and beats 0.
    np.testing.assert_allclose(every, [[[0.5, 0.75]]])


# --- Profiles, gaps, margins ----------------------------------------------------------------------


def test_a_profile_is_the_share_of_calls_above_each_score() -> None:
    calls = np.array([[[1.0, 3.0], [2.0, np.nan], [4.0, 4.0], [2.5, 0.5]]])
    shares = [share.value for share in profile(calls, [0.0, 2.0, 4.0], drawn(4), ONE_RUN)]
    assert shares == pytest.approx([1.0, (0.5 + 0.0 + 1.0 + 0.5) / 4, 0.0])
    with_nothing = per_network(np.array([[np.nan, np.nan], [1.0, np.nan]]))
    np.testing.assert_array_equal(with_nothing, [np.nan, 1.0])


def test_the_gap_closed_is_a_ratio_of_means_and_unknown_without_a_gap() -> None:
    reference = Sampled(1.0, np.array([1.0, 1.1, 0.9]))
    oracle = Sampled(3.0, np.array([3.0, 3.1, 2.9]))
    half = Sampled(2.0, np.array([2.0, 2.1, 1.9]))
    found = gap_closed(half, reference, oracle)
    assert found.value == pytest.approx(0.5)
    np.testing.assert_allclose(found.resampled, 0.5)
    assert gap_closed(oracle, reference, oracle).value == 1.0
    assert math.isnan(gap_closed(half, oracle, reference).value)


def test_a_margin_is_kept_only_where_enough_networks_say_so() -> None:
    gain = Sampled(0.0, np.random.default_rng(8).normal(0.0, 0.01, size=999))
    assert worse_by_margin_p(gain, 0.05, 40) == pytest.approx(1 / 1000)
    assert worse_by_margin_p(gain, 0.05, 3) == pytest.approx(1 / 8)
    far_below = Sampled(-1.0, gain.resampled - 1.0)
    assert worse_by_margin_p(far_below, 0.05, 40) == 1.0
    at_the_margin = worse_by_margin_p(Sampled(-0.05, gain.resampled - 0.05), 0.05, 40)
    assert at_the_margin == pytest.approx(0.5, abs=0.06)
