"""The simulated user: hazards by hand, and what a better call must do to the talk time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.talk_time import BASE_HAZARD_PER_S, hazard_per_s, patience, talk_time_s

law = settings(deadline=None, derandomize=True)


def test_a_point_of_the_score_halves_or_doubles_the_hazard() -> None:
    scores = [[3.5] * 12, [2.5] * 12, [4.5] * 12]
    expected = BASE_HAZARD_PER_S * np.array([[1.0], [2.0], [0.5]]) * np.ones(12)
    np.testing.assert_allclose(hazard_per_s(scores, 1.0), expected)


def test_the_user_remembers_the_last_ten_seconds_and_no_more() -> None:
    scores = [1.0] * 5 + [4.5] * 15
    hazard = hazard_per_s(scores, 1.0) / BASE_HAZARD_PER_S
    means = [np.mean(scores[max(0, i - 9) : i + 1]) for i in range(20)]
    np.testing.assert_allclose(hazard, [2.0 ** (3.5 - mean) for mean in means])
    np.testing.assert_allclose(hazard[14:], 0.5)


def test_a_user_hangs_up_when_the_hazard_has_used_up_the_patience() -> None:
    key = next(k for k in range(1000) if 0.2 < patience(k) < 0.3)
    # A constant score of 3.5 adds 1/600 a second.
    (talked_s,) = talk_time_s([[3.5] * 300], 1.0, keys=[key], end_s=[300.0])
    assert talked_s == pytest.approx(600.0 * patience(key))
    assert talk_time_s([[3.5] * 300], 1.0, keys=[key], end_s=[50.0]).tolist() == [50.0]


def test_patience_is_exponential_with_mean_1_and_a_function_of_the_key_alone() -> None:
    draws = np.array([patience(key) for key in range(4000)])
    assert draws.mean() == pytest.approx(1.0, abs=4 / math.sqrt(4000))  # four standard errors
    assert (draws > math.log(2.0)).mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))
    assert patience(17) == patience(17)


@law
@given(st.lists(st.floats(-1.0, 5.0), min_size=3, max_size=40), st.integers(0, 99), st.floats(0, 2))
def test_a_call_that_is_better_at_every_second_is_never_shorter(
    scores: list[float], key: int, gain: float
) -> None:
    better = [score + gain for score in scores]
    end_s = [float(len(scores))] * 2
    worse_s, better_s = talk_time_s([scores, better], 1.0, keys=[key, key], end_s=end_s)
    assert 0.0 < worse_s <= better_s + 1e-9
    assert better_s <= len(scores)
