"""Actions and the rates they mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.action import (
    CONFIG_PARAMETERS,
    action_size,
    action_to_parameters,
    action_to_rate,
    action_to_scale,
    check_actions,
    rate_to_action,
)
from bwe_env.errors import ActionError, ConfigError, UnknownNameError
from bwe_env.gcc import GccParameters
from bwe_env.sender_settings import FIXED_IN_CALL

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


def test_an_action_of_another_width_is_refused_with_the_shape_it_should_have():
    with pytest.raises(ActionError, match=r"expected \(2, 8\): 8 number"):
        check_actions(np.zeros((2, 1)), 2, 8)


def test_a_call_is_told_clipped_if_any_of_its_numbers_was():
    values, was_clipped = check_actions([[0.5, 2.0], [0.5, 1.0]], 2, 2)
    assert values.tolist() == [[0.5, 1.0], [0.5, 1.0]]
    assert was_clipped.tolist() == [True, False]


def test_the_size_of_an_action_is_one_or_the_number_of_parameters():
    assert [action_size(mode) for mode in ("rate", "scale", "config")] == [1, 1, 8]
    assert len(CONFIG_PARAMETERS) == 8
    with pytest.raises(UnknownNameError, match="config"):
        action_size("configure")


def test_config_actions_run_from_low_over_what_is_set_to_high_by_equal_factors():
    gcc = GccParameters(pacing_factor=1.5)
    size = len(CONFIG_PARAMETERS)
    actions = np.outer([-1.0, 0.0, 0.5, 1.0], np.ones(size))
    values = action_to_parameters(actions, gcc)
    assert values[0].tolist() == pytest.approx([p.low for p in CONFIG_PARAMETERS])
    assert values[1].tolist() == [float(getattr(gcc, p.name)) for p in CONFIG_PARAMETERS]
    assert values[3].tolist() == pytest.approx([p.high for p in CONFIG_PARAMETERS])
    # Pacing: half-way by ratio between 1.5 and 3.
    assert values[2, 0] == pytest.approx(1.5 * 2**0.5)


def test_config_parameters_are_such_as_a_running_call_can_take():
    names = {parameter.name for parameter in CONFIG_PARAMETERS}
    assert not names & FIXED_IN_CALL
    for parameter in CONFIG_PARAMETERS:  # within what GCC itself allows
        for value in (parameter.low, parameter.high):
            is_whole = isinstance(getattr(GccParameters(), parameter.name), int)
            GccParameters(**{parameter.name: int(value) if is_whole else value})


def test_a_gcc_beyond_what_config_actions_reach_is_refused():
    with pytest.raises(ConfigError, match="pacing_factor=5 is what action 0"):
        action_to_parameters(np.zeros((1, 8)), GccParameters(pacing_factor=5.0))
