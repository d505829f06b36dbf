"""Other parameters for a controller that runs: all of them, and none that it cannot take."""

from __future__ import annotations

import dataclasses

import pytest

from bwe_env.errors import ConfigError
from bwe_env.gcc import GccParameters, GoogCc
from bwe_env.sender_settings import FIXED_IN_CALL
from tests.test_sender_settings import another

_GCC_NAMES = [field.name for field in dataclasses.fields(GccParameters)]


@pytest.mark.parametrize("name", [name for name in _GCC_NAMES if name not in FIXED_IN_CALL])
def test_new_parameters_are_those_of_a_controller_begun_with_them(name: str) -> None:
    """And those of before leave no trace of them."""
    before = GccParameters()
    after = dataclasses.replace(before, **{name: another(f"gcc.{name}")})
    controller, untouched = GoogCc(parameters=before), GoogCc(parameters=before)
    controller.set_parameters(after, 0)
    assert controller.parameters == after
    begun = GoogCc(parameters=after)
    assert controller.parameter_record.tobytes() == begun.parameter_record.tobytes()
    assert controller.pacing_rate_bps == begun.pacing_rate_bps
    assert controller.padding_rate_bps == begun.padding_rate_bps
    controller.set_parameters(before, 0)
    assert controller.parameter_record.tobytes() == untouched.parameter_record.tobytes()
    assert controller.state.tobytes() == untouched.state.tobytes()


@pytest.mark.parametrize("name", sorted(FIXED_IN_CALL))
def test_parameters_that_a_running_call_cannot_take_are_refused_and_change_nothing(
    name: str,
) -> None:
    before = GccParameters()
    after = dataclasses.replace(before, **{name: another(f"gcc.{name}"), "decrease_factor": 0.7})
    controller, untouched = GoogCc(parameters=before), GoogCc(parameters=before)
    with pytest.raises(ConfigError, match=rf"set_parameters sets gcc\.{name}="):
        controller.set_parameters(after, 0)
    assert controller.parameters == before
    assert controller.parameter_record.tobytes() == untouched.parameter_record.tobytes()
