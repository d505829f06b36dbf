"""The search space: what a running call can take, within range, as plain JSON."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.errors import ConfigError
from bwe_env.sender_settings import SenderSettings
from experiments.tuning_space import DIGITS, KNOBS, Knob, default_values, overrides_of


def of_unit(knob: Knob, u: float):
    """The value at a share of a knob's range."""
    if isinstance(knob.default, bool):
        return u >= 0.5
    if knob.log:
        value = math.exp(math.log(knob.low) + u * (math.log(knob.high) - math.log(knob.low)))
    else:
        value = knob.low + u * (knob.high - knob.low)
    value = min(max(value, knob.low), knob.high)
    return round(value) if isinstance(knob.default, int) else value


shares = st.lists(st.floats(0.0, 1.0), min_size=len(KNOBS), max_size=len(KNOBS))


def test_no_setting_is_searched_twice():
    names = [knob.name for knob in KNOBS]
    assert len(set(names)) == len(names)


def test_every_knob_says_why_it_is_tuned():
    assert all(len(knob.why) > 10 for knob in KNOBS)


def test_the_default_is_told_by_no_overrides():
    assert overrides_of(default_values()) == {}


@given(shares)
def test_a_running_call_can_take_over_every_point_of_the_space(units: list[float]):
    values = {knob.name: of_unit(knob, u) for knob, u in zip(KNOBS, units, strict=True)}
    default = SenderSettings()
    default.check_reachable("tuned", default.with_overrides(overrides_of(values)))


@given(shares)
def test_overrides_survive_json_and_are_what_was_asked_for(units: list[float]):
    values = {knob.name: of_unit(knob, u) for knob, u in zip(KNOBS, units, strict=True)}
    overrides = overrides_of(values)
    assert json.loads(json.dumps(overrides)) == overrides
    settings = SenderSettings().with_overrides(overrides)
    for knob in KNOBS:
        if knob.name.startswith("fec.") and not values["fec.enabled"]:
            continue
        told = settings.value(knob.name)
        told = told if knob.cell is None else told[knob.cell]
        assert knob.low <= float(told) <= knob.high
        assert type(told) is type(knob.default)
        assert float(told) == pytest.approx(float(values[knob.name]), rel=0.5 * 10 ** (1 - DIGITS))


def test_a_number_is_rounded_to_four_digits():
    knob = Knob(name="gcc.decrease_factor", low=0.5, high=0.999, why="")
    assert knob.override(0.876_543_21) == 0.8765
    assert knob.override(0.999_9) == 0.999  # and stays in its range


def test_of_a_table_one_number_changes():
    knob = Knob(name="fec.protection", low=0.1, high=0.5, cell=3, why="")
    assert knob.default == 0.5
    assert knob.override(0.123_456) == [0.0, 0.0, 0.0, 0.1235]


def test_numbers_of_fec_are_not_told_while_it_is_off():
    values = {**default_values(), "fec.min_protection": 0.05, "gcc.decrease_factor": 0.9}
    assert overrides_of(values) == {"gcc.decrease_factor": 0.9}
    told = overrides_of({**values, "fec.enabled": True})
    assert told == {
        "fec.enabled": True,
        "fec.min_protection": 0.05,
        "gcc.decrease_factor": 0.9,
    }


@pytest.mark.parametrize("name", ["gcc.trendline_window_groups", "gcc.loss_estimator", "gcc.beta"])
def test_what_a_running_call_cannot_take_over_is_no_knob(name: str):
    with pytest.raises(ConfigError, match=name):
        Knob(name=name, low=0, high=100, why="")


def test_a_range_without_the_default_is_refused():
    with pytest.raises(ConfigError, match=r"default 0\.85 is outside of 0\.9 to 0\.99"):
        Knob(name="gcc.decrease_factor", low=0.9, high=0.99, why="")
