from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.errors import ConfigError
from experiments.stats import (
    Interval,
    mean_interval,
    paired_difference,
    per_network,
    ratio_interval,
)


def test_seeds_of_a_network_are_averaged_and_undefined_calls_left_out() -> None:
    table = per_network(
        ["b", "a", "b", "a", "c"],
        ["5G", "3G", "5G", "3G", "wifi"],
        [1.0, 10.0, 3.0, np.nan, np.nan],
    )
    assert table.names.tolist() == ["a", "b", "c"]
    assert table.types.tolist() == ["3G", "5G", "wifi"]
    np.testing.assert_array_equal(table.values, [10.0, 2.0, np.nan])


def test_an_interval_is_the_same_to_the_last_bit_for_the_same_seed_only() -> None:
    values = np.random.default_rng(1).normal(size=30)
    strata = ["3G"] * 10 + ["5G"] * 20
    first = mean_interval(values, strata, seed=7)
    assert first == mean_interval(values, strata, seed=7)
    assert first != mean_interval(values, strata, seed=8)
    assert first.mean == values.mean()


def test_another_seed_moves_the_ends_by_less_than_three_percent_of_the_width() -> None:
    values = np.random.default_rng(2).normal(size=60)
    strata = ["a"] * 20 + ["b"] * 40
    intervals = [mean_interval(values, strata, seed=seed) for seed in range(8)]
    width = np.mean([interval.high - interval.low for interval in intervals])
    assert np.ptp([interval.low for interval in intervals]) < 0.03 * width
    assert np.ptp([interval.high for interval in intervals]) < 0.03 * width


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30),
    st.floats(-1e3, 1e3),
    st.integers(0, 2**32 - 1),
)
def test_a_shift_moves_the_interval_and_the_interval_holds_the_mean_of_equal_values(
    values: list[float], shift: float, seed: int
) -> None:
    strata = [str(i % 3) for i in range(len(values))]
    plain = mean_interval(values, strata, seed=seed, resamples=200)
    moved = mean_interval(np.asarray(values) + shift, strata, seed=seed, resamples=200)
    for name in ("mean", "low", "high"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name) + shift, abs=1e-9)
    same = mean_interval(np.full(len(values), shift), strata, seed=seed, resamples=50)
    assert same.low == pytest.approx(shift, abs=1e-9) == pytest.approx(same.high, abs=1e-9)


def test_differences_between_types_do_not_widen_a_stratified_interval() -> None:
    generator = np.random.default_rng(3)
    strata = np.repeat(["a", "b"], 30)
    values = generator.normal(size=60)
    plain = mean_interval(values, strata)
    far_apart = mean_interval(values + np.where(strata == "a", 0.0, 100.0), strata)
    assert far_apart.high - far_apart.low == pytest.approx(plain.high - plain.low, rel=1e-6)


def test_the_width_matches_the_stratified_standard_error_even_for_small_strata() -> None:
    """Normal theory: mean +- 1.96 * sqrt(sum of w_h^2 s_h^2 / n_h), s_h^2 unbiased."""
    generator = np.random.default_rng(4)
    sizes = (5, 6, 8, 12)
    strata = np.repeat(["a", "b", "c", "d"], sizes)
    widths, expected = [], []
    for _ in range(60):
        values = generator.normal(size=len(strata))
        interval = mean_interval(values, strata, resamples=2_000)
        variance = sum(
            (n / len(strata)) ** 2 * values[strata == name].var(ddof=1) / n
            for name, n in zip("abcd", sizes, strict=True)
        )
        widths.append(interval.high - interval.low)
        expected.append(2 * 1.96 * np.sqrt(variance))
    # Percentiles of 2,000 resamples scatter by about 3 %; the mean over 60 runs by 0.4 %.
    assert np.mean(widths) == pytest.approx(np.mean(expected), rel=0.03)


@pytest.mark.parametrize("distribution", ["normal", "skewed"])
def test_the_interval_holds_the_true_mean_about_95_percent_of_the_time(distribution: str) -> None:
    generator = np.random.default_rng(5)
    strata = np.repeat(["a", "b", "c"], (12, 15, 20))
    runs = 400
    held = 0
    for run in range(runs):
        if distribution == "normal":
            values, truth = generator.normal(2.0, 1.0, size=len(strata)), 2.0
        else:
            values, truth = generator.exponential(1.0, size=len(strata)), 1.0
        interval = mean_interval(values, strata, resamples=500, seed=run)
        held += interval.low <= truth <= interval.high
    # sd of the share is 1.1 %; percentile intervals of 47 values fall short by 1-3 %.
    assert 0.90 <= held / runs <= 0.98


def test_types_with_one_network_are_resampled_together_instead_of_shown_as_certain() -> None:
    values = [0.0, 1.0, 5.0, 6.0, 20.0]
    apart = mean_interval(values, ["a", "b", "c", "d", "e"])
    assert apart == mean_interval(values, ["a"] * 5)
    assert apart.high - apart.low > 5.0
    joined = mean_interval(values, ["a", "a", "b", "b", "c"])
    assert joined == mean_interval(values, ["a", "a", "b", "b", "a"])


def test_one_network_alone_has_a_mean_and_no_interval() -> None:
    alone = mean_interval([2.0], ["3G"])
    assert (alone.mean, alone.low, alone.high) == (2.0, -np.inf, np.inf)
    assert not alone.excludes_zero


def test_pairing_removes_what_both_sides_share() -> None:
    generator = np.random.default_rng(6)
    names = [f"n{i}" for i in range(40)]
    types = ["3G", "5G"] * 20
    hardness = generator.normal(scale=10.0, size=40)
    noise = generator.normal(scale=0.1, size=40)
    better = per_network(names, types, hardness + 0.5 + noise)
    worse = per_network(names, types, hardness)
    difference = paired_difference(better, worse)
    assert difference.excludes_zero
    assert difference.low < 0.5 < difference.high
    assert difference.high - difference.low < 0.1
    backwards = paired_difference(worse, better)
    assert backwards.mean == pytest.approx(-difference.mean)
    assert backwards.excludes_zero


def test_networks_that_are_not_the_same_cannot_be_paired() -> None:
    first = per_network(["a", "b"], ["3G", "3G"], [1.0, 2.0])
    second = per_network(["a", "c"], ["3G", "3G"], [1.0, 2.0])
    with pytest.raises(ConfigError, match="same networks on both sides; 2 are on one side only"):
        paired_difference(first, second)


def test_no_value_at_all_is_an_error_and_text_shows_mean_and_ends() -> None:
    with pytest.raises(ConfigError, match="no networks"):
        mean_interval([np.nan], ["3G"])
    interval = Interval(mean=0.5, low=-0.25, high=1.0, networks=3)
    assert interval.text(2) == "+0.50 [-0.25, +1.00]"
    assert not interval.excludes_zero


def test_a_ratio_is_that_of_the_sums_and_its_interval_that_of_the_delta_method() -> None:
    generator = np.random.default_rng(4)
    below = generator.uniform(50.0, 60.0, size=200)
    above = below * generator.uniform(0.0, 0.2, size=200)
    interval = ratio_interval(above, below, ["3G"] * 200)
    assert interval.mean == above.sum() / below.sum()
    error = np.std(above - interval.mean * below, ddof=1) / below.mean() / np.sqrt(200)
    # 10,000 resamples and 200 networks: the ends agree with the linear formula to a few percent.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_a_ratio_to_a_constant_has_the_interval_of_the_mean() -> None:
    values = np.random.default_rng(5).normal(3.0, 1.0, size=24)
    strata = ["3G"] * 10 + ["5G"] * 14
    mean = mean_interval(values / 4.0, strata)
    ratio = ratio_interval(values, np.full(24, 4.0), strata)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((mean.mean, mean.low, mean.high))


def test_a_ratio_over_nothing_is_refused_and_one_network_has_no_interval() -> None:
    with pytest.raises(ConfigError, match="add up to 0"):
        ratio_interval([1.0, np.nan], [0.0, 5.0], ["3G", "3G"])
    assert ratio_interval([1.0], [4.0], ["3G"]) == Interval(
        mean=0.25, low=-np.inf, high=np.inf, networks=1
    )
