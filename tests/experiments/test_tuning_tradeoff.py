"""The trade-off in words and numbers, on places put down by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.stats import Interval
from experiments.tuning_tradeoff import Place, Tradeoff, rank_correlation, told


def naive_rank(values: list[float], value: float) -> float:
    """Mean place of a value among all, counted from 1."""
    below = sum(other < value for other in values)
    equal = sum(other == value for other in values)
    return below + (equal + 1) / 2.0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_the_rank_correlation_is_that_of_mean_ranks(pairs: list[tuple[int, int]]):
    first, second = ([float(value) for value in side] for side in zip(*pairs, strict=True))
    found = rank_correlation(np.array(first), np.array(second))
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found == 0.0
        return
    ranks = [[naive_rank(side, value) for value in side] for side in (first, second)]
    centred = [np.array(side) - np.mean(side) for side in ranks]
    expected = (centred[0] @ centred[1]) / np.sqrt(
        (centred[0] ** 2).sum() * (centred[1] ** 2).sum()
    )
    assert found == pytest.approx(expected)


def test_the_rank_correlation_of_a_published_example():
    # IQ and hours of TV per week, the worked example of Wikipedia's "Spearman's rank correlation".
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert rank_correlation(np.array(iq), np.array(hours)) == pytest.approx(-29 / 165)


def tradeoff(trials: list[tuple[float, float]], per_type: tuple[float, float]) -> Tradeoff:
    """Places as (frozen %, MOS); the first trial is the default."""
    places = tuple(Place(reliability=freeze, quality=mos) for freeze, mos in trials)
    one = Interval(mean=-0.5, low=-1.0, high=0.25, networks=9)
    return Tradeoff(
        reliability="freeze_ratio",
        quality="video_mos",
        trials=places,
        is_feasible=(True,) * len(places),
        chosen=places[-1],
        per_type=Place(reliability=per_type[0], quality=per_type[1]),
        held_out={"global": (one, one)},
    )


PRICED = [(5.0, 3.0), (6.0, 3.1), (7.0, 3.2), (8.0, 3.3), (4.0, 2.9)]


def test_a_price_is_told_where_quality_comes_with_freezes():
    text = told(tradeoff(PRICED, (4.5, 3.25)))
    assert "4 global trials against the default" in text
    assert "3 of them raise video quality (MOS) of high-bandwidth networks" in text
    assert "3 of these also raise frozen time (%) of low-bandwidth networks" in text
    assert "+1.00. A global change that helps the one tends to cost the other." in text


def test_no_price_is_told_where_both_get_better_together():
    text = told(tradeoff([(5.0, 3.0), (4.0, 3.1), (3.0, 3.2)], (4.5, 3.25)))
    assert "2 of them raise" in text
    assert "0 of these also raise" in text
    assert "-1.00. There is no such price here" in text


def test_no_price_is_told_where_nothing_moves_together():
    text = told(tradeoff([(5.0, 3.0), (6.0, 3.1), (6.0, 2.9), (5.0, 3.0)], (4.5, 3.25)))
    assert "+0.00. The data shows no such price" in text


def test_the_global_trials_that_are_as_good_in_both_are_counted():
    assert "-0.50 in frozen time (%) there and +0.25 in video quality (MOS) here; of the global " \
        "trials, none is as good in both" in told(tradeoff(PRICED, (4.5, 3.25)))  # fmt: skip
    assert "trials, 2 is as good in both" in told(tradeoff(PRICED, (7.0, 3.05)))


def test_held_out_intervals_are_told_with_their_sign():
    text = told(tradeoff(PRICED, (4.5, 3.25)))
    assert "global against the default: frozen time (%) of low-bandwidth networks " in text
    assert "-0.50 [-1.00, +0.25]" in text
