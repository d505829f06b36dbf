from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.svg import (
    NUM_COLORS,
    NUM_SERIES,
    STYLE,
    Axis,
    Plot,
    dash_of,
    legend,
    log_ticks,
    thinned,
    ticks,
)


def _plot(**options: object) -> Plot:
    """100 by 50 pixels inside, from (10, 20); x goes from 0 to 10, y from 0 to 5."""
    sizes = {"width": 120, "height": 80, "left": 10, "right": 10, "above": 20, "below": 10}
    return Plot(x=Axis(low=0, high=10), y=Axis(low=0, high=5), **(sizes | options))  # type: ignore[arg-type]


def test_a_curve_goes_through_its_points_and_breaks_where_one_is_unknown() -> None:
    plot = _plot()
    plot.curve([0, 5, 6, 10], [0, 5, math.nan, 2.5], "s0")
    assert 'd="M10 70L60 20M110 45"' in plot.marks[0]


def test_what_lies_beyond_an_axis_is_held_at_its_end() -> None:
    assert Axis(low=0, high=4).ratio([-1, 1, 9]).tolist() == [0.0, 0.25, 1.0]
    logarithmic = Axis(low=1, high=100, is_log=True)
    np.testing.assert_allclose(logarithmic.ratio([0, 10, 1000]), [0, 0.5, 1])


def test_an_unknown_end_of_an_interval_reaches_the_edge() -> None:
    plot = _plot()
    plot.whisker(5, math.nan, 6, 2.5, "s0", label="x", is_full=False)
    assert 'd="M10 45L70 45"' in plot.marks[0]
    assert 'class="dot hollow"' in plot.marks[0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 100.0, [0, 20, 40, 60, 80, 100]),
        (-0.3, 0.61, [-0.2, 0, 0.2, 0.4, 0.6]),
        (3.0, 3.0, [3.0]),
        (math.nan, 1.0, []),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-3, 1e6),
    count=st.integers(1, 10),
)
def test_ticks_lie_between_the_ends_and_are_not_many(low: float, span: float, count: int) -> None:
    found = ticks(low, low + span, count)
    margin = 1e-6 * (abs(low) + span)
    assert all(low - margin <= tick <= low + span + margin for tick in found)
    assert len(found) <= count + 1


def test_logarithmic_ticks_are_1_2_and_5_times_powers_of_ten() -> None:
    assert log_ticks(40, 1100) == [50, 100, 200, 500, 1000]


def test_no_two_series_share_both_colour_and_dashes() -> None:
    looks = [(series % NUM_COLORS, dash_of(series)) for series in range(NUM_SERIES)]
    assert len(set(looks)) == NUM_SERIES
    assert dash_of(0) == dash_of(1) == 0


def _luminance(color: str) -> float:
    """Relative luminance of WCAG 2.2."""
    values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_lines_stand_out_from_light_and_dark_paper() -> None:
    colors = re.findall(r"--series-\d+: (#\w{6})", STYLE)
    light, dark = colors[:NUM_COLORS], colors[NUM_COLORS:]
    assert len(dark) == NUM_COLORS
    white, black = _luminance("#ffffff"), _luminance("#141414")
    # WCAG 2.2, success criterion 1.4.11: 3:1 for what is needed to understand a graphic.
    assert min((white + 0.05) / (_luminance(c) + 0.05) for c in light) >= 3.0
    assert min((_luminance(c) + 0.05) / (black + 0.05) for c in dark) >= 3.0


def test_names_cannot_become_markup_and_every_plot_is_xml_with_a_text_alternative() -> None:
    plot = _plot(title="<a> & b")
    plot.curve([0, 1], [0, 1], "s0", label='<"x">')
    plot.words(1, 1, "<w>")
    element = ElementTree.fromstring(plot.svg('say "it" <now>'))
    assert element.get("aria-label") == 'say "it" <now>'
    assert element.get("role") == "img"
    texts = [node.text for node in element.iter() if node.text]
    assert {"<a> & b", '<"x">', "<w>"} <= set(texts)
    assert "&lt;i&gt;" in legend([("<i>", "s0")])


def test_a_thinned_curve_keeps_its_ends() -> None:
    x, y = thinned(np.arange(1000), np.arange(1000) ** 2, 50)
    assert len(x) == 50
    assert (x[0], x[-1], y[-1]) == (0, 999, 999**2)
    assert thinned([1, 2], [3, 4], 50)[1].tolist() == [3, 4]
