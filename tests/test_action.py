"""Actions and the rates they mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.action import action_to_rate, action_to_scale, check_actions, rate_to_action
from bwe_env.errors import ActionError

LOW, HIGH = 30_000.0, 6_000_000.0


def test_the_ends_of_the_box_are_the_ends_of_the_range():
    assert action_to_rate([-1.0, 1.0], LOW, HIGH).tolist() == pytest.approx([LOW, HIGH])


def test_equal_steps_of_the_action_are_equal_factors_of_the_rate():
    rates = action_to_rate(np.linspace(-1.0, 1.0, 9), LOW, HIGH)
    factors = rates[1:] / rates[:-1]
    assert factors.tolist() == pytest.approx([(HIGH / LOW) ** (1 / 8)] * 8)


@given(st.floats(LOW, HIGH))
def test_rate_to_action_is_the_inverse(rate_bps):
    assert action_to_rate(rate_to_action(rate_bps, LOW, HIGH), LOW, HIGH) == pytest.approx(rate_bps)


def test_scale_runs_from_a_half_to_two_and_is_exactly_one_at_zero():
    assert action_to_scale([-1.0, 0.0, 1.0]).tolist() == [0.5, 1.0, 2.0]


def test_text_is_not_an_action():
    with pytest.raises(ActionError, match="must be numbers"):
        check_actions([["fast"]], 1)
