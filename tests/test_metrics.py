"""The table of metrics, the error of a target rate, delay percentiles, and the freeze rule."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bwe_env.errors import ConfigError, UnknownNameError
from bwe_env.metrics import (
    CALL_COLUMNS,
    DELAY_BINS,
    DELAY_BINS_PER_OCTAVE,
    FIELD_METRICS,
    KEY_COLUMNS,
    METRICS,
    PICTURE_CLASSES,
    at_equal_classes,
    delay_bin_edges_ms,
    histogram_percentile,
    metric,
    rate_change_ratio,
    target_error,
    target_error_terms,
)
from bwe_env.quality import RESOLUTION_LADDER
from bwe_env.sim.freeze import FREEZE_WINDOW, is_freeze
from bwe_env.sim.histogram import delay_bin, histogram_add

ROOT = Path(__file__).resolve().parent.parent

#: The same examples in every run, and no deadline: the first call of a kernel compiles it.
law = settings(deadline=None, derandomize=True)

RATES_BPS = st.lists(st.floats(0.0, 1e8), min_size=2, max_size=20)


# --- The table ------------------------------------------------------------------------------------


def test_every_metric_says_what_it_is_and_where_it_is_from() -> None:
    for name, entry in METRICS.items():
        assert entry.name == name
        assert entry.doc
        assert entry.source
        assert entry.better in ("higher", "lower", "neither")


def test_the_name_of_every_metric_in_ms_bps_or_s_carries_its_unit() -> None:
    for entry in METRICS.values():
        if entry.unit in ("ms", "bps", "s"):
            assert f"_{entry.unit}" in entry.name


def test_the_columns_are_the_metrics_in_order_and_begin_with_the_key() -> None:
    assert tuple(METRICS) == CALL_COLUMNS
    assert CALL_COLUMNS[: len(KEY_COLUMNS)] == KEY_COLUMNS


def test_a_metric_cannot_be_changed_after_import() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric("call_score").better = "lower"  # type: ignore[misc]


def test_what_services_report_is_made_of_columns_of_the_table() -> None:
    for field in FIELD_METRICS.values():
        assert field.column in METRICS
        assert field.per is None or field.per in METRICS
        for column, per in field.class_columns:
            assert column in METRICS
            assert per is None or per in METRICS
        assert field.better == METRICS[field.column].better
        assert field.name not in METRICS


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'freeze_ratio'"):
        metric("freze_ratio")


def test_importing_the_table_leaves_the_compiler_alone() -> None:
    script = "import sys, bwe_env.metrics; print('numba' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert result.stdout.strip() == "False", result.stderr


# --- Comparisons at equal classes -----------------------------------------------------------------

COUNTS = st.integers(0, 1_000)
QP = st.floats(2.0, 106.0)


@st.composite
def arms(draw: st.DrawFn, classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of so many classes (up to five) in two arms, shape (classes, 2) each."""
    classes = classes or draw(st.integers(1, 5))
    counts = [draw(st.lists(COUNTS, min_size=classes, max_size=classes)) for _ in range(2)]
    means = [draw(st.lists(QP, min_size=classes, max_size=classes)) for _ in range(2)]
    first, second = (
        np.array([(m * n, n) for m, n in zip(*arm, strict=True)])
        for arm in zip(means, counts, strict=True)
    )
    return first, second


def equal_values(first: Any, second: Any) -> tuple[float, float, float]:
    """Value of either arm at equal classes (NaN without a shared one), and the share left out."""
    equal = at_equal_classes(first, second)
    assert equal.control[1] == pytest.approx(equal.treatment[1])
    values = (
        arm[0] / arm[1] if arm[1] > 0.0 else math.nan for arm in (equal.control, equal.treatment)
    )
    return (*values, float(equal.left_out_ratio))


def naive_equal_classes(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Frame by frame: give every frame of a shared class either arm's mean of that class."""
    as_first, as_second, left_out = [], [], 0
    for (sum_1, n_1), (sum_2, n_2) in zip(first.tolist(), second.tolist(), strict=True):
        if n_1 == 0 or n_2 == 0:
            left_out += int(n_1 + n_2)
            continue
        as_first += [sum_1 / n_1] * int(n_1 + n_2)
        as_second += [sum_2 / n_2] * int(n_1 + n_2)
    frames = len(as_first) + left_out
    share = left_out / frames if frames else 0.0
    if not as_first:
        return math.nan, math.nan, share
    return math.fsum(as_first) / len(as_first), math.fsum(as_second) / len(as_second), share


def test_the_classes_of_picture_sizes_are_the_heights_of_the_ladder() -> None:
    assert tuple(f"{size.height}p" for size in RESOLUTION_LADDER) == PICTURE_CLASSES


def test_the_quantiser_of_services_is_compared_per_class_of_picture_sizes() -> None:
    field = FIELD_METRICS["avg_sender_video_qp"]
    assert field.class_columns[2] == ("video_qp_sum_360p", "frames_encoded_360p")
    assert len(field.class_columns) == len(PICTURE_CLASSES)
    assert FIELD_METRICS["total_talk_time"].class_columns == (("talk_time_s", None),)


def test_a_mean_that_falls_because_pictures_got_smaller_rises_at_equal_sizes() -> None:
    """The control sends 20 % of its frames at 360p with QP 40 and 80 % at 720p with QP 60.

    The treatment has 80 % at 360p with QP 44 and 20 % at 720p with QP 66: 10 % more in either.
    Its raw mean is 48.4, 14 % *less* than 56. At the shares of both arms together, one half each,
    it is 55 against 50.
    """
    control = np.array([(40.0 * 1_000, 1_000), (60.0 * 4_000, 4_000)])
    treatment = np.array([(44.0 * 4_000, 4_000), (66.0 * 1_000, 1_000)])
    raw = [arm[:, 0].sum() / arm[:, 1].sum() for arm in (control, treatment)]
    assert raw == pytest.approx([56.0, 48.4])
    assert equal_values(control, treatment) == pytest.approx((50.0, 55.0, 0.0))


def test_a_class_that_one_arm_lacks_is_left_out_and_its_share_is_told() -> None:
    control = [(30.0 * 100, 100), (50.0 * 300, 300), (0.0, 0)]
    treatment = [(0.0, 0), (40.0 * 200, 200), (90.0 * 200, 200)]
    # 100 and 200 of 800 frames are in the first and the last class.
    assert equal_values(control, treatment) == pytest.approx((50.0, 40.0, 300 / 800))
    nothing = equal_values(control[:1], treatment[:1])
    assert nothing == pytest.approx((math.nan, math.nan, 1.0), nan_ok=True)


@law
@given(arms())
def test_equal_classes_are_those_of_giving_every_frame_the_mean_of_its_class(
    both: tuple[np.ndarray, np.ndarray],
) -> None:
    expected = naive_equal_classes(*both)
    assert equal_values(*both) == pytest.approx(expected, rel=1e-9, nan_ok=True)


@law
@given(arms(), st.floats(0.1, 10.0))
def test_an_arm_that_is_as_much_higher_in_every_class_is_so_at_equal_classes_whatever_its_mix(
    both: tuple[np.ndarray, np.ndarray], factor: float
) -> None:
    first, second = both
    means = np.divide(first[:, 0], first[:, 1], out=np.zeros(len(first)), where=first[:, 1] > 0)
    second = np.stack([factor * means * second[:, 1], second[:, 1]], axis=1)
    control, treatment, _ = equal_values(first, second)
    assert treatment == pytest.approx(factor * control, rel=1e-9, nan_ok=True)


@law
@given(st.lists(arms(3), min_size=1, max_size=4))
def test_equal_classes_of_many_resamples_are_those_of_each(
    samples: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    first, second = (np.stack([both[arm] for both in samples]) for arm in range(2))
    together = at_equal_classes(first, second)
    for row, both in enumerate(samples):
        for field, alone in zip(together, at_equal_classes(*both), strict=True):
            np.testing.assert_array_equal(field[row], alone)


# --- Error of the target rate ---------------------------------------------------------------------


def test_target_error_of_three_intervals_agrees_with_the_sums_by_hand() -> None:
    error = target_error([1e6, 2e6, 5e6], [2e6, 2e6, 2e6])
    assert error.mse_mbps2 == pytest.approx((1 + 0 + 9) / 3)
    assert error.error_rate == pytest.approx((0.5 + 0 + 1) / 3)  # 1.5 counts as 1
    assert error.overestimation == pytest.approx((0 + 0 + 1.5) / 3)
    assert error.underestimation == pytest.approx((0.5 + 0 + 0) / 3)


def test_capacity_above_the_maximum_rate_is_not_held_against_the_target() -> None:
    error = target_error([6e6, 3e6], [50e6, 3e6], max_rate_bps=6e6)
    assert error == (0.0, 0.0, 0.0, 0.0)


def test_an_interval_in_outage_counts_in_the_mse_and_in_nothing_else() -> None:
    error = target_error([1e6, 3e6], [0.0, 2e6])
    assert error.mse_mbps2 == pytest.approx((1 + 1) / 2)
    assert error.error_rate == pytest.approx(0.5)
    assert error.overestimation == pytest.approx(0.5)
    assert error.underestimation == 0.0
    assert np.isnan(target_error_terms([1e6], [0.0]).error_rate).all()


def test_target_error_is_nan_where_no_interval_counts() -> None:
    error = target_error([[1e6, 1e6], [1e6, 1e6]], [[0.0, 0.0], [1e6, 1e6]])
    assert math.isnan(error.error_rate[0])
    assert error.error_rate[1] == 0.0


@law
@given(RATES_BPS, st.floats(1e4, 1e8))
def test_the_error_rate_never_exceeds_over_plus_underestimation_nor_one(
    target_bps: list[float], capacity_bps: float
) -> None:
    error = target_error(target_bps, [capacity_bps] * len(target_bps))
    assert error.error_rate <= error.overestimation + error.underestimation + 1e-12
    assert error.error_rate <= 1.0
    assert error.underestimation <= 1.0


@law
@given(st.lists(RATES_BPS.map(lambda rates: rates[:2]), min_size=1, max_size=5))
def test_target_error_of_many_calls_is_that_of_each_call(target_bps: list[list[float]]) -> None:
    capacity = [[1e6, 2e6]] * len(target_bps)
    together = target_error(target_bps, capacity)
    for row, target in enumerate(target_bps):
        alone = target_error(target, capacity[row])
        assert [float(field[row]) for field in together] == [float(field) for field in alone]


def test_rate_change_ratio_is_the_relative_step_of_a_rate_that_moves_by_it() -> None:
    assert rate_change_ratio([1e6, 1.1e6, 1.21e6]) == pytest.approx(0.1)
    assert rate_change_ratio([2e6, 1e6, 2e6]) == pytest.approx((1 + 1) / (2 + 1))
    assert rate_change_ratio([1e6, 1e6, 1e6]) == 0.0
    assert rate_change_ratio([1e6]) == 0.0


# --- Delay histograms -----------------------------------------------------------------------------


def test_the_edges_rise_from_zero_to_infinity_in_sixteenths_of_an_octave() -> None:
    edges = delay_bin_edges_ms()
    assert edges.shape == (DELAY_BINS + 1,)
    assert (edges[0], edges[1], edges[-2], edges[-1]) == (0.0, 1.0, 16_384.0, math.inf)
    relative_width = np.diff(edges[1:-1]) / edges[1:-2]
    assert np.all(relative_width <= 1 / DELAY_BINS_PER_OCTAVE)
    assert np.all(relative_width > 1 / (2 * DELAY_BINS_PER_OCTAVE))


@law
@given(st.integers(0, 40_000_000))
def test_a_delay_falls_into_the_bin_whose_edges_enclose_it(delay_us: int) -> None:
    edges = delay_bin_edges_ms()
    index = delay_bin(delay_us)
    assert edges[index] <= delay_us / 1e3 < edges[index + 1]


def test_a_delay_on_an_edge_opens_its_bin() -> None:
    edges = delay_bin_edges_ms()
    whole_us = [i for i in range(1, DELAY_BINS) if float(edges[i] * 1e3).is_integer()]
    assert len(whole_us) > 100
    for index in whole_us:
        assert delay_bin(int(edges[index] * 1e3)) == index
        assert delay_bin(int(edges[index] * 1e3) - 1) == index - 1


@law
@given(
    st.lists(st.integers(1_000, 16_000_000), min_size=1, max_size=200),
    st.sampled_from([0.0, 5.0, 50.0, 95.0, 99.0, 100.0]),
)
def test_a_percentile_is_within_one_sixteenth_of_that_of_the_delays_themselves(
    delays_us: list[int], q: float
) -> None:
    counts = np.zeros(DELAY_BINS, dtype=np.int64)
    for delay_us in delays_us:
        histogram_add(counts, delay_us)
    exact_ms = np.percentile(np.array(delays_us) / 1e3, q, method="inverted_cdf")
    assert histogram_percentile(counts, q) == pytest.approx(exact_ms, rel=1 / 16)


def test_a_percentile_is_interpolated_inside_its_bin() -> None:
    counts = np.zeros(DELAY_BINS, dtype=np.int64)
    counts[delay_bin(16_000)] = 10  # [16, 17) ms
    assert histogram_percentile(counts, 0.0) == 16.0
    assert histogram_percentile(counts, 50.0) == pytest.approx(16.5)
    assert histogram_percentile(counts, 100.0) == pytest.approx(17.0)


def test_percentiles_of_many_rows_are_those_of_each_row_and_nan_for_an_empty_one() -> None:
    counts = np.zeros((2, 3, DELAY_BINS), dtype=np.int64)
    counts[0, 0, delay_bin(50_000)] = 4
    counts[1, 2, delay_bin(300)] = 3
    counts[1, 2, delay_bin(400_000)] = 1
    result = histogram_percentile(counts, 95.0)
    assert result.shape == (2, 3)
    assert result[0, 0] == histogram_percentile(counts[0, 0], 95.0)
    assert result[1, 2] == histogram_percentile(counts[1, 2], 95.0)
    assert 384.0 <= result[1, 2] <= 416.0
    assert np.isnan(result).sum() == 4


def test_a_delay_beyond_the_last_octave_is_reported_as_its_end() -> None:
    counts = np.zeros(DELAY_BINS, dtype=np.int64)
    histogram_add(counts, 1_000_000_000)
    assert histogram_percentile(counts, 50.0) == 16_384.0


@pytest.mark.parametrize("q", [-1.0, 100.1, math.nan])
def test_a_percentage_outside_0_to_100_is_refused(q: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 100"):
        histogram_percentile(np.zeros(DELAY_BINS), q)


def test_a_histogram_of_the_wrong_width_is_refused_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match=str(DELAY_BINS)):
        histogram_percentile(np.zeros(10), 50.0)


# --- Freezes --------------------------------------------------------------------------------------

FRAME_US = 33_333


def frozen_after(earlier_us: list[int], delay_us: int) -> bool:
    """Whether a frame that comes `delay_us` after those with the delays `earlier_us` was frozen."""
    window = [*earlier_us, delay_us][-FREEZE_WINDOW:]
    return is_freeze(delay_us, sum(window), len(window))


def test_at_30_hz_a_freeze_begins_at_188_505_us_because_the_average_is_rounded_down() -> None:
    # 29 x 33,333 + 188,505 = 1,155,162; / 30 = 38,505.4, rounded down 38,505; + 150,000 = 188,505.
    # Three times the average is 115,515 and does not decide.
    assert frozen_after([FRAME_US] * 29, 188_505)
    assert not frozen_after([FRAME_US] * 29, 188_504)


def test_at_10_hz_three_times_the_average_decides() -> None:
    # 29 x 100,000 + 322,222 = 3,222,222; / 30 = 107,407; x 3 = 322,221 against 257,407.
    assert frozen_after([100_000] * 29, 322_222)
    assert not frozen_after([100_000] * 29, 322_220)


def test_the_present_delay_is_part_of_the_average() -> None:
    # Without it the limit would be 33,333 + 150,000.
    assert not frozen_after([FRAME_US] * 29, 185_000)


def test_nothing_is_a_freeze_before_five_delays_are_known() -> None:
    assert not frozen_after([FRAME_US] * 3, 10_000_000)
    assert frozen_after([FRAME_US] * 4, 10_000_000)


def test_with_five_samples_a_freeze_is_six_times_the_others() -> None:
    # d >= 3 (4 x 100 + d) / 5 means d >= 600 (ms), but for the rounding of the average:
    # (400,000 + 599,996) / 5 = 199,999.2, rounded down and times 3 is 599,997.
    assert frozen_after([100_000] * 4, 599_997)
    assert not frozen_after([100_000] * 4, 599_996)


def test_a_delay_that_has_left_the_window_no_longer_raises_the_limit() -> None:
    assert frozen_after([5_000_000, *[FRAME_US] * 29], 188_505)
    assert not frozen_after([5_000_000, *[FRAME_US] * 28], 188_505)


@law
@given(
    st.lists(st.integers(1_000, 2_000_000), min_size=4, max_size=29),
    st.integers(1_000, 5_000_000),
    st.integers(0, 1_000_000),
)
def test_a_longer_delay_is_a_freeze_whenever_a_shorter_one_is(
    earlier_us: list[int], delay_us: int, more_us: int
) -> None:
    assert frozen_after(earlier_us, delay_us + more_us) >= frozen_after(earlier_us, delay_us)


# --- Compiled and not -----------------------------------------------------------------------------

_DIGEST = """
import hashlib
from bwe_env.quality import RESOLUTION_LADDER
from bwe_env.sim.freeze import is_freeze
from bwe_env.sim.histogram import delay_bin
digest = hashlib.sha256()
for i in range(20000):
    freeze = is_freeze(i * 37, i * 37 + 29 * (i % 311) * 1000, 30)
    digest.update(repr((int(delay_bin(i * i)), bool(freeze))).encode())
print(digest.hexdigest())
"""


def _digest(disable_jit: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": disable_jit}
    result = subprocess.run(
        [sys.executable, "-c", _DIGEST], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_bins_and_freezes_are_the_same_with_the_compiler_off() -> None:
    assert _digest("0") == _digest("1")
