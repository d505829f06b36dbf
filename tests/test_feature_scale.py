from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwe_env.feature_scale import Feature, scaled, unscaled

DELAY = Feature("delay", "ms", 1.0, 4000.0, "log", "")
SLOPE = Feature("slope", "ms/s", -400.0, 400.0, "linear", "")


def on_scale(feature: Feature, value: float) -> float:
    return scaled(value, feature.low, feature.high, feature.scale == "log", feature.span)


def test_the_middle_of_the_scale_is_the_mean_of_the_ends_geometric_where_it_is_logarithmic() -> (
    None
):
    middle = np.zeros(1, dtype=np.float32)
    assert unscaled(SLOPE, middle).item() == 0.0
    assert unscaled(DELAY, middle).item() == pytest.approx(np.sqrt(1.0 * 4000.0))


def test_the_ends_of_the_scale_are_the_ends_of_the_range() -> None:
    ends = np.array([-1.0, 1.0], dtype=np.float32)
    assert unscaled(SLOPE, ends).tolist() == [-400.0, 400.0]
    assert unscaled(DELAY, ends) == pytest.approx([1.0, 4000.0], rel=1e-12)


@given(value=st.floats(-1e5, 1e5))
@pytest.mark.parametrize("feature", [DELAY, SLOPE], ids=["log", "linear"])
def test_unscaled_gives_back_what_scaled_was_given_but_for_what_was_clipped(
    feature: Feature, value: float
) -> None:
    back = unscaled(feature, np.array([on_scale(feature, value)])).item()
    assert back == pytest.approx(min(feature.high, max(feature.low, value)), rel=1e-9, abs=1e-9)


@given(place=st.floats(-1.0, 1.0, width=32))
@pytest.mark.parametrize("feature", [DELAY, SLOPE], ids=["log", "linear"])
def test_scaled_gives_back_what_unscaled_was_given(feature: Feature, place: float) -> None:
    value = unscaled(feature, np.array(place, dtype=np.float32)).item()
    assert on_scale(feature, value) == pytest.approx(place, abs=1e-12)


def test_any_shape_stays_as_it_is() -> None:
    assert unscaled(DELAY, np.zeros((3, 2), dtype=np.float32)).shape == (3, 2)
    assert unscaled(DELAY, np.array(0.0, dtype=np.float32)).shape == ()
